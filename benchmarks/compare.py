"""What vaultauthz costs a gateway, against Envoy alone and against the least that asking anybody costs.

    make bench                                        # all of it, and the other benchmarks
    python benchmarks/compare.py                      # this: gateway, server and a million checks
    python benchmarks/compare.py --only gateway --variants plain,ext_authz
    python benchmarks/compare.py --rounds 1 --seconds 1 --warm-up 1 --checks 2000 --million 0

Real Envoy, OpenBao, nginx and `vaultauthz serve`, on loopback and unix sockets in a temporary folder. Every
ratio is taken within a round, of variants that ran next to each other; the median of the rounds is printed and
written to benchmarks/results/latest.json with the raw numbers. docs/benchmarks.md says how to read it.
Exit status: 0 measured, whether or not goals are met; 1 an answer was wrong; 2 something that it needs is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from compared import gateway, results, server, servers, table
from compared.about import about
from compared.loads import LoadError
from compared.tools import MissingError, ensure
from compared.usage import Cores, on

from vaultauthz.demo.parts import PartError

PARTS = ("gateway", "server", "million")


def main(argv: list[str] | None = None) -> int:
    """Measure, write and print; the exit status."""
    options = _options(argv)
    try:
        ensure(("wrk", "nginx", "h2load"))
        # Before, as the load average shall be that of the others.
        told = about(_command(argv), options.pin)
        found = _measure(options)
    except MissingError as exc:
        print(exc, file=sys.stderr)
        return 2
    except (LoadError, PartError) as exc:
        print(f"the measurement failed: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    whole = results.write(found, told, options.out)
    _print(whole, list(found), options)
    return 0


def _command(argv: list[str] | None) -> str:
    return shlex.join(
        ["python", "benchmarks/compare.py", *(sys.argv[1:] if argv is None else argv)]
    )


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", choices=PARTS, action="append", help="default all; may be repeated")
    add("--rounds", type=int, default=5)
    add("--seconds", type=int, default=3, help="of each variant in each round (whole system)")
    add("--warm-up", type=int, default=1, help="seconds before each of them")
    add("--variants", default=",".join(gateway.VARIANTS), help="of the whole system, by commas")
    add("--checks", type=int, default=40_000, help="of each server in each round")
    add("--million", type=int, default=1_000_000, help="checks to watch the memory over; 0: none")
    add("--pin", choices=("none", "shared", "apart"), default="none", help="see docs/benchmarks.md")
    add("--out", type=Path, default=results.LATEST, help="the JSON file")
    options = parser.parse_args(argv)
    options.variants = options.variants.split(",")
    unknown = [name for name in options.variants if name not in gateway.VARIANTS]
    if unknown or options.rounds < 1 or options.seconds < 1 or options.warm_up < 1:
        parser.error(f"no such variant: {', '.join(unknown)}" if unknown else "at least 1, please")
    options.only = options.only or list(PARTS)
    if not options.million and "million" in options.only:
        options.only.remove("million")
    return options


def _measure(options: argparse.Namespace) -> results.Found:
    cores = Cores.placed(options.pin)
    found: results.Found = {"spread": {}}
    with _folder() as folder, contextlib.ExitStack() as parts:
        with on(cores.asked):
            ours = parts.enter_context(servers.ours(folder))
        if "gateway" in options.only:
            plan = gateway.Plan(options.rounds, options.seconds, options.warm_up, cores)
            rounds = gateway.measure(folder, ours, plan, options.variants, _tell)
            _add(found, results.of_gateway(rounds))
        bench = server.Bench(folder, ours, cores)
        if "server" in options.only:
            with bench.up():
                _add(
                    found,
                    results.of_server(server.measure(bench, options.rounds, options.checks, _tell)),
                )
        if "million" in options.only:
            _add(found, results.of_million(bench.million(options.million, _tell)))
    return found


def _add(found: results.Found, more: results.Found) -> None:
    found["spread"] |= more.pop("spread")
    found |= more


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Short: a unix socket's path has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder)


def _tell(what: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _print(found: results.Found, measured: list[str], options: argparse.Namespace) -> None:
    rounds = f"{options.rounds} round{'s' if options.rounds > 1 else ''}, medians"
    blocks: list[tuple[str, Iterable[str]]] = []
    if "gateway" in options.only:
        says = {name: variant.says for name, variant in gateway.VARIANTS.items()}
        title = f"Through one Envoy worker, 16 connections, {options.seconds} s each, {rounds}"
        blocks.append((title, table.gateway(found, says)))
    if "server" in options.only:
        title = f"The server alone: CPU with 16 streams, times with 200; {rounds}"
        blocks.append((title, table.server(found, server.NAMES)))
    blocks.append(("Goals", table.goals(found, measured)))
    for title, lines in blocks:
        print(f"\n{title}", *lines, sep="\n")
    shown = os.path.relpath(options.out)
    print(f"\nAll figures: {shown}")


if __name__ == "__main__":
    sys.exit(main())
