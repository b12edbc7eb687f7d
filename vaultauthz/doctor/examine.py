"""Gathering the evidence: every server first, then every stage, at most eight at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from vaultauthz.config.values import Config, Listen, Vault
from vaultauthz.doctor.evidence import Evidence, ExaminedStage, Shown, VaultNode, VaultServer
from vaultauthz.doctor.limits import Locks, Turns
from vaultauthz.doctor.reach import node
from vaultauthz.doctor.stage import Around, examine_stage
from vaultauthz.server_tls import examined

_AT_ONCE: Final = 8
_ENDING: Final = 30.0  # seconds for what is under way when the user has had enough

_T = TypeVar("_T")


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
        shown=shown(config.listen, time.time()),
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


def shown(listen: Listen, now: float) -> tuple[Shown, ...]:
    """The certificates that clients of ours are shown, as they are in their files ``now``."""
    grpc, admin = "listen.grpc_tls", "listen.admin_tls"
    found = []
    for key, files in ((grpc, listen.grpc_tls), (admin, listen.admin_tls)):
        if files:
            trouble, good = examined(files, now, by_grpc=key == grpc)
            left = (good.ends - now) / max(good.ends - good.begins, 1.0) if not trouble else 0.0
            found.append(Shown(key, files.cert, trouble, left, good.ends - now))
    return tuple(found)
