"""benchmarks/results/latest.json: ratios on top, raw numbers below; other parts add theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compared.figures import Ratio, Rounds, growth, median, ratio

LATEST = Path(__file__).parents[1] / "results" / "latest.json"

# Every key that a reader may count on; null until the part that measures it has run.
HEADLINES = (
    "ext_authz_vs_native",
    "ext_authz_vs_native_unix",
    "ext_authz_vs_plain",
    "sds_vs_plain",
    "sds_file_vs_plain",
    "sds_without_als_vs_plain",
    "cpu_vs_trivial_same_transport",
    "cpu_vs_trivial_grpcio",
    "p50_us",
    "p99_us",
    "p99_vs_p50",
    "memory_bytes_per_check",
    "kong_vs_stock",
)
# headline → (at least?, bound)
GOALS = {
    "ext_authz_vs_native": (True, 0.90),
    "sds_vs_plain": (True, 0.97),
    "cpu_vs_trivial_same_transport": (False, 2.0),
    "cpu_vs_trivial_grpcio": (False, 0.3),
    "p99_vs_p50": (False, 3.0),
    "memory_bytes_per_check": (False, 2.0),
}

Found = dict[str, Any]


def of_gateway(rounds: Rounds) -> Found:
    """What the whole-system rounds come to: headlines, spreads and medians."""
    pairs = {
        "ext_authz_vs_native": ("ext_authz", "native"),
        "ext_authz_vs_native_unix": ("ext_authz", "native_unix"),
        "ext_authz_vs_plain": ("ext_authz", "plain"),
        "sds_vs_plain": ("sds_als", "plain"),
        "sds_file_vs_plain": ("sds_file", "plain"),
        "sds_without_als_vs_plain": ("sds", "plain"),
    }
    ratios = {key: ratio(rounds, *pair, "rps") for key, pair in pairs.items()}
    return _found("gateway", ratios, rounds)


def of_server(rounds: Rounds) -> Found:
    """What the server-only rounds come to."""
    ratios = {
        "cpu_vs_trivial_same_transport": ratio(rounds, "ours", "native", "cpu_us"),
        "cpu_vs_trivial_grpcio": ratio(rounds, "ours", "grpcio", "cpu_us"),
    }
    found = _found("server", ratios, rounds)
    p50, p99 = (median(rounds, "ours", key) for key in ("p50_us", "p99_us"))
    within = sorted(r["p99_us"] / r["p50_us"] for r in rounds["ours"])
    tail = Ratio(within[len(within) // 2], within[0], within[-1])
    found["spread"]["p99_vs_p50"] = [tail.least, tail.most]
    return {**found, "p50_us": p50, "p99_us": p99, "p99_vs_p50": tail.median}


def of_million(samples: list[tuple[int, int]]) -> Found:
    """What the memory after each tenth of the checks comes to; the first tenth is warm-up."""
    return {"memory_bytes_per_check": growth(samples[1:]), "memory": samples, "spread": {}}


def _found(part: str, ratios: Mapping[str, Ratio | None], rounds: Rounds) -> Found:
    known = {key: value for key, value in ratios.items() if value}
    medians = {
        name: {key: median(rounds, name, key) for key in records[0]}
        for name, records in rounds.items()
    }
    return {
        **{key: value.median for key, value in known.items()},
        "spread": {key: [value.least, value.most] for key, value in known.items()},
        part: {"medians": medians, "rounds": rounds},
    }


def merged(before: Found, found: Found, about: Found) -> Found:
    """``found`` laid over what other parts found before; ``about`` is when, where and how it was measured.

    A part's headlines and raw numbers are replaced whole, and ``about`` is kept for each part that
    ``found`` has, so that figures of another day or machine do not pass for today's.
    """
    parts = [
        key for key, value in found.items() if key != "spread" and isinstance(value, dict | list)
    ]
    whole: Found = {**dict.fromkeys(HEADLINES), **before, **found}
    whole["spread"] = before.get("spread", {}) | found.get("spread", {})
    whole["measured"] = before.get("measured", {}) | dict.fromkeys(parts, about)
    whole["goals"] = verdicts(whole)
    return whole | {key: about[key] for key in ("command", "machine", "versions") if key in about}


def verdicts(found: Mapping[str, Any]) -> dict[str, bool]:
    """For each goal that was measured, whether it is met."""
    met = {}
    for key, (at_least, bound) in GOALS.items():
        value = found.get(key)
        if value is not None:
            met[key] = value >= bound if at_least else value <= bound
    return met


def read(path: Path = LATEST) -> Found:
    """What was written last; nothing when there is no such file, or it is broken."""
    try:
        found: Found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def write(found: Found, about: Found, path: Path = LATEST) -> Found:
    """Merge into the file; returns what stands in it now."""
    whole = merged(read(path), found, about)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(whole), indent=1) + "\n")
    return whole


def _rounded(value: Any) -> Any:
    """Four significant digits are more than a shared machine's noise leaves."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
