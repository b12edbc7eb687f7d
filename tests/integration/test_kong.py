"""`vaultauthz kong serve` with a real OpenBao and PostgreSQL, in the stand-in for Kong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.contract.kong import Answer, Consumer, Kong, Route
from tests.contract.kong_bed import audit, our_server
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for

pytestmark = pytest.mark.integration

POLICY = """
path "kongs/*" { capabilities = ["read"] }
path "database/creds/kong-pay" { capabilities = ["read"] }
"""
ROUTES = {"pay": {"upstream": "pay"}, "geo": {"upstream": "geo"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the configuration, the audit log and the sockets are."""
    return tmp_path_factory.mktemp("k")


@pytest.fixture(scope="module")
def kong(folder: Path, bao: OpenBao, postgres: Postgres) -> Iterator[Kong]:
    """A Kong whose plugin server has logged in to OpenBao."""
    bao.put_kv("kongs/geo", {"key": "kong-key-0123456789"})
    bao.database(postgres, "kong-pay", default_ttl="1h", max_ttl="2h")
    role_id, secret_id = bao.enable_approle("kong", POLICY)
    (folder / "secret_id").touch(0o600)
    (folder / "secret_id").write_text(secret_id)
    login = {"username": "{username}", "password": "{password}"}
    document = {
        "vault": {"address": bao.address},
        "stages": {
            "production": {
                "auth": {"method": "approle", "role_id": role_id, "secret_id_file": "secret_id"}
            }
        },
        "upstreams": {
            "pay": {
                "secret": {"path": "database/creds/kong-pay"},
                "inject": [{"basic": login}],
                "callers": [{"consumer": "shop"}],
            },
            "geo": {
                "secret": {"kv": "kongs/geo", "refresh": "1s"},
                "inject": [{"header": {"name": "X-Api-Key", "value": "{key}"}}],
                "callers": "any",
            },
        },
        "audit": {"file": "audit.jsonl"},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(document))
    server = our_server(folder, folder / "c.yaml")
    routes = [Route(name, f"/{name}", config) for name, config in ROUTES.items()]
    with Kong(server, routes) as running:
        yield running


def login_of(answer: Answer) -> tuple[str, str]:
    """The user and the password that the upstream was sent."""
    value = answer.upstream.header("authorization") or ""
    user, _, password = base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")
    return user, password


def test_a_login_that_opens_the_database(kong: Kong, folder: Path, postgres: Postgres) -> None:
    """It is PostgreSQL's, made for us, and the audit log says which request got it."""
    answer = kong.request("GET", "/pay", consumer=Consumer("shop"))
    postgres.connect(*login_of(answer)).close()
    request_id = answer.upstream.header("X-Kong-Request-Id") or ""
    assert wait_for(lambda: bool(audit(folder, "request.allowed", request_id=request_id)), PATIENCE)
    (line,) = audit(folder, "request.allowed", request_id=request_id)
    assert (line["caller"], line["lease_id"] != "") == ("shop", True)
    assert kong.request("GET", "/pay").json()["error"] == "caller_denied"


def test_a_new_version_of_a_key(kong: Kong, bao: OpenBao) -> None:
    """Is sent soon after it was written, without a request in between that has none."""
    bao.put_kv("kongs/geo", {"key": "another-key-0123456789"})

    def sent() -> str | None:
        return kong.request("GET", "/geo").upstream.header("x-api-key")

    assert wait_for(lambda: sent() == "another-key-0123456789", PATIENCE)


def test_no_secret_is_logged(kong: Kong, folder: Path) -> None:
    """Neither in what the server says, nor in its audit log, nor in what Kong's log plugins see."""
    answer = kong.request("GET", "/pay", consumer=Consumer("shop"))
    user, password = login_of(answer)
    key = kong.request("GET", "/geo").upstream.header("x-api-key") or ""
    answer.log.wait()
    said = "\n".join(line.message for line in kong.lines)
    told = said + (folder / "audit.jsonl").read_text() + json.dumps(answer.log.serialized)
    assert user
    assert not [secret for secret in (password, key) if secret in told]


def test_the_end(kong: Kong, postgres: Postgres) -> None:
    """After Kong's stop what was leased is revoked: PostgreSQL has no such user any more."""
    user, _ = login_of(kong.request("GET", "/pay", consumer=Consumer("shop")))
    assert user in postgres.users()
    kong.stop()
    assert wait_for(lambda: user not in postgres.users(), PATIENCE)
