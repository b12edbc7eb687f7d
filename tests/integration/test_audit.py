"""`vaultauthz audit` on the logs of a real server and a real OpenBao."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.integration.served import Login, Served, asking, check_request
from tests.patience import PATIENCE
from vaultauthz import cli
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for

pytestmark = pytest.mark.integration

UPSTREAMS = """
upstreams:
  db:
    secret: {{path: {creds}}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    callers: any
  geo:
    secret: {{kv: audited/geo}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: any
audit: {{file: {folder}/audit.jsonl}}
"""
# Seconds after which a line must be in both logs.
SURE = 2.2
POLICY = """
path "audited/*" { capabilities = ["read"] }
path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""

Asking: TypeAlias = Callable[..., tuple[int, Any]]


@dataclass(frozen=True)
class Logs:
    """Ours and Vault's, of a server that has ended."""

    ours: Path
    vault: Path

    def lines(self) -> list[dict[str, Any]]:
        """Ours, read."""
        return [json.loads(line) for line in self.ours.read_text().splitlines()]

    def without(self, path: Path, folder: Path, mark: str) -> Path:
        """A copy of one of them, without the lines that have ``mark``."""
        kept = [line for line in path.read_text().splitlines(keepends=True) if mark not in line]
        copy = folder / path.name
        copy.write_text("".join(kept))
        return copy


@pytest.fixture(scope="module")
def logs(bao: OpenBao, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """A server issued, used, rotated and gave back."""
    folder = tmp_path_factory.mktemp("audited")
    bao.put_kv("audited/geo", {"api_key": "key-of-geo"})
    creds = bao.database(postgres, "audited", default_ttl="60s", max_ttl="10m")
    login = Login(bao.address, *bao.enable_approle("audited", POLICY))
    server = Served(folder, login, UPSTREAMS.format(folder=folder, creds=creds))
    with server, asking(server.socket) as gateway:
        server.wait_ready()
        assert gateway.call(check_request("geo", path="/map?secret=1")).status == 200
        for _ in range(3):
            assert gateway.call(check_request("db", path="/rows")).status == 200
        assert gateway.check(host="nobody.test").status == 403
        time.sleep(SURE)
        before = gateway.check("db").headers["authorization"]
        assert cli.main(["rotate", "db", "-c", str(server.config)]) == 0
        assert wait_for(lambda: gateway.check("db").headers["authorization"] != before, PATIENCE)
        time.sleep(SURE)
        server.ask(signal.SIGTERM)
        assert server.ended() == 0
    return Logs(folder / "audit.jsonl", bao.audit_path)


def run(*words: str | Path) -> int:
    """The exit status of `vaultauthz audit …`."""
    return cli.main(["audit", *map(str, words)])


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Run a command with --json; its status and its document."""

    def ask(*words: str | Path) -> tuple[int, Any]:
        status = run(*words, "--json")
        return status, json.loads(capsys.readouterr().out)

    return ask


def test_the_whole_log_holds(logs: Logs, answer: Asking) -> None:
    """Also where the log is found by the configuration."""
    status, found = answer("verify", logs.ours)
    assert (status, found["holds"], found["breaks"]) == (0, True, [])
    again = answer("verify", "-c", logs.ours.with_name("vaultauthz.yaml"), "--seal", found["seal"])
    assert again == (0, found | {"sealed": True})


def test_who_used_what(logs: Logs, answer: Asking) -> None:
    """As many requests as were sent."""
    _, found = answer("report", logs.ours)
    rows = {row["upstream"]: row for row in found["upstreams"]}
    assert rows["geo"]["allowed"] == 1
    assert (len(rows["db"]["credentials"]), rows["db"]["issued"]) == (2, 2)
    assert rows[""]["denied"] == 1


def test_each_credential_is_in_both_logs(logs: Logs, answer: Asking) -> None:
    """Issued by which call, to which role; and no log lacks what the other has."""
    status, found = answer("join", logs.ours, "--vault", logs.vault)
    assert (status, found["findings"], found["matched"]) == (0, [], 4)
    issued = {one["credential_id"]: one for one in found["credentials"]}
    assert len(issued) == 3
    for one in issued.values():
        path = "audited/data/geo" if one["upstream"] == "geo" else "database/creds/audited"
        assert (one["vault"]["path"], one["vault"]["role"]) == (path, "audited")
        assert one["uses"] > 0
        # Of a static secret nothing ends with its token.
        assert bool(one["ended"]) == (one["upstream"] == "db")


def test_what_was_taken_out_of_ours(logs: Logs, answer: Asking, tmp_path: Path) -> None:
    """The chain shows that lines are missing, and Vault's log what they were about."""
    (lease,) = [
        one["lease_id"]
        for one in logs.lines()
        if (one["event"], one["upstream"]) == ("lease.issued", "db")
    ]
    copy = logs.without(logs.ours, tmp_path, lease)
    assert answer("verify", copy)[1]["tampering"] > 0
    status, found = answer("join", copy, "--vault", logs.vault)
    assert status == 1
    (text,) = found["findings"]
    assert text.startswith(f"Vault issued lease {lease} to a token of ours")


def test_what_was_taken_out_of_vaults(logs: Logs, answer: Asking, tmp_path: Path) -> None:
    """Ours names the request that is missing."""
    (call,) = [one["vault_request_id"] for one in logs.lines() if one["event"] == "lease.rotated"]
    copy = logs.without(logs.vault, tmp_path, call)
    status, found = answer("join", logs.ours, "--vault", copy)
    assert status == 1
    (text,) = found["findings"]
    assert text.startswith(f"Vault's log has no request {call}")


def test_no_secret_is_told(logs: Logs, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor a query of a client."""
    theirs = ["--vault", str(logs.vault)]
    for action, *more in (["report"], ["join", *theirs], ["join", *theirs, "--request", "1"]):
        assert run(action, logs.ours, *more) == 0
        text = capsys.readouterr().out
        assert "key-of-geo" not in text
        assert "secret=1" not in text
