"""The keeper's plans, readiness and look at files, without threads and with a clock of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.values import KvSecret, Upstream, Vault
from vaultauthz.core.callers import Callers
from vaultauthz.core.events import Event
from vaultauthz.core.grant import Grant
from vaultauthz.core.injection import Mutation
from vaultauthz.core.lease_messages import Issued, Tick
from vaultauthz.core.secret import Secret
from vaultauthz.leases.keeper import Keeper
from vaultauthz.leases.lease_runner import LeaseRunner, fingerprint
from vaultauthz.vault.session import Session

SOURCE = KvSecret("secret/geo", refresh=1.0, max_stale=3600.0)


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def announce_nothing(event: Event) -> None:
    """A listener that does not care."""


def upstream(name: str, *, optional: bool = False) -> Upstream:
    return Upstream(name, ("prod",), {"prod": SOURCE}, (), Callers(None), optional=optional)


def keeper_with(
    *upstreams: Upstream, clock: Clock, secret_id_file: Path | None = None
) -> tuple[Keeper, list[LeaseRunner]]:
    """A keeper that was not started: nothing runs but what the test hands in."""
    keeper = Keeper(announce_nothing, clock=clock, draw=lambda: 0.5)
    auth = AppRole("role", secret_id_file=secret_id_file)
    keeper.add_stage("prod", Session(Vault("http://127.0.0.1:1"), auth, clock))
    for each in upstreams:
        keeper.add("prod", each)
    return keeper, list(keeper._stages["prod"].leases.shared.values())


def ready(keeper: Keeper) -> bool:
    return keeper.ready


def issued(now: float, **more: Any) -> Issued:
    return Issued(Grant(Mutation(), 3600.0, read_again=1.0, **more), now)


def test_the_heap_does_not_grow_with_the_reads() -> None:
    """A key that is read each second leaves no plan behind for the hour that it may be stale."""
    clock = Clock()
    keeper, (runner,) = keeper_with(upstream("geo"), clock=clock)
    for _ in range(20_000):
        keeper.deliver(runner, Tick())
        keeper.deliver(runner, issued(clock.now))
        clock.now += 1.0
        keeper._waker.wake(clock.now)
    assert len(keeper._waker.agenda) < 3000


def test_a_wake_up_leaves_nothing_that_is_due() -> None:
    """The clock's loop ends: no machine wants to be woken again at the time it was woken."""
    clock = Clock()
    keeper, runners = keeper_with(upstream("a"), upstream("b"), clock=clock)
    for runner in runners:
        keeper.deliver(runner, Tick())
        keeper.deliver(runner, issued(clock.now))
    for _ in range(100):
        clock.now += 37.0
        keeper._waker.wake(clock.now)
        assert all(runner.machine.wake_at > clock.now for runner in runners)


@pytest.mark.parametrize("optional", [True, False])
def test_the_start_is_over_once_and_readiness_comes_and_goes(optional: bool) -> None:
    """With optional upstreams only both are there at once, else with the last one's credential."""
    clock = Clock()
    keeper, runners = keeper_with(
        upstream("a", optional=optional), upstream("b", optional=optional), clock=clock
    )
    assert not ready(keeper)
    keeper._complete = not keeper._awaited  # what start does, without its threads
    assert ready(keeper) is optional
    for runner in runners:
        keeper.deliver(runner, Tick())
        keeper.deliver(runner, issued(clock.now))
    assert ready(keeper)
    clock.now += 4000.0
    keeper._waker.wake(clock.now)
    assert runners[0].slot.credential is None
    assert keeper.started
    assert ready(keeper) is optional
    for runner in runners:
        assert ready(keeper) is optional
        keeper.deliver(runner, Tick())
        keeper.deliver(runner, issued(clock.now))
    assert ready(keeper)


def test_a_file_has_changed_when_it_is_new_or_another(tmp_path: Path) -> None:
    """Come to be, replaced or written to: once each; gone or untouched: not."""
    path = tmp_path / "secret_id"
    keeper, _ = keeper_with(clock=Clock(), secret_id_file=path)
    changed = keeper._stages["prod"].files_changed
    assert not changed()
    path.write_text("a")
    assert [changed(), changed()] == [True, False]
    path.with_suffix(".new").write_text("a")
    path.with_suffix(".new").replace(path)
    assert [changed(), changed()] == [True, False]
    path.unlink()
    assert not changed()
    path.write_text("b")
    assert changed()


def test_a_credential_id_names_one_credential_and_tells_nothing() -> None:
    """Same key, place, lease and fields: same name; any other: another one."""
    fields = {"username": Secret("u"), "password": Secret("p")}
    name = fingerprint(b"key", "pay", "lease", fields)
    assert name == fingerprint(b"key", "pay", "lease", dict(reversed(fields.items())))
    others = [
        fingerprint(b"yek", "pay", "lease", fields),
        fingerprint(b"key", "payl", "ease", fields),
        fingerprint(b"key", "pay", "lease", {**fields, "password": Secret("\ud800")}),
        fingerprint(b"key", "pay", "lease", {"username": Secret("up"), "password": Secret("")}),
    ]
    assert len({name, *others}) == 5
    assert len(name) == 16
