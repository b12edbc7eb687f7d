"""A whole server's certificates: what it shows Vault, and what Vault issues; by every way to ask."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.contract.certificates import Authority, server_context
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.served_bed import served
from tests.patience import PATIENCE
from vaultauthz.vault.certificates import validities
from vaultauthz.vault.session import Session

BASIC = {"basic": {"username": "{{username}}", "password": "{{password}}"}}
MESH = {
    "secret": {"path": "pki/issue/mesh"},
    "inject": [{"tls": {}}],
    "callers": "any",
}
SERIES = "vaultauthz_certificate_expiration_timestamp_seconds"


def end_of(cert: Path) -> float:
    """Its notAfter."""
    return validities(cert.read_bytes())[0].ends


def test_every_way_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's JSON, the metrics, `leases` and its JSON name the same ends."""
    authority = Authority(tmp_path)
    client, issued = authority.issue("gateway"), authority.issue("mesh", hours=0.75)
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"), authority.ca)) as vault:
        vault.set_approle()
        pem = {"certificate": issued.cert.read_text(), "private_key": issued.key.read_text()}
        vault.set_creds("pki/issue/mesh", fields=pem)
        tls = {"ca_cert": authority.ca, "client_cert": client.cert, "client_key": client.key}
        with served(
            vault, tmp_path, {"mesh": MESH}, **{key: str(path) for key, path in tls.items()}
        ) as asked:
            assert wait_until(lambda: asked.readyz()[0] == 200)
            ends = {"vault": end_of(client.cert), "upstream": end_of(issued.cert)}

            found = json.loads(asked.get("/certificates"))
            assert {one["use"]: one["not_after"] for one in found} == ends
            assert [(one["stage"], one["upstream"]) for one in found] == [
                ("production", ""),
                ("production", "mesh"),
            ]
            for use, upstream in (("vault", ""), ("upstream", "mesh")):
                labels = f'{{stage="production",upstream="{upstream}",use="{use}"}}'
                assert asked.gauge(f"{SERIES}{labels}") == ends[use]
            (row,) = (one for one in asked.service.engine.keeper.rows() if one.upstream)
            assert row.not_after == ends["upstream"]

            assert asked.leases("--certificates", "--json") == 0
            assert {o["use"]: o["not_after"] for o in json.loads(capsys.readouterr().out)} == ends
            assert asked.leases() == 0
            assert "mesh in production" in capsys.readouterr().out


def test_files_are_not_looked_at_under_the_keepers_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a mount that hangs would else hold up every renewal."""
    with FakeVault() as vault:
        vault.set_approle()
        vault.set_creds("database/creds/pay")
        pay = {"secret": {"path": "database/creds/pay"}, "inject": [BASIC], "callers": "any"}
        with served(vault, tmp_path, {"pay": pay}) as asked:
            engine, free = asked.service.engine, list[bool]()

            def look(_session: Session) -> None:
                other = threading.Thread(target=lambda: free.append(_is_free(engine.keeper.lock)))
                other.start()
                other.join()

            monkeypatch.setattr(Session, "client_certificate", property(look))
            assert (engine.client_certificates(), free) == ({}, [True])


def _is_free(lock: Any) -> bool:
    found = bool(lock.acquire(timeout=PATIENCE / 4))  # others take it now and then
    if found:
        lock.release()
    return found
