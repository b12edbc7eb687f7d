"""``vaultauthz doctor``: examine, judge, show.

The evidence is gathered of every server first, then of every stage, at most eight at a time.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self, TextIO, TypeVar

from vaultauthz.certificates import configured
from vaultauthz.config.values import Config, Vault
from vaultauthz.core.certificate import ADMIN, GRPC
from vaultauthz.doctor.evidence import Evidence, ExaminedStage, Shown, VaultNode, VaultServer
from vaultauthz.doctor.limits import Locks, Turns
from vaultauthz.doctor.reach import node
from vaultauthz.doctor.rules import judge
from vaultauthz.doctor.show import as_json, as_text
from vaultauthz.doctor.stage import Around, examine_stage
from vaultauthz.server_tls import examined
from vaultauthz.terminal import Output

_AT_ONCE: Final = 8
_ENDING: Final = 30.0  # seconds for what is under way when the user has had enough

_T = TypeVar("_T")
_INTERRUPTED: Final = 130  # as a shell has it for SIGINT
_CLEAR: Final = "\r\x1b[K"


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """The command's options: one stage or all; with a dry fetch of every secret or without."""

    stage: str | None = None
    fetch: bool = False


def examine(config: Config, asked: DoctorOptions, say: Callable[[str], None]) -> Evidence:
    """Ask Vault everything. ``say`` is told, from any thread, what is being done.

    Ctrl-C ends it early: what was logged in to and leased is given back, and what was
    found so far is returned as ``interrupted``.
    """
    names = [asked.stage] if asked.stage is not None else list(config.stages)
    stop = threading.Event()
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="doctor")
    servers: tuple[VaultServer, ...] = ()
    stages: dict[str, Future[ExaminedStage]] = {}
    try:
        say("looking at Vault")
        servers = _servers(config, names, pool)
        around = Around(config, asked.fetch, Locks(), say)
        for name in names:
            at = next(server.node for server in servers if name in server.stages)
            turns = Turns(config.vault_of(name).calls_per_second, stop)
            stages[name] = pool.submit(examine_stage, name, at, around, turns)
        wait(stages.values())
    except KeyboardInterrupt:
        stop.set()  # first: who has read the word may count on it that nothing more is taken
        say("giving back what was taken")
        pool.shutdown(wait=False, cancel_futures=True)
        wait(stages.values(), timeout=_ENDING)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return Evidence(
        servers,
        tuple(_done(stages.values())),
        config.warnings,
        fetched=asked.fetch,
        interrupted=stop.is_set(),
        unfinished=tuple(name for name, future in stages.items() if not future.done()),
        shown=shown(config, time.time()),
    )


def _done(futures: Iterable[Future[_T]]) -> Iterable[_T]:
    return (future.result() for future in futures if future.done() and not future.cancelled())


def _servers(
    config: Config, names: Sequence[str], pool: ThreadPoolExecutor
) -> tuple[VaultServer, ...]:
    """Each server as its stages see it: they may have client certificates of their own."""
    alike: dict[Vault, list[str]] = {}
    for name in names:
        # Whatever namespace they are in, it is the same server.
        alike.setdefault(replace(config.vault_of(name), namespace=""), []).append(name)
    asked = {
        vault: [pool.submit(node, vault, address) for address in vault.addresses] for vault in alike
    }
    return tuple(
        VaultServer(vault, tuple(stages), _nodes(asked[vault])) for vault, stages in alike.items()
    )


def _nodes(futures: Sequence[Future[VaultNode]]) -> tuple[VaultNode, ...]:
    return tuple(future.result() for future in futures)


def shown(config: Config, now: float) -> tuple[Shown, ...]:
    """The certificates that we show, to our clients and to Vault, as they are in their files ``now``."""
    listeners = {GRPC: config.listen.grpc_tls, ADMIN: config.listen.admin_tls}
    found = []
    for one in configured(config):
        files = listeners.get(one.use)
        trouble = examined(files, now, by_grpc=one.use == GRPC)[0] if files else one.trouble
        found.append(Shown(replace(one, trouble=trouble), one.seconds_left(now)))
    return tuple(found)


def run(config: Config, options: DoctorOptions, out: Output, err: TextIO) -> int:
    """Say what is wrong; status 0 without a finding, 1 with one, 2 for an unknown stage."""
    if options.stage is not None and options.stage not in config.stages:
        stages = ", ".join(config.stages)
        err.write(f"vaultauthz: there is no stage {options.stage!r}; stages: {stages}\n")
        return 2
    with _terminated_like_interrupted(), Progress(err) as progress:
        facts = examine(config, options, progress.say)
    if facts.interrupted:
        _tell_interrupted(facts, err)
        return _INTERRUPTED
    findings = judge(facts)
    if out.as_json:
        out.json(as_json(facts, findings))
    else:
        as_text(facts, findings, out)
    return 1 if findings else 0


def _tell_interrupted(facts: Evidence, err: TextIO) -> None:
    left = [f"{name}: it takes too long" for name in facts.unfinished]
    left += [f"{s.name}: {s.left}" for s in facts.stages if s.left]
    left += [f"lease {f.lease_id}: {f.left}" for s in facts.stages for f in s.leases if f.left]
    held = f"not revoked: {'; '.join(left)}" if left else "what it had taken is given back"
    err.write(f"vaultauthz doctor: interrupted; {held}\n")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the examination as Ctrl-C does: tokens and leases are given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Progress:
    """One line that says what is being done, and is gone in the end. Safe for threads.

    Where ``out`` is no terminal it says nothing.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._live = out.isatty()

    def say(self, what: str) -> None:
        """Show this in place of what was shown."""
        with self._lock:
            if self._live:
                width = shutil.get_terminal_size().columns - 1
                self._out.write(f"{_CLEAR}{what}…"[: width + len(_CLEAR)])
                self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._live:
                self._live = False
                self._out.write(_CLEAR)
                self._out.flush()
