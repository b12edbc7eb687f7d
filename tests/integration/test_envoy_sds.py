"""Credentials by SDS in real Envoys: what services receive, through rotations and restarts."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faults.traffic import Traffic
from tests.integration.sds_bed import FORMS, SdsEnvoy, Service, metrics
from tests.integration.served import Login, Served
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, Postgres, Process, Upstream, echo, reports, wait_for

pytestmark = pytest.mark.integration

POLICY = """
path "database/creds/sds-*" { capabilities = ["read"] }
path "sds/data/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
KEY = """inject: [{header: {name: X-Api-Key, value: "{key}"}}]"""
LOGIN = """inject: [{basic: {username: "{username}", password: "{password}"}}]"""
UPSTREAMS = f"""
upstreams:
  brief: {{secret: {{path: database/creds/sds-brief}}, {LOGIN}, callers: any}}
  geo: {{secret: {{kv: sds/geo, refresh: 1s}}, {KEY}, callers: any}}
  gone: {{secret: {{kv: sds/gone, refresh: 1s}}, {KEY}, callers: any}}
  guarded: {{secret: {{kv: sds/geo}}, {KEY}, callers: [{{principal: "spiffe://corp/*"}}]}}
  enforced:
    secret: {{kv: sds/geo}}
    {KEY}
    callers: [{{principal: "spiffe://corp/*"}}]
    callers_enforced_by: envoy
  two:
    secret: {{kv: sds/geo}}
    inject: [{{header: {{name: X-Api-Key, value: "{{key}}"}}}}, {{bearer: "{{key}}"}}]
    callers: any
"""
NEW = ("lease.issued", "lease.rotated")
STEADY = f"""
upstreams:
  steady: {{secret: {{path: database/creds/sds-steady}}, {LOGIN}, callers: any}}
"""
# What a client may try: its own, twice, in odd case, and as CGI would read it.
ATTACKS: tuple[list[tuple[str, str]], ...] = (
    [],
    [("X-Api-Key", "client"), ("Authorization", "client")],
    [("X-API-KEY", "client-1"), ("x-api-key", "client-2"), ("x-aPI-kEY", "")],
    [("AUTHORIZATION", "client-1"), ("authorization", "client-2")],
    [("X_Api_Key", "client"), ("x_API_key", "client")],
)
SETTLE = PATIENCE
BRIEF = 20  # seconds that a login lives; no request sets out with it in its last one
ON_THE_WAY = 1.0  # seconds: the bound of docs/architecture.md, "The last second"
IN_TIME = 0.85 * BRIEF  # by when a login's successor is in both Envoys, unless the machine is slow


@pytest.fixture(scope="module")
def login(bao: OpenBao, postgres: Postgres) -> Login:
    """What is in Vault: keys, logins that last seconds, and logins that last."""
    bao.database(postgres, "sds-brief", default_ttl=f"{BRIEF}s", max_ttl=f"{BRIEF}s")
    bao.database(postgres, "sds-steady", default_ttl="1h", max_ttl="2h")
    bao.put_kv("sds/geo", {"key": "geo-1"})
    bao.put_kv("sds/gone", {"key": "gone-1"})
    role_id, secret_id = bao.enable_approle("sds", POLICY)
    return Login(bao.address, role_id, secret_id)


@pytest.fixture(scope="module")
def services(postgres: Postgres) -> Iterator[list[Service]]:
    """One that opens PostgreSQL sessions, and one that answers what it received."""
    with Upstream(reports(postgres)) as database, Upstream(echo()) as echoing:
        plain = [
            Service(name, echoing, {f"production/{name}": "x-api-key"})
            for name in ("geo", "gone", "guarded", "enforced")
        ]
        both = {
            "production/two/x-api-key": "x-api-key",
            "production/two/authorization": "authorization",
        }
        brief = Service("brief", database, {"production/brief": "authorization"})
        yield [brief, *plain, Service("two", echoing, both)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, login: Login) -> Iterator[Served]:
    """One server for the tests that do not stop it."""
    with Served(tmp_path_factory.mktemp("served"), login, UPSTREAMS) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def envoys(
    tmp_path_factory: pytest.TempPathFactory, served: Served, services: list[Service]
) -> Iterator[dict[str, SdsEnvoy]]:
    """One Envoy for each form of the protocol."""
    folder = tmp_path_factory.mktemp("envoys")
    made = {
        form: SdsEnvoy(folder / form, served.socket, services, form, f"edge-{form}")
        for form in FORMS
    }
    try:
        for envoy in made.values():
            envoy.start()
            assert wait_for(lambda e=envoy: works(e, "brief", "geo", "two"), SETTLE)  # type: ignore[misc]
        yield made
    finally:
        for envoy in made.values():
            envoy.kill()


@pytest.fixture(params=FORMS)
def envoy(request: pytest.FixtureRequest, envoys: dict[str, SdsEnvoy]) -> SdsEnvoy:
    """Each of them."""
    return envoys[request.param]


