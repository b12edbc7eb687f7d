"""Why a rule of ``callers`` or ``deny`` fits a request, key by key.

Pure, and held to ``Rule.matches`` by a property: a rule fits when all its keys do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vaultauthz.core.callers import INEXACT, Callers, Rule
from vaultauthz.core.request import Request
from vaultauthz.core.routing import path_of


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a rule: what it asks for, what the request has, whether that fits."""

    name: str
    wanted: str
    found: str  # "" for nothing
    fits: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule by its place in the configuration (``callers[0]``), judged."""

    place: str
    keys: tuple[Key, ...]

    @property
    def fits(self) -> bool:
        """Whether the rule as a whole does."""
        return all(key.fits for key in self.keys)


def judge(callers: Callers, request: Request) -> tuple[Judged, ...]:
    """Every rule, ``deny`` first as it wins; () for ``callers: any`` without ``deny``."""
    deny = [
        Judged(f"deny[{number}]", tuple(_keys(rule, request, widely=True)))
        for number, rule in enumerate(callers.deny)
    ]
    allow = [
        Judged(f"callers[{number}]", tuple(_keys(rule, request, widely=False)))
        for number, rule in enumerate(callers.allow or ())
    ]
    return (*deny, *allow)


def _keys(rule: Rule, request: Request, *, widely: bool) -> Iterator[Key]:
    for name, pattern, found in (
        ("principal", rule.principal, request.principal),
        ("consumer", rule.consumer, request.consumer),
    ):
        if pattern is not None:
            wide = widely and name == "principal"
            fits = pattern.matches_widely(found) if wide else pattern.matches(found)
            yield Key(name, pattern.text, found, fits)
    if rule.group is not None:
        yield Key("group", rule.group, ", ".join(request.groups), rule.group in request.groups)
    if rule.methods is not None:
        wanted = " or ".join(sorted(rule.methods))
        yield Key("method", wanted, request.method, request.method in rule.methods)
    if rule.path_prefix is not None:
        path = path_of(request.path)
        fits = rule.path_fits(path, widely=widely)
        yield Key("path", f"{rule.path_prefix} or below", path, fits)
    yield from _claims(rule, request, widely=widely)


def _claims(rule: Rule, request: Request, *, widely: bool) -> Iterator[Key]:
    """Each claim against the token that has the most of them: one token must have all."""
    if not rule.claims:
        return
    best = max(
        request.claims,
        key=lambda token: sum(claim.met_by(token, widely=widely) for claim in rule.claims),
        default={},
    )
    for claim in rule.claims:
        found = claim.shown_in(best, widely=widely)
        shown = "" if found is None else _shown(found)
        met = claim.met_by(best, widely=widely)
        yield Key(f"claim {'.'.join(claim.path)}", _shown(claim.wanted), shown, met)


def _shown(value: Any) -> str:
    """Text as it is; whole numbers without the fraction that doubles have."""
    if isinstance(value, float) and value.is_integer() and abs(value) < INEXACT:
        return str(int(value))
    return str(value)
