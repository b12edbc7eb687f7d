"""What a client got, what the service got, and what the plugin server did for one request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.contract.kong.exchange import Exchange, Line
from tests.contract.kong.upstream import Received
from tests.patience import PATIENCE


class Verdict(Enum):
    """Who answered the request, and why."""

    PROXIED = "proxied"  # the service; `Answer.error` says whether the plugin was passed over
    ANSWERED = "answered"  # the plugin, with kong.response.exit or .error
    FAILED = "failed"  # Kong, with 500, because of the plugin server
    GUARDED = "guarded"  # the guard's post-function, with 503: what the plugin sets was not there
    ENDLESS = "endless"  # nobody: Kong would try again for ever
    NO_ROUTE = "no route"  # Kong, with 404


@dataclass(frozen=True)
class Trace:
    """One event in the plugin server."""

    pdk_calls: tuple[str, ...]
    round_trips: int  # calls to the plugin server, the one that begins the event included
    retries: int
    lines: tuple[Line, ...]  # of Kong's error log
    error: str | None  # why Kong went on without the plugin, or failed

    @classmethod
    def of(cls, exchange: Exchange, error: str | None) -> Trace:
        """What happened in this exchange's phase."""
        calls, lines = tuple(exchange.pdk_calls), tuple(exchange.lines)
        return cls(calls, exchange.round_trips, exchange.retries, lines, error)


class LogPhase:
    """The log phase, which runs after the answer went out."""

    def __init__(self) -> None:
        self.serialized: dict[str, Any] = {}  # what kong.log.serialize gives
        self._done = threading.Event()
        self._trace: Trace | None = None
        self._failure: BaseException | None = None

    def run(self, work: Callable[[], Trace], done: Callable[[Trace], None]) -> None:
        """Do it, in its own thread."""
        try:
            self._trace = work()
            done(self._trace)
        except BaseException as failure:  # noqa: BLE001 - the test is told by `wait`
            self._failure = failure
        finally:
            self._done.set()

    def wait(self, timeout: float = PATIENCE) -> Trace:
        """What the plugin server did in it. Raises what went wrong in the stand-in."""
        assert self._done.wait(timeout), "the log phase has not ended"
        if self._failure is not None:
            raise self._failure
        assert self._trace is not None
        return self._trace


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    verdict: Verdict
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    received: Received | None  # what the service got
    access: Trace
    worker: int
    log: LogPhase = field(default_factory=LogPhase, compare=False)

    @property
    def upstream(self) -> Received:
        """What the service got; fails the test when the request was not proxied."""
        assert self.received is not None, f"{self.verdict}: {self.status} {self.body!r}"
        return self.received

    @property
    def error(self) -> str | None:
        """Why the plugin was passed over, or the request failed. None when the plugin ran to its end."""
        return self.access.error

    @property
    def pdk_calls(self) -> tuple[str, ...]:
        """The PDK methods that the access phase called."""
        return self.access.pdk_calls

    def header(self, name: str) -> str | None:
        """A header that the client got; several copies are joined by a comma."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.body)