def works(envoy: SdsEnvoy, *services: str) -> bool:
    """Whether these answer 200 now."""
    return all(envoy.get(name).status == 200 for name in services)


def test_a_service_gets_the_credential_and_nothing_of_the_clients(envoy: SdsEnvoy) -> None:
    """Whatever a client sends in its place, once, twice or in odd case."""
    for attack in ATTACKS:
        reply = envoy.get("two", attack)
        assert reply.seen
        assert not [pair for pair in reply.seen.headers if "client" in pair[1]]
        assert reply.got("x-api-key") == ["geo-1"]
        assert reply.got("authorization") == ["Bearer geo-1"]


def test_what_is_withheld_is_refused(envoy: SdsEnvoy, served: Served) -> None:
    """Callers that nobody would ask about: nothing reaches the service. Enforced by Envoy: all does."""
    for attack in ATTACKS:
        reply = envoy.get("guarded", attack)
        assert (reply.status, reply.seen) == (401, None)
    assert envoy.get("enforced").got("x-api-key") == ["geo-1"]
    assert "'production/guarded', which has callers" in served.stderr


def test_what_was_handed_out_is_on_record(envoy: SdsEnvoy, served: Served) -> None:
    """Each credential in each Envoy, with its lease; and Envoy's own dump shows none."""
    caller = f"edge/{envoy.node}"
    line = served.audited("sds.delivered", upstream="brief", caller=caller)
    issued = {line["lease_id"] for line in served.audit(upstream="brief") if not line["caller"]}
    assert line["lease_id"] in issued
    assert line["credential_id"]
    assert "geo-1" not in envoy.config_dump()
    shown = metrics(served.admin_socket)
    assert '{event="sds.delivered",stage="production",upstream="brief"}' in shown
    (connections,) = re.findall(
        r"^vaultauthz_gateway_connections\{.*\} (\S+)$", shown, re.MULTILINE
    )
    assert float(connections) >= 2  # one for each Envoy at the least
    streams = [line for line in shown.splitlines() if line.startswith("vaultauthz_streams ")]
    # One for each Envoy with ads, one for each of its secrets otherwise.
    assert streams == [f"vaultauthz_streams {2 * 1 + 2 * 7}.0"]


def test_rotation_under_load(
    envoys: dict[str, SdsEnvoy], services: list[Service], served: Served
) -> None:
    """Logins of a few seconds, two Envoys, constant load: not one wrong answer, no dead login.

    On a machine that is too slow for a login's successor to come in time, Envoy rightly refuses
    for want of one. So that is judged in which both Envoys had each in time; some rotation has to be.
    """
    seen = services[0].upstream
    assert isinstance(seen, Upstream)
    forms = ("delta-ads", "grpc")
    callers = {f"edge/edge-{form}" for form in forms}
    for _ in range(3):
        seen.seen.clear()
        known = len(leases(served))
        with contextlib.ExitStack() as stack:
            both = [
                stack.enter_context(Traffic(envoys[form].port, "brief.test", 2)) for form in forms
            ]
            assert wait_for(lambda t=both: rotated(seen, t), PATIENCE)  # type: ignore[misc]
        if longest_way(served, callers, max(0, known - 1)) <= IN_TIME:
            break
    else:
        pytest.fail("no login's successor was in both Envoys in time")
    for asked in (asked for traffic in both for asked in traffic.asked()):
        # A service that refuses a login says why, and Envoy, for want of one, nothing.
        underway = asked.answered - asked.at
        assert asked.status == 200 or (asked.reason and underway > ON_THE_WAY), asked


def rotated(seen: Upstream, both: list[Traffic]) -> bool:
    """Whether two rotations and enough requests have been."""
    return len(users(seen)) >= 3 and all(traffic.statuses()[200] > 50 for traffic in both)


def leases(served: Served) -> list[dict[str, Any]]:
    """The audit lines of logins."""
    return [line for line in served.audit(upstream="brief") if line["event"] in NEW]


def longest_way(served: Served, callers: set[str], since: int) -> float:
    """Seconds from a login to the moment at which these Envoys had its successor, the most there were.

    ``since``: of logins from this one on.
    """
    delivered = [line for line in served.audit("sds.delivered") if line["caller"] in callers]
    ways = [0.0]
    for before, lease in itertools.pairwise(leases(served)[since:]):
        came = [d for d in delivered if d["credential_id"] == lease["credential_id"]]
        ways += [seconds(before, line) for line in came]
    return max(ways)


def seconds(line: dict[str, Any], later: dict[str, Any]) -> float:
    """Between two audit lines."""
    first, second = (datetime.fromisoformat(one["time"]) for one in (line, later))
    return (second - first).total_seconds()


def users(upstream: Upstream) -> set[str]:
    """The database users that requests came with."""
    logins = [seen.basic() for seen in list(upstream.seen)]
    return {login[0] for login in logins if login}


