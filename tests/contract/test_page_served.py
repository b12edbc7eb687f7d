"""The page over a whole server: what it is told is what has happened, and holds no secret."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST
from tests.contract.running import database, fake
from tests.contract.served_bed import Asked, served
from vaultauthz import service as service_module
from vaultauthz.core import events
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.demo.client import get_unix
from vaultauthz.engine import Engine
from vaultauthz.version import __version__

UPSTREAMS = {"pay": database("pay"), "geo": database("geo")}


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role and two databases."""
    with fake() as made:
        yield made


@pytest.fixture
def asked(vault: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A server that has its credentials, in a hurry with Vault."""
    monkeypatch.setattr(service_module, "Engine", partial(Engine, pace=FAST))
    with served(vault, tmp_path, UPSTREAMS) as asked:
        assert wait_until(lambda: asked.readyz()[0] == 200)
        yield asked


def overview(asked: Asked, query: str = "") -> Any:
    """What the page is told."""
    reply = get_unix(asked.folder / "a.sock", f"/overview{query}")
    assert reply.status == 200
    return reply.body


def lease(asked: Asked, upstream: str) -> Any:
    """One of the leases that it shows."""
    (found,) = (row for row in overview(asked)["leases"] if row["upstream"] == upstream)
    return found


def comes(look: Callable[[], Any]) -> bool:
    """Whether it does, in time."""

    def looked() -> bool:
        with contextlib.suppress(KeyError, IndexError, ValueError):
            return bool(look())
        return False

    return wait_until(looked)


def test_a_server_that_is_well(asked: Asked, vault: FakeVault) -> None:
    """Its leases with how they began, its stage with login, policies and Vault, itself; nothing fails."""
    found = overview(asked)
    assert (found["ready"], found["failing"], found["total"]) == (True, [], 2)
    for row in found["leases"]:
        assert [mark["name"] for mark in row["marks"]] == [events.ISSUED]
        assert row["began_at"] < row["next_at"] < row["ends_at"]
    (stage,) = found["stages"]
    (node,) = stage["nodes"]
    assert (stage["method"], stage["mount"]) == ("approle", "approle")
    assert (node["address"], node["works"]) == (vault.address, True)
    assert stage["login"]["policies"] == ["gateway"]
    assert found["server"]["version"] == __version__
    said = " / ".join(news["text"] for news in found["news"])
    assert "login of stage production: logged in" in said
    assert "upstream pay, stage production: has its credential" in said


@pytest.mark.parametrize("path", ["/overview", "/metrics", "/certificates", "/leases"])
def test_the_rows_are_made_once(asked: Asked, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Under the keeper's lock, for which renewals wait; of ten thousand leases they take a while."""
    keeper, made = asked.service.engine.keeper, list[int]()
    rows = keeper.rows

    def counted() -> list[LeaseRow]:
        made.append(len(rows()))
        return rows()

    monkeypatch.setattr(keeper, "rows", counted)
    assert asked.get(path)
    assert made == [3]  # a login and two leases


def test_it_holds_no_secret(asked: Asked, vault: FakeVault) -> None:
    """Neither a token, nor a name or a password that Vault has issued."""
    asked.service.engine.keeper.rotate("pay")
    assert comes(lambda: events.ROTATED in [m["name"] for m in lease(asked, "pay")["marks"]])
    told = json.dumps(overview(asked))
    secrets = [*vault.issued, *(token.id for token in vault.tokens.values()), "s3cr3t-id"]
    assert len(secrets) >= 4
    assert [secret for secret in secrets if secret in told] == []


def test_what_fails_comes_first_with_why_and_since_when(asked: Asked, vault: FakeVault) -> None:
    """A rotation that Vault refuses, then the loss of the credential, then that it is over."""
    vault.deny("database/creds/pay")
    asked.service.engine.keeper.rotate("pay")
    assert comes(lambda: overview(asked)["failing"][0]["since"])
    (first, *_), top = overview(asked)["failing"], overview(asked)["leases"][0]
    assert first["places"] == [{"stage": "production", "upstream": "pay", "caller": ""}]
    assert (first["tone"], first["what"]) == (
        "warn",
        "Calls to Vault for it fail; it is used until it ends",
    )
    assert "permission denied" in first["why"]
    assert (top["upstream"], top["tone"]) == ("pay", "warn")

    asked.service.engine.keeper.revoke("pay")
    assert comes(lambda: overview(asked)["failing"][0]["tone"] == "bad")
    (first, *_) = overview(asked)["failing"]
    assert first["what"] == "No credential: requests are answered 503"
    assert overview(asked, "?failing=1")["found"] == 1
    assert "bad" in {news["tone"] for news in overview(asked)["news"]}

    vault.allow("database/creds/pay")
    assert comes(lambda: lease(asked, "pay")["tone"] == "good")
    assert overview(asked)["failing"] == []


def test_401s_are_shown(asked: Asked) -> None:
    """With the count, among what fails, and as a mark on the lease's life."""
    row = asked.row()
    asked.service.tried("production", "pay", row.credential_id, 401)
    asked.service.rejected("pay", "production", row.credential_id)
    found = lease(asked, "pay")
    assert (found["refused"], found["tone"]) == (1, "bad")
    assert events.REJECTED in [mark["name"] for mark in found["marks"]]
    (first, *_) = overview(asked)["failing"]
    assert (first["what"], first["since"]) == (
        "Its service answers 401",
        pytest.approx(found["refused_at"], abs=1.0),
    )


def test_a_vault_that_is_away(asked: Asked, vault: FakeVault) -> None:
    """Named by its address, with why and since when, for as long as it is."""
    vault.stop()
    asked.service.engine.keeper.rotate("pay")
    what = f"Vault at {vault.address} does not serve"
    assert comes(lambda: what in {one["what"] for one in overview(asked)["failing"]})
    (node,) = overview(asked)["stages"][0]["nodes"]
    assert (node["works"], bool(node["reason"]), bool(node["since"])) == (False, True, True)


def test_reloads_are_told(asked: Asked) -> None:
    """The file, a refusal with its reason, and the one after it, which is carried out."""
    file = asked.folder / "c.yaml"
    asked.service.facts.config_file = file
    file.write_text("upstreams: nothing\n")
    asked.service.reload(file)
    found = overview(asked)
    assert (found["server"]["config_file"], found["server"]["reload"]["taken"]) == (
        str(file),
        False,
    )
    (first, *_) = found["failing"]
    assert first["what"].startswith("A change of the configuration was refused")
    assert "upstreams" in first["why"]
    file.write_text(yaml.safe_dump(asked.document))
    asked.service.reload(file)
    found = overview(asked)
    assert (found["server"]["reload"]["taken"], found["failing"]) == (True, [])


def test_gateways_are_counted(asked: Asked) -> None:
    """Also one that says nothing of itself."""
    assert overview(asked)["gateways"] == []  # who asks this is none
    with socket.socket(socket.AF_UNIX) as envoy:
        envoy.connect(str(asked.folder / "g.sock"))
        assert comes(lambda: overview(asked)["gateways"][0]["connections"] == 1)
