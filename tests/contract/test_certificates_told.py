"""A whole server's certificates: what it shows Vault, and what Vault issues; by every way to ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.certificates import Authority, server_context
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.served_bed import served
from vaultauthz.vault.certificates import validities

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
