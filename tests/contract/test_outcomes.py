"""`rotate` and `revoke` against a whole server: what they say is so at Vault, and revocations that fail are told."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contract import faults
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST
from tests.contract.running import database, fake, kv
from tests.contract.served_bed import Asked, served
from vaultauthz import service as service_module
from vaultauthz.admin import command
from vaultauthz.cli import main
from vaultauthz.engine import Engine

REVOKE = "sys/leases/revoke"


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role, two databases and two keys."""
    with fake() as made:
        yield made


@pytest.fixture
def asked(vault: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A server that has started, with a lease and a static secret."""
    monkeypatch.setattr(service_module, "Engine", partial(Engine, pace=FAST))
    with served(vault, tmp_path, {"pay": database("pay"), "one": kv("one")}) as made:
        assert wait_until(lambda: made.readyz()[0] == 200)
        yield made


Tell = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def tell(asked: Asked, capsys: pytest.CaptureFixture[str]) -> Tell:
    """The status of a command that waits, and what it prints as JSON."""

    def told(action: str, upstream: str = "pay") -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        place = f"unix://{asked.folder}/a.sock"
        status = main([action, upstream, "--wait", "--json", "--admin", place])
        answer = json.loads(capsys.readouterr().out)
        assert len(answer["outcomes"]) == 1
        return status, answer["outcomes"][0]

    return told


@pytest.mark.parametrize(
    ("action", "then"), [("rotate", "lease.rotated"), ("revoke", "lease.revoked")]
)
def test_who_asked_and_why_is_in_the_audit_log(
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    action: str,
    then: str,
) -> None:
    """Before what comes of it; and a line of the log."""
    caplog.set_level(logging.INFO, "vaultauthz")
    place = f"unix://{asked.folder}/a.sock"
    assert main([action, "pay", "--wait", "--reason", "INC-7: in a chat", "--admin", place]) == 0

    def lines() -> list[dict[str, Any]]:
        text = (asked.folder / "audit.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    assert wait_until(lambda: any(line["event"] == then for line in lines()))
    names = [line["event"] for line in lines()]
    asked_at = names.index(f"operator.{action}")
    assert asked_at < names.index(then)
    line = lines()[asked_at]
    assert (line["stage"], line["upstream"]) == ("production", "pay")
    assert line["caller"].startswith(f"uid {os.getuid()}")
    assert line["reason"] == "INC-7: in a chat"
    said = f"upstream pay, stage production: {line['caller']} asked for {action}: INC-7: in a chat"
    assert said in [record.getMessage() for record in caplog.records]
    # What is not there, nobody has asked for.
    assert main([action, "nowhere", "--admin", place]) == 1
    assert [one["event"] for one in lines()].count(f"operator.{action}") == 1


def test_a_rotation_is_told_when_it_is_done(asked: Asked, vault: FakeVault, tell: Tell) -> None:
    """Another credential is in use then."""
    before = asked.row().credential_id
    status, told = tell("rotate")
    assert (status, told["stage"], told["done"]) == (0, "production", True)
    assert asked.row().credential_id != before
    assert tell("rotate", "one")[0] == 0


def test_a_revocation_is_told_when_vault_has_done_it(
    asked: Asked, vault: FakeVault, tell: Tell
) -> None:
    """The lease is gone there, and there is another."""
    before = asked.row().lease_id
    status, told = tell("revoke")
    assert (status, told["done"]) == (0, True)
    revoked = [call.body for call in vault.calls(REVOKE)]
    assert any(before in str(body) for body in revoked)
    assert asked.row().lease_id != before


def test_a_rotation_that_cannot_be_done(
    asked: Asked, vault: FakeVault, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 1, why, and what will happen; and it does when Vault is back."""
    monkeypatch.setattr(command, "PATIENCE", 0.5)
    before = asked.row().credential_id
    vault.deny("database/creds/pay")
    status, told = tell("rotate")
    assert (status, told["done"]) == (1, False)
    assert told["said"].startswith("not replaced yet: ")
    assert told["said"].endswith("the present one is used on")
    assert asked.row().credential_id == before
    vault.allow("database/creds/pay")
    assert wait_until(lambda: asked.row().credential_id != before)


def test_a_revocation_that_cannot_be_done(
    asked: Asked,
    vault: FakeVault,
    tell: Tell,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Status 1; an audit line, the metrics and the log name it; and it is done when Vault is back."""
    monkeypatch.setattr(command, "PATIENCE", 0.5)
    lease = asked.row().lease_id
    vault.fault(faults.status(500, "database plugin is gone"), REVOKE)
    with caplog.at_level(logging.WARNING):
        status, told = tell("revoke")
    assert (status, told["done"]) == (1, False)
    assert told["said"].startswith("not revoked at Vault yet: ")
    assert any(f"{lease} could not be revoked" in line for line in caplog.messages)
    counted = "vaultauthz_lease_events_total"
    assert (
        asked.gauge(f'{counted}{{event="lease.not_revoked",stage="production",upstream="pay"}}')
        >= 1
    )
    assert wait_until(lambda: lease in lines(asked, "lease.not_revoked"))
    vault.heal()
    assert wait_until(lambda: lease in lines(asked, "lease.revoked"))
    assert wait_until(lambda: asked.row().revoking == 0)


def lines(asked: Asked, event: str) -> set[str]:
    """The leases that the audit log has this event of."""
    found = set()
    for line in (asked.folder / "audit.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):  # one that is being written
            told = json.loads(line)
            if told["event"] == event:
                found.add(told["lease_id"])
    return found
