"""Static roles, certificates, writes and pinned versions on the real OpenBao."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.patience import PATIENCE
from vaultauthz.config import parse
from vaultauthz.core.decision import Allowed
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for
from vaultauthz.engine import Engine

pytestmark = pytest.mark.integration

_POLICY = """
path "database/static-creds/fixed" { capabilities = ["read"] }
path "forms-pki/issue/gateway"     { capabilities = ["update"] }
path "forms/*"                     { capabilities = ["read"] }
"""
_BASIC = 'inject: [{basic: {username: "{username}", password: "{password}"}}]'
# Vault rotates a static role up to some seconds late, and we notice within a poll of it:
# how long after that an old password may still have been sent. A mistake lasts a whole period.
_PERIOD = 10.0
_BOUND = _PERIOD / 2


@pytest.fixture
def login(bao: OpenBao, secret_id: Path) -> str:
    """The configuration's beginning."""
    role_id, secret = bao.enable_approle("forms", _POLICY)
    secret_id.write_text(secret)
    auth = f"{{method: approle, role_id: {role_id}, secret_id_file: {secret_id}}}"
    return f"vault: {{address: '{bao.address}'}}\nstages: {{forms: {{auth: {auth}}}}}\nupstreams:\n"


@contextmanager
def _engine(login: str, secret: str, inject: str) -> Iterator[Engine]:
    text = f"{login} u:\n  secret: {secret}\n  {inject}\n  callers: any\n"
    with Engine(parse(text, "test", Path(), {})) as engine:
        assert wait_for(lambda: engine.ready, PATIENCE), engine.keeper.rows()
        yield engine


def _headers(engine: Engine) -> dict[str, str]:
    decision = engine.check(Request("test", upstream="u"))
    assert isinstance(decision, Allowed), decision
    assert decision.credential
    return dict(decision.credential.mutation.headers)


def test_a_static_role_is_followed_through_its_rotations(
    bao: OpenBao, postgres: Postgres, login: str
) -> None:
    """Logins fail at most within the bound around a rotation, and three passwords are seen."""
    with psycopg.connect(postgres.superuser_url, autocommit=True) as superuser:
        superuser.execute("DROP ROLE IF EXISTS fixed")
        superuser.execute("CREATE ROLE fixed LOGIN PASSWORD 'before'")
    bao.database(postgres, "unused", default_ttl="1m", max_ttl="1m")
    bao.client().write(
        "database/static-roles/fixed",
        db_name="postgres",
        username="fixed",
        rotation_period=f"{_PERIOD:.0f}s",
    )
    passwords: set[str] = set()
    failed: list[float] = []
    with _engine(login, "{static_role: database/static-creds/fixed}", _BASIC) as engine:
        until = time.monotonic() + PATIENCE
        while len(passwords) < 3 and time.monotonic() < until:
            basic = base64.b64decode(_headers(engine)["authorization"].split()[1]).decode()
            passwords.add(basic)
            try:
                postgres.connect(*basic.split(":", 1)).close()
            except psycopg.OperationalError:
                failed.append(time.monotonic())
            time.sleep(0.02)
    assert len(passwords) == 3
    longest = _longest_run(failed)
    assert longest <= _BOUND, failed


def _longest_run(times: list[float]) -> float:
    """Seconds from the first to the last failure of the longest unbroken run of them."""
    longest, began = 0.0, None
    for before, now in zip([-1.0, *times], times, strict=False):
        if began is None or now - before > 0.5:
            began = now
        longest = max(longest, now - began)
    return longest


def test_a_certificate_is_replaced_before_its_expiration(bao: OpenBao, login: str) -> None:
    """It is no lease, yet it ends: another is there in time, by a write with params."""
    bao.enable_engine("forms-pki", "pki")
    client = bao.client()
    client.write("forms-pki/root/generate/internal", common_name="forms", ttl="1h")
    client.write(
        "forms-pki/roles/gateway", allow_any_name=True, ttl="6s", max_ttl="6s", no_store=False
    )
    secret = "{pki: forms-pki/issue/gateway, params: {common_name: 'gateway-{stage}'}}"
    inject = 'inject: [{header: {name: X-Serial, value: "{serial_number}"}}]'
    serials: set[str] = set()
    with _engine(login, secret, inject) as engine:
        until = time.monotonic() + PATIENCE
        while len(serials) < 3 and time.monotonic() < until:
            serials.add(_headers(engine)["x-serial"])
            time.sleep(0.05)
    assert len(serials) == 3


def test_a_pinned_version_stays_when_a_newer_is_written(bao: OpenBao, login: str) -> None:
    """`version` reads that one, whatever is written after it."""
    bao.put_kv("forms/pinned", {"key": "first"})
    bao.put_kv("forms/pinned", {"key": "second"})
    inject = 'inject: [{header: {name: X-Key, value: "{key}"}}]'
    with _engine(login, "{kv: forms/pinned, version: 1, refresh: 1s}", inject) as engine:
        assert _headers(engine)["x-key"] == "first"
        bao.put_kv("forms/pinned", {"key": "third"})
        time.sleep(1.5)
        assert _headers(engine)["x-key"] == "first"
