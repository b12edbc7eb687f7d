"""A worker's plugin instances: one for each plugin configuration, found by Kong's `__plugin_id` and `__seq__`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.contract.kong.lua import LuaError
from tests.contract.kong.routes import Settings

Conf = dict[str, Any]
Result = tuple[int | None, str | None]  # a value, or why there is none


class Rpc(Protocol):
    """What a protocol offers for instances."""

    def start_instance(self, conf: Conf) -> Result:
        """The new instance's id, or the error's text. Raises LuaError."""

    def close_instance(self, number: int) -> None:
        """Close it; failures do not matter. Raises LuaError."""


class Unclaimed(Exception):  # noqa: N818 - an error in Lua's second return value
    """Another request was starting this instance and took too long."""


@dataclass
class Instance:
    """An instance, or the claim of a request that is starting it (`number` is None)."""

    seq: int
    number: int | None = None
    started: bool = False  # a claim that never got so far is not touched by a reset


class Instances:
    """The instances of one plugin in one worker."""

    def __init__(
        self,
        rpc: Rpc,
        settings: Settings,
        log: Callable[[str, str], None],
        announce: Callable[[], None],
    ) -> None:
        self.starts = 0
        self._rpc = rpc
        self._settings = settings
        self._log = log
        self._announce = announce
        self._running: dict[str, Instance] = {}
        self._changed = threading.Condition()
        self._due: list[float] = []  # resets that were announced, by when this worker hears of them

    def number(self, conf: Conf) -> int:
        """The id of the instance for this configuration, started if need be.

        Raises:
            LuaError: it could not be started.
            Unclaimed: see there.
        """
        key, seq = str(conf["__plugin_id"]), int(conf["__seq__"])
        with self._changed:
            self._hear()
            known = self._claimed(key)
            if known and known.number is not None and known.seq == seq:
                return known.number
            old = known.number if known else None
            if known is None:
                known = self._running[key] = Instance(seq)
            known.number = None
        return self._start(key, known, conf, old)

    def reset(self) -> None:
        """Forget this plugin's instances, and let every worker hear of it (this one once more)."""
        self.forget()
        self._announce()

    def forget(self) -> None:
        """Drop every started instance of this worker; the server is not told."""
        with self._changed:
            self._forget()

    def hear(self, due: float) -> None:
        """A reset was announced; it takes effect at `due` on the monotonic clock."""
        with self._changed:
            self._due.append(due)

    @property
    def known(self) -> dict[str, int | None]:
        """Instance ids by plugin id, as they are cached now."""
        with self._changed:
            return {key: instance.number for key, instance in self._running.items()}

    def _claimed(self, key: str) -> Instance | None:
        end = time.monotonic() + self._settings.claim_wait
        while (known := self._running.get(key)) is not None and known.number is None:
            if time.monotonic() > end:
                del self._running[key]
                raise Unclaimed(f"Could not claim instance_id (key: {key})")
            self._changed.wait(0.1)
        return known

    def _start(self, key: str, claim: Instance, conf: Conf, old: int | None) -> int:
        self.starts += 1
        number, error = self._rpc.start_instance(
            conf
        )  # a LuaError leaves the claim behind, as in Kong
        with self._changed:
            if number is None:
                self._running.pop(key, None)
            else:
                claim.number, claim.seq, claim.started = number, int(conf["__seq__"]), True
            self._changed.notify_all()
        if number is None:
            self._log("error", f"starting instance: {error}")
            raise LuaError(error)
        if old is not None:
            self._rpc.close_instance(old)
        return number

    def _hear(self) -> None:
        now = time.monotonic()
        if any(due <= now for due in self._due):
            self._due = [due for due in self._due if due > now]
            self._forget()

    def _forget(self) -> None:
        self._running = {key: one for key, one in self._running.items() if not one.started}
        self._changed.notify_all()


def encoded(conf: Conf) -> bytes:
    """The configuration as the plugin server gets it."""
    return json.dumps(conf, separators=(",", ":")).encode()
