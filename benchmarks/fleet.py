"""What a fleet of gateways asks of one Vault, on good days and bad ones.

    python benchmarks/fleet.py                         # 1,000 gateways of 100 upstreams
    python benchmarks/fleet.py --scenario restart --json
    python benchmarks/fleet.py --quick                 # 50 of 20, a second or two

The product's own lease machines run against a model of Vault, without threads and
faster than the clock; see fleet_model/. The same arguments and --seed give the same
numbers. The columns:

    mean, most  calls a second to Vault, failed ones too; most: in the highest second
    least       leases / (0.675 TTL), and the same for login tokens: what a policy must
                make on average that renews at a time uniform in 60 to 75 % of the lease
    lost        leases that ended in use although Vault could be reached in the last
                quarter of their life, which is after the renewal window
    ended       those, and the leases that ended because Vault was away for longer
    minted      credentials that Vault issued after the start
    recovered   seconds from the start of the fleet, or Vault's return, or the first new
                login until every lease is held, renewed where it was due, and on its
                new login; 0 where there was nothing to recover from
    without     seconds for which a lease had ended and was not yet replaced, on average
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from math import inf

from fleet_model.scenarios import SCENARIOS, Fleet, Outcome, run

_IN_JSON = (
    "calls_per_s_mean",
    "calls_per_s_max",
    "calls_per_s_least",
    "leases_lost",
    "minted",
    "recovered_s",
)

_SHARE = 0.9  # of the cap is given out; the gateways' calls do not fall evenly on the seconds


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--gateways", type=int, help="default 1000")
    add("--upstreams", type=int, help="of each gateway; default 100")
    add(
        "--hours",
        type=float,
        default=2.0,
        help="to simulate; outage-5m: 0.75 at most, slow-restart: 0.5",
    )
    add("--seed", type=int, default=1)
    add("--scenario", choices=SCENARIOS, action="append", help="default all; may be repeated")
    add(
        "--cap",
        type=float,
        help="calls a second of the fleet, for calls_per_second: 0.9 cap / gateways; default one each",
    )
    add("--capacity", type=float, help="calls a second that Vault can take; default twice the cap")
    add("--no-pace", action="store_true", help="without calls_per_second")
    add("--quick", action="store_true", help="50 gateways of 20 upstreams")
    add("--jobs", type=int, default=1, help="scenarios at once")
    add("--json", action="store_true")
    return parser.parse_args(argv)


def _fleet(args: argparse.Namespace) -> tuple[Fleet, float]:
    """The fleet that was asked for, and its cap."""
    gateways = args.gateways or (50 if args.quick else 1000)
    upstreams = args.upstreams or (20 if args.quick else 100)
    cap = args.cap or float(gateways)
    rate = inf if args.no_pace else cap * _SHARE / gateways
    return Fleet(gateways, upstreams, args.hours, args.seed, args.capacity or 2 * cap, rate), cap


def simulate(name: str, fleet: Fleet) -> tuple[str, Outcome, float]:
    """Run one scenario; the last value is the seconds that it took."""
    gc.disable()  # machines by the hundred thousand, none of them garbage before the end
    began = time.perf_counter()
    outcome = run(SCENARIOS[name], fleet)
    gc.enable()
    gc.collect()
    return name, outcome, time.perf_counter() - began


_HEAD = (
    f"{'scenario':13}{'hours':>6}{'mean':>8}{'least':>8}{'most':>7}{'lost':>8}{'ended':>8}"
    f"{'minted':>8}{'recovered':>11}{'without':>9}   wall"
)


def _line(name: str, outcome: Outcome, took: float) -> str:
    back = "never" if outcome.recovered_s is None else f"{outcome.recovered_s:.0f} s"
    return (
        f"{name:13}{outcome.hours:6.2f}{outcome.calls_per_s_mean:8.1f}"
        f"{outcome.calls_per_s_least:8.1f}{outcome.calls_per_s_max:7}{outcome.leases_lost:8}"
        f"{outcome.ended:8}{outcome.minted:8}{back:>11}{outcome.without_s:7.0f} s{took:5.0f} s"
    )


def main(argv: list[str] | None = None) -> int:
    """Simulate and print; returns the exit status."""
    args = _arguments(argv)
    fleet, cap = _fleet(args)
    names = args.scenario or list(SCENARIOS)
    if not args.json:
        print(
            f"{fleet.gateways} gateways of {fleet.upstreams} upstreams, "
            f"{'no calls_per_second' if args.no_pace else f'calls_per_second: {fleet.rate:g}'}, "
            f"cap {cap:g} calls/s, Vault takes {fleet.capacity:g} calls/s, seed {fleet.seed}\n"
        )
        print(_HEAD, flush=True)
    found = {}
    for name, outcome, took in _all(names, fleet, args.jobs):
        found[name] = {key: asdict(outcome)[key] for key in _IN_JSON}
        if not args.json:
            print(_line(name, outcome, took), flush=True)
    if args.json:
        print(json.dumps(found, indent=2))
    return 0


def _all(names: list[str], fleet: Fleet, jobs: int) -> Iterable[tuple[str, Outcome, float]]:
    if jobs == 1:
        return (simulate(name, fleet) for name in names)
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(simulate, names, [fleet] * len(names)))


if __name__ == "__main__":
    sys.exit(main())
