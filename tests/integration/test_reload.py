"""The file is replaced, and credentials are rotated and revoked, under constant traffic through a real Envoy."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest
import requests

from tests.contract.house import write
from tests.integration.gateway_bed import GatewayBed, Route
from tests.integration.served import TIMEOUT, Login, Served
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, Postgres, Upstream, wait_for
from vaultauthz.demo.parts.upstreams import reports
from vaultauthz.observe.chain import verify

pytestmark = pytest.mark.integration

POLICY = """
path "reload/*" { capabilities = ["read"] }
path "database/creds/reload" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
FIRST, SECOND = "first-key-1", "second-key-2"
UPSTREAMS = """
upstreams:
  geo:
    secret: {kv: reload/geo, refresh: 10m}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
  db:
    secret: {path: database/creds/reload}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
"""
OTHER_KEY = ("kv: reload/geo,", "kv: reload/other,")
RELOADED = "config.reloaded"


@dataclass(frozen=True)
class House:
    """A server behind a gateway, with PostgreSQL as the service of `db`."""

    served: Served
    bed: GatewayBed
    postgres: Postgres
    original: str

    def configure(self, *changes: tuple[str, str]) -> None:
        """Replace the file by the first one with these texts exchanged, as a deployment does."""
        text = self.original
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        write(self.served.config, text)

    @contextlib.contextmanager
    def says(self, text: str) -> Iterator[None]:
        """At the end wait until the log has this text once more than at the beginning."""
        before = self.served.stderr.count(text)
        yield
        self.served.wait(lambda: self.served.stderr.count(text) > before, f"no {text!r} in the log")

    def wait_unwatched(self) -> None:
        """Until the file's last change has been seen and is forgotten."""
        assert wait_for(lambda: time.time() - self.served.config.stat().st_ctime > 1.5, TIMEOUT)

    def lease(self, upstream: str) -> dict[str, Any]:
        """What `vaultauthz leases` tells of an upstream."""
        (row,) = [
            row
            for row in json.loads(self.run("leases", "--json").out)
            if row["upstream"] == upstream
        ]
        return dict(row)

    def run(self, *command: str) -> Done:
        """A command of the operator's, who names the configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "vaultauthz", *command, "-c", self.served.config],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


class Load:
    """Three clients that ask one host without a pause; each answer as the key or user it was given, or its status."""

    def __init__(self, house: House, host: str) -> None:
        self._url = f"http://127.0.0.1:{house.bed.ports['strict']}/"
        self._host = host
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(3)]
        self.outcomes: list[str] = []

    def _ask(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.is_set():
                try:
                    answer = session.get(self._url, headers={"Host": self._host}, timeout=TIMEOUT)
                except requests.RequestException as exc:
                    self.outcomes.append(type(exc).__name__)
                    continue
                self.outcomes.append(_outcome(answer))

    def count(self) -> Counter[str]:
        """How often there was each."""
        return Counter(tuple(self.outcomes))

    def see(self, met: Callable[[str], bool], more: int = 20) -> str:
        """Wait for so many more outcomes of a kind; the last of them."""
        begun = len(self.outcomes)

        def found() -> list[str]:
            return [outcome for outcome in self.outcomes[begun:] if met(outcome)]

        assert wait_for(lambda: len(found()) >= more, TIMEOUT), self.count()
        return found()[-1]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT)


def _outcome(answer: requests.Response) -> str:
    """The key as the echo service saw it, the user as PostgreSQL did, or the status."""
    if answer.status_code != 200:
        return str(answer.status_code)
    told = answer.json()
    if "current_user" in told:
        return str(told["current_user"])
    keys = [value for name, value in told["headers"] if name.lower() in ("x-api-key", "x-new-key")]
    return ",".join(keys)


def good(outcome: str) -> bool:
    """Whether the request reached its service with a credential."""
    return not outcome.isdigit() and outcome != ""


@pytest.fixture(scope="module")
def made(
    bao: OpenBao, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Everything, once for all tests."""
    bao.put_kv("reload/geo", {"api_key": FIRST})
    bao.put_kv("reload/geo", {"api_key": FIRST})  # version 2, so that the other's is lower
    bao.put_kv("reload/other", {"api_key": SECOND})
    bao.database(postgres, "reload", default_ttl="1h", max_ttl="2h")
    login = Login(bao.address, *bao.enable_approle("reload", POLICY))
    served = Served(tmp_path_factory.mktemp("served"), login, UPSTREAMS)
    routes = [Route("geo.test", "geo"), Route("db.test", "db", service="database")]
    with Upstream(reports(postgres)) as database:
        ports = {"database": database.port}
        with (
            GatewayBed(tmp_path_factory.mktemp("bed"), served.socket, routes, ports) as bed,
            served,
        ):
            yield House(served, bed, postgres, served.config.read_text())


@pytest.fixture
def house(made: House) -> Iterator[House]:
    """A house with the first configuration and the first key."""
    made.served.wait_ready()
    assert wait_for(made.bed.healthy, TIMEOUT)
    with Load(made, "geo.test") as load:
        load.see(lambda outcome: outcome == FIRST)
        yield made
        made.configure()
        load.see(lambda outcome: outcome == FIRST)


def test_a_replaced_file_takes_effect_without_a_failed_request(house: House) -> None:
    """Another secret (whose version is lower) in another header; every request got one or the other."""
    reloads = len(house.served.audit(RELOADED))
    with Load(house, "geo.test") as load:
        load.see(lambda outcome: outcome == FIRST)
        house.configure(OTHER_KEY, ("name: X-Api-Key", "name: X-New-Key"))
        load.see(lambda outcome: outcome == SECOND)
    assert load.count().keys() == {FIRST, SECOND}
    last = len(load.outcomes) - load.outcomes[::-1].index(FIRST)
    assert set(load.outcomes[last:]) == {SECOND}
    house.served.wait(
        lambda: len(house.served.audit(RELOADED)) > reloads, "it is not in the audit log"
    )
    assert house.served.audit(RELOADED)[-1]["reason"] == "1x upstream changed"
    assert list(verify(house.served.stdout.encode().splitlines())) == []


