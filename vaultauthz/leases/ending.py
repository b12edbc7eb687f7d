"""The end of a stage: what is revoked, by which call, and what is left to lapse."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.lease_messages import CallRevoke, Failed, Stop
from vaultauthz.leases.runner import Runner
from vaultauthz.leases.stage import Stage

_NOT_MADE: Final = Failure(Verdict.RETRY, "it was not asked for any more")


@dataclass(frozen=True, slots=True)
class Ended:
    """A stage that was told to end; ``left``: its token lapses by itself, with leases in use."""

    stage: Stage
    revoking: tuple[Runner, ...]  # whose revocations there are to wait for
    left: bool


def end(stage: Stage, leave: Collection[tuple[str, str]]) -> Ended:
    """Revoke the stage's tokens, and by themselves the leases that none of them takes along.

    The leases of a place (stage, upstream) in ``leave`` live on, and with them the token:
    then the others are revoked by themselves. Under the keeper's lock.
    """
    stage.stopping = True
    for scope in stage.scopes:
        scope.refuse()
    left = {
        runner
        for name, runner in stage.leases.items()
        if (stage.name, name) in leave and runner.machine.held and runner.machine.held.lease_id
    }
    alone: set[Runner] = {
        runner
        for runner in stage.runners
        if runner not in left and (left or not stage.login.takes_along(runner))
    }
    kept: set[Runner] = alone if left else {stage.login, *alone}
    forgotten = stage.forget_calls(
        lambda whose, call: whose not in kept or not isinstance(call, CallRevoke)
    )
    for runner in tuple(stage.runners):
        runner.keeper.deliver(runner, Stop(revoke=runner in alone))
    if left:
        stage.login.leave(len(left))
    stage.login.keeper.deliver(stage.login, Stop(revoke=not left))
    answer_for(runner for runner in forgotten if runner in kept)
    return Ended(stage, tuple(kept), bool(left))


def answer_for(forgotten: Iterable[Runner]) -> None:
    """A lease whose renewal is not even sent is revoked without waiting for it."""
    for runner in forgotten:
        runner.keeper.deliver(runner, Failed(_NOT_MADE))
