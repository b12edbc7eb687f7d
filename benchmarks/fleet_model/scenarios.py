"""What happens to the fleet, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from fleet_model.gateway import Gateway, Runner
from fleet_model.tally import Tally
from fleet_model.timeline import Timeline
from fleet_model.vault import NEVER, Away, Nature, Vault
from vaultauthz.core.pace import Pace

_HOUR: Final = 3600.0
_TENTH: Final = 0.1
_LATENCY: Final = 0.008  # seconds for one call, the median, when Vault has nothing else to do
_TOKEN_LEFT: Final = 600.0  # seconds, in `tokens`: what every token's last renewal gave


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens. Times are in seconds from the start of the measurement."""

    tells: str
    lease_ttl: float = _HOUR
    longest: float = inf  # hours to simulate at most
    away: Away = NEVER
    cold: bool = False  # every gateway starts at time 0 and holds nothing
    tokens_end: bool = False  # every token was renewed for the last time at time 0
    health: float = 1.0  # the share of its capacity that Vault has, and of its speed


_AWAY: Final = Away(900.0, 1500.0)

SCENARIOS: Final = {
    "steady": Scenario("nothing happens"),
    "restart": Scenario("every gateway starts in the same instant", cold=True),
    "outage-1h": Scenario("Vault is away for 10 minutes, leases of 1 hour", away=_AWAY),
    "outage-5m": Scenario(
        "Vault is away for 10 minutes, leases of 5 minutes", 300.0, longest=0.75, away=_AWAY
    ),
    "tokens": Scenario("every token nears its max TTL at once", tokens_end=True),
    "slow": Scenario("Vault has a tenth of its capacity", health=_TENTH),
    "slow-restart": Scenario(
        "… and every gateway starts in the same instant", longest=0.5, cold=True, health=_TENTH
    ),
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """How large it all is. ``capacity``: the calls a second that Vault can take."""

    gateways: int
    upstreams: int
    hours: float
    seed: int
    capacity: float
    rate: float  # `calls_per_second` of each gateway; infinity where it is not configured


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario; rates in calls a second, times in seconds."""

    calls_per_s_mean: float
    calls_per_s_max: int
    calls_per_s_least: float
    leases_lost: int
    minted: int
    recovered_s: float | None  # None: not within the time simulated
    ended: int  # leases, lost or with no Vault to renew them
    without_s: float  # without a credential after the first, mean of all leases
    hours: float


def least(fleet: Fleet, scenario: Scenario, pace: Pace = Pace()) -> float:
    """The fewest calls a second on average that keep every lease and token alive.

    A policy that renews at a time uniform in 60 to 75 % of the lease makes a call
    every 67.5 % of it, on average, so leases / (0.675 TTL), and the same for tokens.
    """
    middle = (pace.renew_from + pace.renew_to) / 2
    tokens = fleet.gateways / (middle * _HOUR)
    return fleet.gateways * fleet.upstreams / (middle * scenario.lease_ttl) + tokens


def run(scenario: Scenario, fleet: Fleet) -> Outcome:
    """Simulate it. The same arguments give the same outcome."""
    hours = min(fleet.hours, scenario.longest)
    timeline = Timeline(fleet.seed)
    nature = Nature(
        fleet.capacity * scenario.health,
        _LATENCY / scenario.health,
        lease_ttl=scenario.lease_ttl,
        away=scenario.away,
    )
    vault, tally = Vault(timeline, nature), Tally(int(hours * _HOUR), scenario.away)
    gateways = [
        Gateway(timeline, vault, tally, fleet.rate, fleet.upstreams) for _ in range(fleet.gateways)
    ]
    _begin(scenario, timeline, vault, tally, gateways)
    timeline.run(hours * _HOUR)
    leases = fleet.gateways * fleet.upstreams
    return _outcome(hours, least(fleet, scenario), vault, tally, leases)


def _begin(
    scenario: Scenario, timeline: Timeline, vault: Vault, tally: Tally, gateways: list[Gateway]
) -> None:
    """Put the fleet where the scenario finds it, and say what recovery will be."""
    everyone = [runner for gateway in gateways for runner in gateway.leases]
    if scenario.cold:
        tally.watch(dict.fromkeys(everyone), 0.0)
        for gateway in gateways:
            gateway.start()
        return
    for gateway in gateways:
        gateway.take_over(ends_in=_TOKEN_LEFT if scenario.tokens_end else None)
    vault.minted = 0  # what it had issued before does not count
    if scenario.tokens_end:
        # Recovered when the last lease has left its old token; counted from the first login.
        tally.watch({r: r.gateway.token.login for r in everyone}, None)
    elif scenario.away.end < inf:
        timeline.at(scenario.away.end, lambda _, __: _vault_is_back(timeline, tally, everyone))
    else:
        tally.watch({}, 0.0)  # nothing to recover from


def _vault_is_back(timeline: Timeline, tally: Tally, everyone: list[Runner]) -> None:
    tally.watch({runner: None for runner in everyone if runner.ailing}, timeline.now)


def _outcome(hours: float, fewest: float, vault: Vault, tally: Tally, leases: int) -> Outcome:
    began_at, recovered_at = tally.began_at, tally.recovered_at
    recovered = (
        recovered_at - began_at if recovered_at is not None and began_at is not None else None
    )
    return Outcome(
        calls_per_s_mean=round(sum(tally.calls) / (hours * _HOUR), 2),
        calls_per_s_max=max(tally.calls),
        calls_per_s_least=round(fewest, 2),
        leases_lost=tally.lost,
        minted=vault.minted,
        recovered_s=None if recovered is None else round(recovered, 1),
        ended=tally.ended,
        without_s=round(tally.without / leases, 1),
        hours=hours,
    )
