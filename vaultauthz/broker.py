"""THE STORY: a request comes in; may it have the upstream's credential, and is there one?

The request path. It reads a table and a slot, and calls nobody: no lock is held,
no socket opened, whatever Vault does at that moment. (The first request of a caller
with a lease of its own waits for Vault, in a ``Later``, and holds nobody up.)
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from vaultauthz.core.callers import Callers
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.events import CheckRecorder
from vaultauthz.core.injection import Mutation
from vaultauthz.core.readings import OVERRIDES, other_methods
from vaultauthz.core.request import Request
from vaultauthz.core.routing import PATHLESS, Routes, ambiguous, has_fragment, path_of, readings
from vaultauthz.core.signing.signatures import Signatures
from vaultauthz.leases.later import Later
from vaultauthz.leases.scopes import Scope

log = logging.getLogger(__name__)

_RETRY_AFTER_MAX = 60  # seconds; what a client is told at most


@dataclass(frozen=True, slots=True)
class Former:
    """Who may use the credential that a reload found in use, while it still is.

    A reload may name another secret and other callers at once: the new callers are
    not let to the old secret while the new one is on its way.
    """

    credential_id: str
    callers: tuple[Callers, ...]

    def permits(self, credential: Credential, request: Request) -> bool:
        """Whether the request may have ``credential`` by the rules that it came with."""
        if credential.credential_id != self.credential_id:
            return True
        return all(callers.permits(request) for callers in self.callers)


@dataclass(frozen=True, slots=True)
class Binding:
    """An upstream in a stage: who may use it, and where its credential comes from.

    A ``Slot`` for one that all callers share; a ``Scope`` for one of each caller's
    or each request's own.
    """

    upstream: str
    stage: str
    callers: Callers
    source: Slot | Scope
    former: Former | None = None  # after a reload, until the credential is the new one


class BindingTable:
    """What one configuration says about requests; replaced whole when it changes."""

    __slots__ = ("bindings", "pass_unmatched", "routes", "sole_stage")

    def __init__(
        self, bindings: Iterable[Binding], routes: Routes, *, pass_unmatched: bool = False
    ) -> None:
        self.bindings = {(b.upstream, b.stage): b for b in bindings}
        self.routes = routes
        self.pass_unmatched = pass_unmatched
        stages: dict[str, set[str]] = {}
        for upstream, stage in self.bindings:
            stages.setdefault(upstream, set()).add(stage)
        # A gateway may leave the stage out for an upstream that has only one.
        self.sole_stage = {name: next(iter(s)) for name, s in stages.items() if len(s) == 1}

    def named(self, upstream: str, stage: str) -> Binding | None:
        """The binding that the gateway's own route names."""
        return self.bindings.get((upstream, stage or self.sole_stage.get(upstream, "")))

    def routed(self, host: str, path: str) -> Binding | None:
        """The binding that our ``routes`` find."""
        route = self.routes.find(host, path)
        return self.bindings.get((route.upstream, route.stage)) if route else None


class Broker:
    """Answers checks from whatever table it has at the moment.

    ``record`` is told of every check before its answer; when it returns False the
    access cannot be recorded, and then it does not happen. ``clock`` is the keeper's.
    """

    def __init__(
        self,
        table: BindingTable,
        record: CheckRecorder,
        clock: Callable[[], float],
        signatures: Signatures | None = None,
    ) -> None:
        self.table = table
        self._record = record
        self._clock = clock
        self._signatures = signatures or Signatures(time.time, partial(secrets.token_hex, 16))

    def check(self, request: Request) -> Decision:
        """Whether the request may go on, and with which credential. Safe for threads.

        Blocks, for ``request.wait`` seconds at most, where Vault must be asked first.
        """
        decision = self.start(request)
        return decision.wait() if isinstance(decision, Later) else decision

    def start(self, request: Request) -> Decision | Later[Decision]:
        """As ``check``, but what would block is promised instead."""
        decision = self._decide(request)
        if isinstance(decision, Later):
            return decision.map(lambda answer: self._recorded_late(request, answer))
        return self._recorded(request, decision)

    def _recorded_late(self, request: Request, decision: Decision) -> Decision:
        """As ``_recorded``; there is no caller any more who could make a denial of an error."""
        try:
            return self._recorded(request, decision)
        except Exception as exc:  # noqa: BLE001 - whatever a recorder raises
            # Its type, not its text, which may quote a value.
            log.error("a check could not be recorded: %s", type(exc).__name__)  # noqa: TRY400
            return Denied(Reason.INTERNAL, decision.upstream, decision.stage)

    def _recorded(self, request: Request, decision: Decision) -> Decision:
        if isinstance(decision, Allowed) and decision.credential is not None:
            mutation = decision.credential.mutation
            if mutation.query and request.path in PATHLESS:
                # It has no place in it; Envoy's filter takes a path for granted.
                decision = Denied(Reason.BAD_REQUEST, decision.upstream, decision.stage)
            elif mutation.long:
                decision = _without_aliases(request, decision, mutation)
            if mutation.signer is not None and isinstance(decision, Allowed):
                decision = self._signatures.add(request, decision)
        if not self._record(request, decision) and decision.allowed:
            return Denied(Reason.OVERLOADED, decision.upstream, decision.stage, retry_after=1)
        return decision

    def _decide(self, request: Request) -> Decision | Later[Decision]:
        table = self.table  # read once: the whole check sees one configuration
        path = path_of(request.path)
        verdict = _verdict(table, request, path)
        if _contested(table, request, path, verdict):
            return Denied(Reason.BAD_REQUEST)
        if isinstance(verdict, (Allowed, Denied)):
            return verdict
        if isinstance(verdict.source, Slot):
            return self._credential(verdict, verdict.source, request)
        return verdict.source.take(request, request.wait)

    def _credential(self, binding: Binding, slot: Slot, request: Request) -> Decision:
        now = self._clock()
        credential = slot.credential
        if credential is None or not credential.usable(now):
            wait = min(max(slot.retry_at - now, 1.0), _RETRY_AFTER_MAX)
            return Denied(
                Reason.NO_CREDENTIAL, binding.upstream, binding.stage, retry_after=math.ceil(wait)
            )
        if binding.former and not binding.former.permits(credential, request):
            return Denied(Reason.CALLER_DENIED, binding.upstream, binding.stage)
        slot.uses += 1  # may miss one under threads: it only orders who is fetched first
        return Allowed(binding.upstream, binding.stage, credential)


