"""The fleet's simulation: its promises hold in small, and one seed makes one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GATEWAYS, UPSTREAMS, CAP = 50, 20, 50

Simulate = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Simulate:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fleet

    def run(*arguments: str) -> dict[str, dict[str, Any]]:
        assert fleet.main(["--quick", "--json", *arguments]) == 0
        found: dict[str, dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_json_holds_each_scenario_by_name(simulate: Simulate) -> None:
    """One object: scenario → the six numbers, and nothing is lost where Vault was there."""
    found = simulate()
    assert set(found) >= {"steady", "restart", "outage-1h", "outage-5m", "tokens", "slow"}
    for outcome in found.values():
        assert list(outcome) == [
            "calls_per_s_mean",
            "calls_per_s_max",
            "calls_per_s_least",
            "leases_lost",
            "minted",
            "recovered_s",
        ]
        assert outcome["leases_lost"] == 0
        assert outcome["recovered_s"] is not None
        assert outcome["calls_per_s_max"] <= CAP


def test_steady_fleet_calls_as_little_as_it_can(simulate: Simulate) -> None:
    """Mean calls are within 5 % of the least, and no credential is minted."""
    steady = simulate("--scenario", "steady", "--hours", "4")["steady"]
    assert steady["calls_per_s_mean"] == pytest.approx(steady["calls_per_s_least"], rel=0.05)
    assert steady["minted"] == steady["leases_lost"] == 0


def test_restart_fetches_each_credential_once(simulate: Simulate) -> None:
    """As many are minted as there are leases."""
    restart = simulate("--scenario", "restart", "--hours", "0.2")["restart"]
    assert restart["minted"] == GATEWAYS * UPSTREAMS


def test_outage_shorter_than_the_lease_mints_nothing(simulate: Simulate) -> None:
    """Renewals wait for Vault; it is not asked for new credentials instead."""
    outage = simulate("--scenario", "outage-1h", "--hours", "1")
    assert outage["outage-1h"]["minted"] == outage["outage-1h"]["leases_lost"] == 0


def test_one_seed_makes_one_run(simulate: Simulate) -> None:
    """The same arguments print the same numbers; another seed prints others."""
    arguments = ("--scenario", "outage-1h", "--hours", "0.6", "--seed")
    first = simulate(*arguments, "7")
    assert simulate(*arguments, "7") == first
    assert simulate(*arguments, "8") != first


def test_restart_is_bounded_by_calls_per_second(simulate: Simulate) -> None:
    """With it the fleet stays under its cap; without it, it may go far beyond."""
    arguments = ("--scenario", "restart", "--hours", "0.2")
    assert simulate(*arguments)["restart"]["calls_per_s_max"] <= CAP
    assert simulate(*arguments, "--no-pace")["restart"]["calls_per_s_max"] > 2 * CAP


def test_replaced_token_takes_its_leases_along(simulate: Simulate) -> None:
    """Each lease is fetched once with the new token, and none is revoked by itself."""
    tokens = simulate("--scenario", "tokens", "--hours", "0.5")["tokens"]
    assert tokens["minted"] == GATEWAYS * UPSTREAMS
    assert tokens["calls_per_s_mean"] * 1800 < 2 * GATEWAYS * UPSTREAMS