def test_callers_take_effect(house: House) -> None:
    """Who may not use it any more is denied; the lease stays, and with the old rule all is as before."""
    before = house.lease("geo")
    with Load(house, "geo.test") as load:
        load.see(lambda outcome: outcome == FIRST)
        house.configure(
            ('"{api_key}"}}]\n    callers: any', '"{api_key}"}}]\n    callers: [{methods: [POST]}]')
        )
        load.see(lambda outcome: outcome == "403")
        house.configure()
        load.see(lambda outcome: outcome == FIRST)
    assert load.count().keys() == {FIRST, "403"}
    assert house.lease("geo")["credential_id"] == before["credential_id"]


def test_sighup(house: House) -> None:
    """It reads the file at once; a file that says the same changes no lease and is not audited."""
    house.wait_unwatched()
    before, audited = house.lease("db"), len(house.served.audit())
    with Load(house, "db.test") as load:
        for _ in range(3):
            with house.says("reloaded: nothing has changed"):
                house.served.ask(signal.SIGHUP)
            load.see(good)
    assert len(load.count()) == 1, load.count()
    after = house.lease("db")
    assert (after["lease_id"], after["credential_id"]) == (
        before["lease_id"],
        before["credential_id"],
    )
    events = {line["event"] for line in house.served.audit()[audited:]}
    assert events <= {"request.allowed", "request.denied"}


def test_an_invalid_file_changes_nothing(house: House) -> None:
    """It is told with file, line and key, traffic goes on; the next valid one takes effect."""
    audited = len(house.served.audit(RELOADED))
    line = house.original[: house.original.index("refresh: 10m")].count("\n") + 1
    with Load(house, "geo.test") as load:
        with house.says(f"{house.served.config}:{line}: upstreams.geo.secret.refresh: "):
            house.configure(("refresh: 10m", "refresh: soon"))
        with house.says("not reloaded, the configuration before stays"):
            house.configure(("upstreams:", "upstreams: [\n"))
        load.see(good)
        assert load.count().keys() == {FIRST}
        assert len(house.served.audit(RELOADED)) == audited
        house.configure(OTHER_KEY)
        load.see(lambda outcome: outcome == SECOND)
    assert load.count().keys() == {FIRST, SECOND}


def test_a_file_that_is_gone_for_a_while(house: House) -> None:
    """Nothing happens until it is there again; SIGHUP meanwhile says that it cannot be read."""
    aside = house.served.config.rename(house.served.folder / "aside")
    with Load(house, "geo.test") as load:
        gone = f"{house.served.config} is gone; "
        house.served.wait(lambda: gone in house.served.stderr, "that it is gone is not told")
        with house.says("cannot be read"):
            house.served.ask(signal.SIGHUP)
        with house.says(f"{house.served.config} is there again"):
            aside.rename(house.served.config)
        house.configure(OTHER_KEY)
        load.see(lambda outcome: outcome == SECOND)
    assert load.count().keys() == {FIRST, SECOND}


def test_an_upstream_comes_and_goes_under_the_others_traffic(house: House) -> None:
    """The new one is served, then unknown again; the other's requests do not notice."""
    more = '\n  more:\n    secret: {kv: reload/other}\n    inject: [{bearer: "{api_key}"}]\n    callers: any'
    with Load(house, "db.test") as load:
        user = load.see(good)
        house.configure(("\n  db:", f"{more}\n  db:"))
        house.served.wait(
            lambda: house.run("rotate", "more").status == 0, "the new upstream is not there"
        )
        house.configure()
        house.served.wait(lambda: house.run("rotate", "more").status == 1, "it is still there")
        load.see(good)
    assert load.count().keys() == {user}


def test_rotated_by_an_operator(house: House) -> None:
    """Another database user, no request lost; the old user drains."""
    with Load(house, "db.test") as load:
        old = load.see(good)
        done = house.run("rotate", "db")
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith("rotating db in production\n")
        new = load.see(lambda outcome: good(outcome) and outcome != old)
    assert load.count().keys() == {old, new}
    assert old in house.postgres.users()  # its requests in flight have 30 s
    rotated = house.served.audited("lease.rotated", upstream="db")
    assert rotated["lease_id"] == house.lease("db")["lease_id"]


def test_revoked_by_an_operator(house: House) -> None:
    """The old database user is gone at once; after that every request is another user's."""
    with Load(house, "db.test") as load:
        old = load.see(good)
        done = house.run("revoke", "db")
        assert (done.status, done.err) == (0, "")
        assert wait_for(lambda: old not in house.postgres.users(), TIMEOUT)
        new = load.see(lambda outcome: good(outcome) and outcome != old)
        begun = len(load.outcomes)
        load.see(good)
    assert set(load.outcomes[begun:]) == {new}
    # In between there is nothing to send; and a request may have been on its way with the old one.
    assert load.count().keys() <= {old, new, "503", "401"}
    assert load.count()["401"] <= 3
    lost = house.served.audited("lease.lost", upstream="db")
    assert lost["reason"] == "revoked by an operator"
    assert house.served.audited("lease.revoked", lease_id=lost["lease_id"])


def test_nothing_went_wrong_on_the_way(house: House) -> None:
    """After all of this there is no traceback in the log and every lease is well."""
    assert "Traceback" not in house.served.stderr
    assert FIRST not in house.served.stderr + house.served.stdout
    assert house.run("leases").status == 0
