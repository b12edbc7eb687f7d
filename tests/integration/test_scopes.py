"""Leases of each caller's and each request's own: real Envoy, OpenBao and PostgreSQL, JWTs as callers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.integration.gateway_bed import GatewayBed, Reply, Route
from tests.integration.served import TIMEOUT, Login, Served
from vaultauthz import config
from vaultauthz.core.decision import Allowed
from vaultauthz.core.pace import Pace
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for
from vaultauthz.engine import Engine

pytestmark = pytest.mark.integration

KEY: Final = b"0123456789abcdef0123456789abcdef"
POLICY = """
path "database/creds/scopes" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
UPSTREAMS = """
upstreams:
  mine:
    secret: {path: database/creds/scopes}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
    per: caller
    max_callers: 10
    idle: 10m
  once:
    secret: {path: database/creds/scopes}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
    per: request
    hold: 1s
"""


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(subject: str, issuer: str = "https://id.test") -> str:
    """A JWT that Envoy verifies."""
    parts = [{"alg": "HS256", "kid": "k"}, {"iss": issuer, "sub": subject}]
    signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{encoded(hmac.digest(KEY, signed.encode(), hashlib.sha256))}"


def with_jwt(bootstrap: dict[str, Any]) -> None:
    """Have Envoy verify tokens, where there are some, and tell us their claims."""
    jwks = {"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": encoded(KEY)}]}
    provider = {
        "local_jwks": {"inline_string": json.dumps(jwks)},
        "payload_in_metadata": "token",
        "from_headers": [{"name": "x-token"}],
    }
    kind = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3"
    jwt = {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": f"{kind}.JwtAuthentication",
            "providers": {"any": provider},
            "rules": [
                {
                    "match": {"prefix": "/"},
                    "requires": {
                        "requires_any": {
                            "requirements": [{"provider_name": "any"}, {"allow_missing": {}}]
                        }
                    },
                }
            ],
        },
    }
    for listener in bootstrap["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"].insert(0, jwt)


@pytest.fixture(scope="module")
def login(bao: OpenBao, postgres: Postgres) -> Login:
    """A login that may have database users."""
    bao.database(postgres, "scopes", default_ttl="10m", max_ttl="1h")
    return Login(bao.address, *bao.enable_approle("scopes", POLICY))


