"""Whose a lease is under `per: caller`: from the lease to the JSON, the page and the table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.admin.conftest import serving
from tests.contract.fake_vault import FakeVault
from tests.contract.running import LATER, Running, database, settings
from vaultauthz.admin.command import table
from vaultauthz.admin.view import KeptView
from vaultauthz.cli import main
from vaultauthz.config.values import Listen
from vaultauthz.observe.metrics import Metrics

ID = "60303ae22b998861"
ROOT = "spiffe://cluster.local/ns/prod/sa/a-service-with-a-very-long-name-of-its-own-"


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role and a database."""
    with FakeVault() as fake:
        fake.set_approle()
        fake.set_creds("database/creds/pay")
        yield fake


def test_leases_are_told_apart(
    vault: FakeVault, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row says whose it is; it has ids, and no secret."""
    with Running(settings(vault, pay=database("pay", per="caller")), LATER) as running:
        running.wait_ready()
        users = {running.sent(principal=name, consumer="c") for name in ("alice", "bob")}
        assert len(users) == 2
        view = KeptView(
            running.engine.keeper,
            Metrics([], "0").text,
            lambda: running.engine.ready,
            lambda: True,
            dict,
            ask=running.engine.ask,
        )
        with serving(Listen(admin=f"unix://{tmp_path}/a.sock"), view) as admin:
            assert main(["leases", "--admin", admin.address]) == 0
            shown = capsys.readouterr().out
            assert main(["leases", "--admin", admin.address, "--json"]) == 0
            told = capsys.readouterr().out
    rows = [row for row in json.loads(told) if row["upstream"]]
    assert [(row["caller"], row["shared"]) for row in rows] == [("alice", False), ("bob", False)]
    assert len({row["lease_id"] for row in rows}) == 2
    assert re.findall(r"^pay for (\w+)  ", shown, re.MULTILINE) == ["alice", "bob"]
    assert not [user for user in users if user in shown + told]


def row(caller: str, **more: Any) -> dict[str, Any]:
    """A row as the server tells it."""
    return {
        "upstream": "payments", "stage": "production", "state": "replacing", "lease_id": "x",
        "credential_id": ID, "seconds_left": 90061.0, "renew_in": 3599.0, "failures": 0,
        "last_error": "", "caller": caller, "shared": False, **more,
    }  # fmt: skip


def test_callers_in_the_table() -> None:
    """Beside the upstream, where that fits."""
    rows = [row("alice"), row("bob"), row(""), row("", shared=True, upstream="geo", optional=True)]
    starts = [line.partition("  ")[0] for line in table(rows, 80)[1:]]
    assert starts == ["payments for alice", "payments for bob", "payments for a request", "geo *"]


@pytest.mark.parametrize("ends", [("a", "b"), ("x" * 80 + "a", "x" * 80 + "b")])
def test_long_callers_are_told_apart(ends: tuple[str, str]) -> None:
    """On 80 columns nothing is wider, and no caller is cut, so that no two look the same."""
    rows = [row(ROOT + end) for end in ends]
    lines = table([*rows, row("", shared=True, upstream="geo")], 80)
    assert max(map(len, lines)) <= 80
    told: list[str] = []
    for line in lines[1:]:
        if line.startswith(" "):
            told[-1] += line.strip()
        else:
            told.append(line.split()[0] + " ")
    assert told == [*(f"payments for {ROOT}{end}" for end in ends), "geo "]
    assert [line.split()[0] for line in table(rows, None)[1:]] == ["payments", "payments"]
    assert ROOT + ends[1] in table(rows, None)[2]
