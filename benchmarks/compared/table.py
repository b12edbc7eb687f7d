"""The findings as text of at most 80 columns; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from compared.results import GOALS

WIDTH = 80
_GATEWAY = f"{'':34}{'req/s':>8}{'of plain':>9}{'p50':>6}{'p99':>7}{'CPU a request':>16}"
_GATEWAY_UNITS = f"{'':51}{'ms':>6}{'ms':>7}{'µs Envoy':>9}{'asked':>7}"
_SERVER = f"{'':34}{'CPU a check':>12}{'checks/s':>10}{'p50':>12}{'p99':>10}"
_SERVER_UNITS = f"{'':34}{'µs':>12}{'':>10}{'µs':>12}{'µs':>10}"


def gateway(found: Mapping[str, Any], says: Mapping[str, str]) -> Iterator[str]:
    """The whole system: one line for each variant."""
    medians = found["gateway"]["medians"]
    plain = medians.get("plain", {}).get("rps")
    yield _GATEWAY
    yield _GATEWAY_UNITS
    for name, row in medians.items():
        share = f"{row['rps'] / plain:.2f}" if plain else ""
        asked = f"{row['cpu_asked_us']:.0f}" if "cpu_asked_us" in row else "-"
        yield (
            f"{name + ': ' + says[name]:34}{row['rps']:8,.0f}{share:>9}{row['p50_us'] / 1e3:6.2f}"
            f"{row['p99_us'] / 1e3:7.2f}{row['cpu_gateway_us']:9.0f}{asked:>7}"
        )


def server(found: Mapping[str, Any], says: Mapping[str, str]) -> Iterator[str]:
    """The server alone: one line for each server."""
    yield _SERVER
    yield _SERVER_UNITS
    for name, row in found["server"]["medians"].items():
        yield (
            f"{says[name]:34}{row['cpu_us']:12.1f}{row['rps']:10,.0f}"
            f"{row['p50_us']:12,.0f}{row['p99_us']:10,.0f}"
        )


def goals(found: Mapping[str, Any], measured: Collection[str]) -> Iterator[str]:
    """Each goal among ``measured``, how far its rounds lie apart, and whether it is met."""
    for key, met in found["goals"].items():
        if key not in measured:
            continue
        at_least, bound = GOALS[key]
        spread = found["spread"].get(key)
        rounds = f"rounds {spread[0]:.2f} to {spread[1]:.2f}" if spread else ""
        wanted = f"{'at least' if at_least else 'at most'} {bound:g}"
        yield f"{key:30}{found[key]:7.2f}  {wanted:14}{'met' if met else 'MISSED':8}{rounds}"
