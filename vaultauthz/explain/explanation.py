"""One request through the broker itself, with a stand-in for each credential.

Nobody is asked and nothing is recorded: what is said here is what the configuration
alone decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from vaultauthz.broker import Binding, BindingTable, Broker
from vaultauthz.config.values import Config, Upstream
from vaultauthz.core.callers import INEXACT, Callers, Rule
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.decision import ANSWERS, Denied, Reason
from vaultauthz.core.injection import Mutation, header_names
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Route, Routes, path_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of the request. Texts are for people; values of secrets are in none."""

    allowed: bool
    reason: str  # "" when allowed
    status: int  # what the client would get from us; 0 when the request goes on
    upstream: str
    stage: str
    found_by: str  # how the upstream was found
    rules: tuple[JudgedRule, ...]
    any_caller: bool
    secret: str
    sets: tuple[str, ...]
    drops: tuple[str, ...]
    nobody: bool = False  # it is anonymous, and each caller has a lease of its own


def explain(config: Config, request: Request) -> Explanation:
    """What the configuration makes of ``request``."""
    decision = _broker(config).check(request)
    upstream = config.upstreams.get(decision.upstream)
    nobody = bool(upstream and upstream.per == "caller" and not request.identity)
    if nobody and decision.allowed:  # nobody's lease is nobody's to use
        decision = Denied(Reason.CALLER_DENIED, decision.upstream, decision.stage)
    known = upstream is not None and decision.stage in upstream.stages
    reason = decision.reason.value if isinstance(decision, Denied) else ""
    return Explanation(
        allowed=decision.allowed,
        reason=reason,
        status=0 if decision.allowed else ANSWERS[Reason(reason)].http,
        upstream=decision.upstream,
        stage=decision.stage,
        found_by=_found_by(config, request),
        rules=judge(upstream.callers, request) if upstream and known else (),
        any_caller=bool(upstream and upstream.callers.allow is None),
        secret=_secret(upstream, decision.stage) if upstream and known else "",
        sets=tuple(one.shown for one in upstream.inject) if upstream and decision.allowed else (),
        drops=_drops(upstream) if upstream and decision.allowed else (),
        nobody=nobody,
    )


def _broker(config: Config) -> Broker:
    bindings = [
        Binding(upstream.name, stage, upstream.callers, _slot(upstream))
        for upstream in config.upstreams.values()
        for stage in upstream.stages
    ]
    passes = config.unmatched == "pass"
    table = BindingTable(bindings, Routes.of(config.routes), pass_unmatched=passes)
    return Broker(table, lambda _request, _decision: True, lambda: 0.0)


def _slot(upstream: Upstream) -> Slot:
    slot = Slot()
    query = tuple((name, "") for one in upstream.inject for name in one.parameter_names)
    slot.credential = Credential(Mutation(query=query), "", "", inf)
    return slot


def _found_by(config: Config, request: Request) -> str:
    if request.upstream:
        where = f"{request.upstream!r}" + (f" in {request.stage!r}" if request.stage else "")
        return f"the gateway's route names {where}"
    route = Routes.of(config.routes).find(request.host, path_of(request.path))
    if route is None:
        return "no route fits" if config.routes else "there are no routes, and no --upstream"
    return _route(config, route)


def _route(config: Config, route: Route) -> str:
    number = config.routes.index(route)
    host = f"host {route.host}, " if route.host else "any host, "
    return f"routes[{number}]: {host}path {route.path_prefix} or below"


def _secret(upstream: Upstream, stage: str) -> str:
    source = upstream.secrets[stage]
    shared = {"instance": "shared by all callers"}.get(upstream.per, f"one for each {upstream.per}")
    return f"{source.path}, {shared}"


def _drops(upstream: Upstream) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*header_names(upstream.inject), *upstream.strip)))


@dataclass(frozen=True, slots=True)
class JudgedKey:
    """One key of a rule: what it asks for, what the request has, whether that fits."""

    name: str
    wanted: str
    found: str  # "" for nothing
    fits: bool


@dataclass(frozen=True, slots=True)
class JudgedRule:
    """A rule by its place in the configuration (``callers[0]``), judged."""

    place: str
    keys: tuple[JudgedKey, ...]

    @property
    def fits(self) -> bool:
        """Whether the rule as a whole does."""
        return all(key.fits for key in self.keys)


def judge(callers: Callers, request: Request) -> tuple[JudgedRule, ...]:
    """Every rule, ``deny`` first as it wins; () for ``callers: any`` without ``deny``."""
    deny = [
        JudgedRule(f"deny[{number}]", tuple(_keys(rule, request, widely=True)))
        for number, rule in enumerate(callers.deny)
    ]
    allow = [
        JudgedRule(f"callers[{number}]", tuple(_keys(rule, request, widely=False)))
        for number, rule in enumerate(callers.allow or ())
    ]
    return (*deny, *allow)


def _keys(rule: Rule, request: Request, *, widely: bool) -> Iterator[JudgedKey]:
    for name, pattern, found in (
        ("principal", rule.principal, request.principal),
        ("consumer", rule.consumer, request.consumer),
    ):
        if pattern is not None:
            wide = widely and name == "principal"
            fits = pattern.matches_widely(found) if wide else pattern.matches(found)
            yield JudgedKey(name, pattern.text, found, fits)
    if rule.group is not None:
        yield JudgedKey(
            "group", rule.group, ", ".join(request.groups), rule.group in request.groups
        )
    if rule.methods is not None:
        wanted = " or ".join(sorted(rule.methods))
        yield JudgedKey("method", wanted, request.method, request.method in rule.methods)
    if rule.path_prefix is not None:
        path = path_of(request.path)
        fits = rule.path_fits(path, widely=widely)
        yield JudgedKey("path", f"{rule.path_prefix} or below", path, fits)
    yield from _claims(rule, request, widely=widely)


def _claims(rule: Rule, request: Request, *, widely: bool) -> Iterator[JudgedKey]:
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
        yield JudgedKey(f"claim {'.'.join(claim.path)}", _shown(claim.wanted), shown, met)


def _shown(value: Any) -> str:
    """Text as it is; whole numbers without the fraction that doubles have."""
    if isinstance(value, float) and value.is_integer() and abs(value) < INEXACT:
        return str(int(value))
    return str(value)