def _verdict(table: BindingTable, request: Request, path: str) -> Binding | Decision:
    """The binding whose credential the request may have, or the answer without one."""
    if request.upstream:
        binding = table.named(request.upstream, request.stage)
        if binding is None:  # also under `unmatched: pass`: the gateway's route claims it
            return Denied(Reason.NO_UPSTREAM, request.upstream, request.stage)
    else:
        binding = table.routed(request.host, path)
        if binding is None:
            return Allowed("", "", None) if table.pass_unmatched else Denied(Reason.NO_UPSTREAM)
    if not binding.callers.permits(request):
        return Denied(Reason.CALLER_DENIED, binding.upstream, binding.stage)
    return binding


def _without_aliases(request: Request, allowed: Allowed, mutation: Mutation) -> Decision:
    """The decision with the client's headers to drop that only this request tells."""
    sent = request.sent(mutation.long)
    if sent is None:
        return Denied(Reason.BAD_REQUEST, allowed.upstream, allowed.stage)
    filled = {*mutation.filled, *mutation.remove}
    dropped = tuple(dict.fromkeys(name for name, _ in sent if name not in filled))
    return replace(allowed, dropped=dropped) if dropped else allowed


def _contested(
    table: BindingTable, request: Request, path: str, verdict: Binding | Decision
) -> bool:
    """Whether the verdict hangs on how a server reads the path or the method.

    Servers differ in what they make of some. Where one decides, all readings must come to
    the same, or nobody knows what is being asked for.
    """
    routed = not request.upstream and table.routes.reads_path
    if isinstance(verdict, Binding):
        binding: Binding | None = verdict
    else:
        binding = table.bindings.get((verdict.upstream, verdict.stage))
    if not (routed or _reads(binding)):  # as most: it costs them as little as it can
        return False
    rules = _rules(binding)
    readings_of = _readings(request, path, rules, routed=routed)
    if readings_of is None:
        return True
    paths, methods = readings_of
    if len(paths) == len(methods) == 1:
        return False
    permitted = [callers.permits(request) for callers in rules]
    for method in methods:
        for read in paths:
            reread = replace(request, method=method, path=read)
            if _verdict(table, reread, path_of(read)) != verdict:
                return True
            if [callers.permits(reread) for callers in rules] != permitted:
                return True
    return False


def _readings(
    request: Request, path: str, rules: tuple[Callers, ...], *, routed: bool
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The paths and the methods that it may be read to ask for; None where nobody can say."""
    paths: tuple[str, ...] = (path,)
    methods: tuple[str, ...] = (request.method,)
    ruled = any(callers.reads_path for callers in rules)
    if routed or ruled:
        if _is_unclear(request, path, ruled=ruled):
            return None
        paths += readings(path)
    if any(callers.reads_method for callers in rules):
        others = other_methods(request.method, request.path, request.sent(OVERRIDES))
        if others is None:
            return None
        methods += others
    return paths, methods


def _is_unclear(request: Request, path: str, *, ruled: bool) -> bool:
    """Whether nobody can say what a server makes of this path.

    CONNECT has none: what goes through the tunnel has, which no rule (``ruled``) sees.
    """
    if not path and request.method == "CONNECT":
        return ruled
    if ambiguous(path) or has_fragment(request.path):
        return True
    return not (path.startswith("/") or path == "*")


def _reads(binding: Binding | None) -> bool:
    """Whether one of its rules may ask for the path or the method."""
    if binding is None:
        return False
    callers = binding.callers
    return callers.reads_path or callers.reads_method or binding.former is not None


def _rules(binding: Binding | None) -> tuple[Callers, ...]:
    """The rules for a binding's credential, those before a reload included."""
    if binding is None:
        return ()
    return (binding.callers, *(binding.former.callers if binding.former else ()))
