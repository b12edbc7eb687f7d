"""Steady requests through the gateway, by several callers, each with its own certificate."""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.chaos.plan import Place
from tests.chaos.services import TRACE, numbers
from tests.working import Working

CLIENT_SECONDS = 12.0
_THREADS_EACH = 2  # for each caller


@dataclass(frozen=True)
class Asked:
    """A request and what the client got; status 0: no answer."""

    trace: str
    place: Place
    caller: str
    sent: float
    answered: float
    status: int
    reason: str


class Traffic(Working):
    """``rate`` requests a second in all, while it is entered. ``note`` is told of each, ``begun`` when it is sent."""

    def __init__(
        self,
        port: int,
        places: Sequence[Place],
        callers: dict[str, ssl.SSLContext],
        *,
        rate: float,
        begun: Callable[[str, float, str], object],
        note: Callable[[Asked], object],
    ) -> None:
        self._port, self._places, self._callers = port, places, callers
        self._begun, self._note = begun, note
        self._pause = len(callers) * _THREADS_EACH / rate
        super().__init__(
            threading.Thread(target=self._work, args=(caller, number), daemon=True)
            for caller in callers
            for number in range(_THREADS_EACH)
        )

    def _work(self, caller: str, number: int) -> None:
        connection = _Gateway(self._port, self._callers[caller])
        chance = random.Random(f"{caller}{number}")
        next_at = time.monotonic() + chance.uniform(0, self._pause)
        while not self._stopped.wait(max(0.0, next_at - time.monotonic())):
            # Late ones are not made up for: after a stop there is no flood.
            next_at = max(next_at + self._pause, time.monotonic())
            place, trace = chance.choice(self._places), str(next(numbers))
            sent = time.monotonic()
            self._begun(trace, sent, caller)
            status, reason = self._ask(connection, place, trace, own=chance.random() < 0.2)
            self._note(Asked(trace, place, caller, sent, time.monotonic(), status, reason))
        connection.close()

    def _ask(self, connection: _Gateway, place: Place, trace: str, *, own: bool) -> tuple[int, str]:
        headers = {"Host": f"{place.name}.test", TRACE: trace}
        if own:  # a client's own, which must not get through
            headers |= {"Authorization": "Basic b3duOm93bg==", "X-Api-Key": "own"}
        try:
            connection.request("GET", "/", headers=headers)
            response = connection.getresponse()
            return response.status, _reason(response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return 0, type(error).__name__


class _Gateway(http.client.HTTPSConnection):
    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__("localhost", port, timeout=CLIENT_SECONDS, context=context)
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), CLIENT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(plain, server_hostname="localhost")


def _reason(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("error", "")) if isinstance(document, dict) else ""
