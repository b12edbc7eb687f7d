"""Which request got which credential, until Kong tells what the upstream answered.

Kong's log phase has the request's id and the upstream's status. An entry is kept until then;
requests that never end push out the oldest. What Kong tells is read in a thread of its own:
the one that answers requests has no time for it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Final, NamedTuple

from vaultauthz.core.decision import Allowed
from vaultauthz.core.redaction import where

log = logging.getLogger(__name__)

_MOST: Final = 65_536  # requests under way whose credential is remembered
_WAITING: Final = 10_000  # requests that are over and not yet looked at; more are passed over


class Use(NamedTuple):
    """One request's credential."""

    upstream: str
    stage: str
    credential_id: str


class LogPhase:
    """``note`` and ``finished`` may be called from any thread, and take microseconds.

    ``answered`` is told stage, upstream and its status, 0 for none; ``tried`` stage, upstream,
    credential_id and that status; ``rejected`` upstream, stage and credential_id of each 401.
    """

    def __init__(
        self,
        answered: Callable[[str, str, int], object],
        rejected: Callable[[str, str, str], object],
        tried: Callable[[str, str, str, int], None],
    ) -> None:
        self._answered = answered
        self._rejected = rejected
        self._tried = tried
        self._uses: dict[str, Use] = {}
        self._over: SimpleQueue[str | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="kong-log", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it has not read is passed over."""
        self._over.put(None)
        if self._thread.is_alive():
            self._thread.join(1.0)

    def note(self, request_id: str, allowed: Allowed) -> None:
        """This request goes on, with this credential."""
        if request_id and allowed.credential is not None:
            credential_id = allowed.credential.credential_id
            self._uses[request_id] = Use(allowed.upstream, allowed.stage, credential_id)
            if len(self._uses) > _MOST:
                self._forget_one()

    def finished(self, serialized: str) -> None:
        """What ``kong.log.serialize`` says of a request that is over."""
        if self._over.qsize() < _WAITING:
            self._over.put(serialized)

    def _forget_one(self) -> None:
        try:
            self._uses.pop(next(iter(self._uses)), None)
        except (RuntimeError, StopIteration):
            return  # another thread was quicker; there will be a next time

    def _run(self) -> None:
        while (serialized := self._over.get()) is not None:
            try:
                self._read(serialized)
            except Exception as exc:  # noqa: BLE001 - one odd line must not end the thread
                log.error("what Kong told of a request was passed over: %s", where(exc))  # noqa: TRY400

    def _read(self, serialized: str) -> None:
        request_id, status = outcome(serialized)
        use = self._uses.pop(request_id, None)
        if use is None:
            return  # denied, or another process's
        self._answered(use.stage, use.upstream, status)
        self._tried(use.stage, use.upstream, use.credential_id, status)
        if status == 401:
            self._rejected(*use)


def outcome(serialized: str) -> tuple[str, int]:
    """A request's id, and the upstream's status: 0 where it gave none.

    ``upstream_status`` is nginx's: text, of several tries "502, 200".
    """
    message = json.loads(serialized)
    request = message.get("request") if isinstance(message, dict) else None
    if not isinstance(request, dict):
        return "", 0
    last = str(message.get("upstream_status") or "").rpartition(",")[2].strip()
    return str(request.get("id") or ""), int(last) if last.isdecimal() else 0