@pytest.fixture(scope="module")
def stopped(login: Login, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that each test starts for itself."""
    return Served(tmp_path_factory.mktemp("served"), login, UPSTREAMS)


@pytest.fixture(scope="module")
def bed(stopped: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBed]:
    """The gateway."""
    routes = [Route("mine.test", "mine"), Route("once.test", "once")]
    made = GatewayBed(tmp_path_factory.mktemp("bed"), stopped.socket, routes)
    with_jwt(made.bootstrap)
    with made:
        yield made


@pytest.fixture
def served(stopped: Served, bed: GatewayBed, postgres: Postgres) -> Iterator[Served]:
    """A server with its login; afterwards its users are gone."""
    before = set(postgres.users())
    with stopped as server:
        server.wait(lambda: len(server.audit("login")) > 0, "it did not log in")
        yield server
        if server.process.running:
            server.ask(signal.SIGTERM)
            assert server.ended() == 0
    assert set(postgres.users()) <= before


def ask(bed: GatewayBed, host: str, subject: str = "", issuer: str = "https://id.test") -> Reply:
    """A request; asked again, as its client is told to, while Vault takes longer than Envoy waits."""
    headers = [("X-Token", token(subject, issuer))] if subject else []
    replies: list[Reply] = []

    def answered() -> bool:
        replies.append(bed.get(host, headers=headers))
        return replies[-1].error != "no_credential"

    assert wait_for(answered, TIMEOUT), replies[-1]
    return replies[-1]


def basic(reply: Reply) -> tuple[str, str]:
    """The login that the service received, once."""
    assert reply.status == 200, reply
    (value,) = reply.got("authorization")
    user, _, password = base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")
    return user, password


def lets_in(postgres: Postgres, login: tuple[str, str]) -> bool:
    """Whether the database does."""
    try:
        postgres.connect(*login).close()
    except psycopg.OperationalError:
        return False
    return True


def test_each_caller_has_a_database_user_of_its_own(
    bed: GatewayBed, served: Served, postgres: Postgres
) -> None:
    """Eight callers, three requests of each at once: eight users, issued in their names."""
    callers = [(f"user-{n}", f"https://id-{n % 2}.test") for n in range(6)]
    callers += [("twin", "https://id-0.test"), ("twin", "https://id-1.test")]
    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(lambda c: (c, ask(bed, "mine.test", *c)), callers * 3))
    logins = {caller: {basic(r) for c, r in replies if c == caller} for caller in callers}
    assert {len(each) for each in logins.values()} == {1}
    users = {user for each in logins.values() for user, _ in each}
    assert len(users) == len(callers)
    assert all(lets_in(postgres, login) for each in logins.values() for login in each)

    issued = [line for line in served.audit("lease.issued") if line["upstream"] == "mine"]
    assert sorted(line["caller"] for line in issued) == sorted(subject for subject, _ in callers)
    again = {basic(ask(bed, "mine.test", *caller)) for caller in callers}
    assert again == {login for each in logins.values() for login in each}


def test_an_idle_caller_s_user_is_dropped_and_a_busy_one_s_is_not(
    login: Login, postgres: Postgres, tmp_path: Path
) -> None:
    """With little time to drain, which the server gives requests in flight: else it takes 30 s."""
    secret_id = tmp_path / "secret_id"
    secret_id.touch(0o600)
    secret_id.write_text(login.secret_id)
    vault = f'vault: {{address: "{login.vault}"}}'
    auth = f"{{method: approle, role_id: {login.role_id}, secret_id_file: secret_id}}"
    text = f"{vault}\nstages: {{production: {{auth: {auth}}}}}{UPSTREAMS.replace('10m', '1s')}"
    engine = Engine(config.parse(text, "x.yaml", tmp_path, {}))
    engine.keeper._pace = Pace(drain=0.2)

    def user(principal: str) -> str:
        request = Request("test", upstream="mine", principal=principal, wait=TIMEOUT)
        decision = engine.check(request)
        assert isinstance(decision, Allowed), decision
        assert decision.credential is not None
        ((_, value),) = decision.credential.mutation.headers
        return base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")[0]

    with engine:
        kept, idle = user("ann"), user("bob")
        assert {kept, idle} <= set(postgres.users())
        assert wait_for(lambda: user("ann") == kept and idle not in postgres.users(), TIMEOUT)
        assert kept in postgres.users()
        assert user("bob") != idle
    assert kept not in postgres.users()


def test_who_is_not_authenticated_gets_nobody_s_user(
    bed: GatewayBed, served: Served, postgres: Postgres
) -> None:
    """No token, or one that Envoy does not accept: no service is reached, no user made."""
    before = postgres.users()
    denied = ask(bed, "mine.test")
    assert (denied.status, denied.error, denied.seen) == (403, "caller_denied", None)
    forged = bed.get("mine.test", headers=[("X-Token", token("ann")[:-4] + "AAAA")])
    assert (forged.status, forged.seen) == (401, None)
    assert set(postgres.users()) <= set(before)


def test_each_request_has_a_database_user_of_its_own(
    bed: GatewayBed, served: Served, postgres: Postgres
) -> None:
    """Twenty requests, of three callers and of nobody: twenty users; gone when `hold` is over."""
    subjects = ["ann", "bob", "cid", ""] * 5
    with ThreadPoolExecutor(4) as pool:
        logins = list(pool.map(lambda s: basic(ask(bed, "once.test", s)), subjects))
    users = {user for user, _ in logins}
    assert len(users) == 20
    last = basic(ask(bed, "once.test", "ann"))
    assert lets_in(postgres, last)  # while its request would be under way
    assert last[0] not in users
    assert wait_for(lambda: not (users | {last[0]}) & set(postgres.users()), TIMEOUT)
    issued = served.audit("lease.issued", upstream="once")
    assert {line["caller"] for line in issued} == set(subjects)


def test_a_stop_under_load_leaves_no_user_behind(
    bed: GatewayBed, served: Served, postgres: Postgres
) -> None:
    """SIGTERM amid requests of both kinds: within five seconds it is gone, and its users with it."""
    before = set(postgres.users())
    stop = threading.Event()
    replies: list[Reply] = []

    def load(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            headers = [("X-Token", token(f"user-{number}-{turn % 3}"))]
            replies.append(bed.get(("mine.test", "once.test")[turn % 2], headers=headers))

    threads = [threading.Thread(target=load, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert wait_for(lambda: len(set(postgres.users()) - before) >= 8, TIMEOUT)
        served.ask(signal.SIGTERM)
        assert served.ended() == 0
        assert set(postgres.users()) <= before
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert {reply.status for reply in replies} <= {200, 503}
    assert all(reply.seen is None for reply in replies if reply.status == 503)
    assert all(
        reply.got("authorization")[0].startswith("Basic ") for reply in replies if reply.seen
    )
