"""Everything but the gateways' doors: keeper and broker from one configuration."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from vaultauthz.broker import Binding, BindingTable, Broker, Former
from vaultauthz.config.changes import Changes, compare
from vaultauthz.config.values import Config, Upstream
from vaultauthz.core import events
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.decision import Decision
from vaultauthz.core.events import (
    AskedBy,
    CallListener,
    CheckRecorder,
    Event,
    Exchange,
    Listener,
    Operation,
)
from vaultauthz.core.lease_row import StageFacts
from vaultauthz.core.pace import Pace
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Routes, StageUpstream
from vaultauthz.leases.clock import boottime
from vaultauthz.leases.keeper import Keeper
from vaultauthz.leases.later import Later
from vaultauthz.leases.scopes import PerRequest, Scope
from vaultauthz.vault.session import Session


class Engine:
    """``check`` requests from ``start`` to ``close``.

    ``recorders`` are asked to write each check down before its answer goes out;
    ``listeners`` hear of everything that happens to logins and leases, and ``call_listeners`` of
    each call to Vault, on the thread that makes it. All must be quick, and listeners must not call
    back into the engine.
    """

    def __init__(
        self,
        config: Config,
        recorders: Iterable[CheckRecorder] = (),
        listeners: Iterable[Listener] = (),
        pace: Pace = Pace(),
        call_listeners: Iterable[CallListener] = (),
    ) -> None:
        self._call_listeners = tuple(call_listeners)
        self._listeners = tuple(listeners)
        self._recorders = tuple(recorders)
        self._config = config
        self._closed = False
        self._sources: dict[StageUpstream, Slot | Scope] = {}
        self._rejected: dict[StageUpstream, str] = {}  # the last credential that a 401 was told of
        self.keeper = Keeper(self._announce, pace)
        for name in config.stages:
            self.keeper.add_stage(name, self._session(config, name))
        for stage, name in _places(config):
            self._sources[stage, name] = self._source(stage, config.upstreams[name])
        # One recorder is the rule, and is then told without a loop around it.
        record = self._recorders[0] if len(self._recorders) == 1 else self._record
        self.broker = Broker(BindingTable((), Routes()), record, boottime)
        self.broker.table = self._table(config)

    def _session(self, config: Config, stage: str, before: Session | None = None) -> Session:
        memory = before.memory if before else None
        auth, told = config.stages[stage].auth, partial(self._called, stage)
        return Session(config.vault_of(stage), auth, boottime, memory, told=told, stage=stage)

    def _called(self, stage: str, operation: Operation, status: int, seconds: float) -> None:
        for listener in self._call_listeners:
            listener(Exchange(stage, operation, status, seconds))

    def _table(self, config: Config, changed: Collection[StageUpstream] = ()) -> BindingTable:
        bindings = [
            Binding(
                name,
                stage,
                config.upstreams[name].callers,
                self._sources[stage, name],
                self._former(stage, name, changed=(stage, name) in changed),
            )
            for stage, name in _places(config)
        ]
        passes = config.unmatched == "pass"
        return BindingTable(bindings, Routes.of(config.routes), pass_unmatched=passes)

    def _former(self, stage: str, name: str, *, changed: bool) -> Former | None:
        """Whose the credential in use is, where a reload has asked for another."""
        source = self._sources[stage, name]
        before = self.broker.table.named(name, stage)
        if before is None or not isinstance(source, Slot) or source.credential is None:
            return None
        in_use = source.credential.credential_id
        older = before.former if before.former and before.former.credential_id == in_use else None
        if not changed:
            return older
        return Former(in_use, (*(older.callers if older else ()), before.callers))

    def _source(self, stage: str, upstream: Upstream) -> Slot | Scope:
        if upstream.per == "instance":
            return self.keeper.add(stage, upstream)
        return self.keeper.add_scope(stage, upstream)

    def listen(self, listener: Listener) -> None:
        """Have one more hear of everything that happens from now on; call it before ``start``."""
        self._listeners = (*self._listeners, listener)

    def _announce(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _record(self, request: Request, decision: Decision) -> bool:
        recorded = True
        for record in self._recorders:  # all are told, also when one says no
            recorded = record(request, decision) and recorded
        return recorded

    def start(self) -> None:
        """Log in and fetch, in the background; ``started`` tells when that is done."""
        self.keeper.start()

    @property
    def started(self) -> bool:
        """Whether every upstream that is not ``optional`` has had its credential; stays so."""
        return self.keeper.started

    @property
    def ready(self) -> bool:
        """Whether it has started, and each of these has a credential for a request of now."""
        return self.keeper.ready

    @property
    def config(self) -> Config:
        """The configuration that it works by; another after a reload."""
        return self._config

    def check(self, request: Request) -> Decision:
        """Whether the request may go on, and with which credential. Safe for threads."""
        return self.broker.check(request)

    def start_check(self, request: Request) -> Decision | Later[Decision]:
        """As ``check``, but what would block is promised instead."""
        return self.broker.start(request)

    def reload(self, config: Config) -> Changes:
        """Take over another configuration; what it leaves unchanged keeps its lease.

        No request is lost: a changed upstream's credential stays in use until the
        new one is there, and a dropped one's lease drains before it is revoked.
        ``listen`` and ``audit`` are not ours; ``Changes`` says if they differ from those
        at the start. After ``close`` it does nothing.
        """
        with self.keeper.lock:
            if self._closed:
                return compare(self._config, self._config)
            changes = compare(self._config, config)
            self._take_over(changes, config)
            begun = self._config
            self._config = replace(config, listen=begun.listen, audit=begun.audit)
        if changes:
            self.keeper.announce(Event(events.RELOADED, "", reason=str(changes)))
        return changes

    def _take_over(self, changes: Changes, config: Config) -> None:
        keeper = self.keeper
        for name in changes.stages_added:
            keeper.add_stage(name, self._session(config, name))
        for name in changes.stages_changed:
            session = self._session(config, name, keeper.session(name))
            keeper.change_stage(name, session, moved=name in changes.stages_moved)
        for name in changes.stages_adjusted:
            keeper.adjust_stage(name, self._session(config, name, keeper.session(name)))
        leaving = [
            (place, self._sources.pop(place)) for place in (*changes.dropped, *changes.replaced)
        ]
        for stage, name in (*changes.added, *changes.replaced):
            self._sources[stage, name] = self._source(stage, config.upstreams[name])
        for stage, name in changes.kept:
            source = self._sources[stage, name]
            if isinstance(source, Slot):
                anew = (stage, name) in changes.changed
                keeper.change(stage, config.upstreams[name], anew=anew)
            else:
                keeper.adjust_scope(source, config.upstreams[name])
        self.broker.table = self._table(config, changes.changed)
        for (stage, name), source in leaving:
            if isinstance(source, Slot):
                keeper.drop(stage, name)
            else:
                keeper.drop_scope(stage, source)
        for name in changes.stages_dropped:
            keeper.drop_stage(name)

    def shared(self, stage: str, upstream: str) -> tuple[Upstream, Slot] | None:
        """An upstream's configuration and slot; None where its lease is not one for all."""
        with self.keeper.lock:  # a reload changes both
            source = self._sources.get((stage, upstream))
            found = self._config.upstreams.get(upstream)
        return (found, source) if found and isinstance(source, Slot) else None

    def client_certificates(self) -> dict[str, EndingCertificate]:
        """What each stage shows Vault, of those that show something."""
        with self.keeper.lock:  # a reload changes the stages
            sessions = {stage: self.keeper.session(stage) for stage in self._config.stages}
        # Without it: files are looked at, and may be of a mount that hangs.
        shown = {stage: session.client_certificate for stage, session in sessions.items()}
        return {stage: found for stage, found in shown.items() if found}

    def stages(self) -> list[StageFacts]:
        """Each stage as it is configured, and what is known of its Vault; asks nobody."""
        with self.keeper.lock:  # a reload changes both
            return [
                StageFacts(
                    name,
                    stage.auth.name,
                    stage.auth.mount,
                    self._config.vault_of(name).namespace,
                    self.keeper.session(name).nodes,
                )
                for name, stage in self._config.stages.items()
            ]

    def knows(self, stage: str, upstream: str) -> bool:
        """Whether the configuration has this upstream in this stage."""
        return (upstream, stage) in self.broker.table.bindings

    def former(self, stage: str, upstream: str) -> Former | None:
        """Who might use the credential in use, where a reload has asked for another."""
        binding = self.broker.table.bindings.get((upstream, stage))
        return binding.former if binding else None

    def ask(
        self, wish: str, upstream: str, stage: str | None, operator: AskedBy
    ) -> tuple[str, ...]:
        """Have it done for an operator, whose line comes before those of what comes of it.

        ``wish`` is ``ROTATE_ASKED`` or ``REVOKE_ASKED``, and what is announced. ``stage`` is None for all.
        Returns the stages where that was asked.
        """
        keeper = self.keeper
        with keeper.lock:  # a reload may take the upstream away
            for name in self._config.stages:
                if stage in (None, name) and self.knows(name, upstream):
                    who, why = operator.who, operator.reason
                    keeper.announce(Event(wish, name, upstream, caller=who, reason=why))
            act = keeper.rotate if wish == events.ROTATE_ASKED else keeper.revoke
            return act(upstream, stage)

    def rejected(self, upstream: str, stage: str, credential: Credential) -> None:
        """The upstream answered 401 to this credential: it may want a rotation."""
        self.keeper.rejected(upstream, stage, credential.credential_id)

    def answered_401(self, upstream: str, stage: str, credential_id: str) -> bool:
        """As ``rejected``, by a gateway's word; whether that is a credential in use.

        An old one's leads to nothing, without a lock. The first of each shared one is
        announced.
        """
        binding = self.broker.table.bindings.get((upstream, stage))
        if binding is None or isinstance(binding.source, PerRequest):
            return False  # a request's own lease is never used again
        if isinstance(binding.source, Slot):
            credential = binding.source.credential
            if credential is None or credential.credential_id != credential_id:
                return False
            self._announce_rejected(binding, credential)
        self.keeper.rejected(upstream, stage, credential_id)
        return True

    def _announce_rejected(self, binding: Binding, credential: Credential) -> None:
        place = (binding.stage, binding.upstream)
        if self._rejected.get(place) == credential.credential_id:
            return
        self._rejected[place] = credential.credential_id
        self.keeper.announce(
            Event(
                events.REJECTED,
                *place,
                lease_id=credential.lease_id,
                credential_id=credential.credential_id,
                reason="the upstream answered 401",
            )
        )

    def close(self, timeout: float = 5.0, leave: Collection[StageUpstream] = ()) -> bool:
        """Revoke what was leased; True when all of it was, within ``timeout`` seconds.

        ``leave``: the leases of these upstreams are left to end with their login token.
        """
        with self.keeper.lock:
            self._closed = True
            self.broker.table = BindingTable((), Routes())
        return self.keeper.stop(timeout, leave)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _places(config: Config) -> list[StageUpstream]:
    return [(stage, u.name) for u in config.upstreams.values() for stage in u.stages]