def test_withdrawn_and_given_again(envoys: dict[str, SdsEnvoy], bao: OpenBao) -> None:
    """A deleted secret: Envoy refuses, also what brings a key of its own; a new one: it goes on."""
    kv = bao.client().secrets.kv.v2
    for envoy in envoys.values():
        assert wait_for(lambda e=envoy: works(e, "gone"), SETTLE)  # type: ignore[misc]
    kv.delete_latest_version_of_secret("gone", mount_point="sds")
    for envoy in envoys.values():
        assert wait_for(lambda e=envoy: e.get("gone").status == 401, SETTLE)  # type: ignore[misc]
        for attack in ATTACKS:
            reply = envoy.get("gone", attack)
            assert (reply.status, reply.seen) == (401, None)
        assert works(envoy, "geo")
    bao.put_kv("sds/gone", {"key": "gone-2"})
    for envoy in envoys.values():
        assert wait_for(lambda e=envoy: works(e, "gone"), SETTLE)  # type: ignore[misc]
        assert envoy.get("gone").got("x-api-key") == ["gone-2"]


def test_restarts_under_load(
    tmp_path: Path, login: Login, postgres: Postgres, services: list[Service]
) -> None:
    """Before our start Envoy refuses all; through an orderly stop and a kill it goes on without a fault."""
    upstream = services[0].upstream
    steady = Service("steady", upstream, {"production/steady": "authorization"})
    served = Served(tmp_path, login, STEADY)
    with (
        contextlib.ExitStack() as ends,
        SdsEnvoy(tmp_path / "a", served.socket, [steady], "delta-ads", "a") as first,
        SdsEnvoy(tmp_path / "b", served.socket, [steady], "grpc", "b") as second,
    ):
        ends.callback(served.process.kill)
        envoys = (first, second)
        for envoy in envoys:
            assert envoy.get("steady", [("Authorization", "Basic YTpi")]).status == 401
        served.start()
        for envoy in envoys:
            assert wait_for(lambda e=envoy: works(e, "steady"), SETTLE)  # type: ignore[misc]
        with Traffic(first.port, "steady.test") as one, Traffic(second.port, "steady.test") as two:
            for end in (signal.SIGTERM, signal.SIGKILL):
                before = served.audited("sds.delivered", upstream="steady")["credential_id"]
                served.ask(end)
                assert served.ended() == (0 if end is signal.SIGTERM else -end)
                served.start()
                for caller in ("edge/a", "edge/b"):
                    assert wait_for(
                        lambda c=caller, b=before: delivered_after(served, c, b),  # type: ignore[misc]
                        SETTLE,
                    )
        for traffic in (one, two):
            assert set(traffic.statuses()) == {200}, traffic.statuses()
        (left,) = served.audit("token.left")
        assert left["stage"] == "production"
        assert not served.audit("token.revoked")
        assert "is not revoked, since 1 of its leases are in use by Envoys" in served.stderr


def test_a_take_over_under_load(
    tmp_path: Path, login: Login, postgres: Postgres, services: list[Service]
) -> None:
    """Each Envoy has the next server's credential before the one before revokes its own; no request fails."""
    steady = Service("steady", services[0].upstream, {"production/steady": "authorization"})
    served = Served(tmp_path, login, STEADY)
    words = [*served.process.argv[:2], f"{served.process.argv[2]} --take-over"]
    heir = Process([*words, *served.process.argv[3:]], tmp_path / "stdout")
    with (
        contextlib.ExitStack() as ends,
        SdsEnvoy(tmp_path / "a", served.socket, [steady], "delta-ads", "a") as first,
        SdsEnvoy(tmp_path / "b", served.socket, [steady], "grpc", "b") as second,
    ):
        ends.callback(served.process.kill)
        ends.callback(heir.kill)
        served.start()
        for envoy in (first, second):
            assert wait_for(lambda e=envoy: works(e, "steady"), SETTLE)  # type: ignore[misc]
        before = served.audited("sds.delivered", upstream="steady")["credential_id"]
        with Traffic(first.port, "steady.test") as one, Traffic(second.port, "steady.test") as two:
            heir.start()
            for caller in ("edge/a", "edge/b"):
                assert wait_for(lambda c=caller: delivered_after(served, c, before), SETTLE)  # type: ignore[misc]
            assert wait_for(lambda: not served.process.running, 2 * SETTLE)
            one.wait_for_200()
            two.wait_for_200()
        for traffic in (one, two):
            assert set(traffic.statuses()) == {200}, traffic.statuses()
        assert served.process.returncode == 0
        assert not served.audit("token.left")
        (revoked,) = served.audit("lease.revoked")
        assert revoked["credential_id"] == before


def delivered_after(served: Served, caller: str, before: str) -> bool:
    """Whether this Envoy has another credential than that one, as the last."""
    lines = served.audit("sds.delivered", upstream="steady", caller=caller)
    ids = [line["credential_id"] for line in served.audit("lease.issued", upstream="steady")]
    return bool(lines) and lines[-1]["credential_id"] == ids[-1] != before
