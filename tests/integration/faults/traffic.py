"""Constant traffic through the gateway to one host, and what became of every request."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass

from tests.patience import PATIENCE
from tests.working import Working
from vaultauthz.demo.parts import wait_for

WORKERS = 3
PAUSE_SECONDS = 0.02
# It stops by itself, whatever happens to the one who started it.
MOST_REQUESTS = 20_000
MOST_SECONDS = 400
# So many answers in a row make a service that works.
IN_A_ROW = 10


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent and answered, the status (0: no answer) and our reason for a refusal."""

    at: float
    answered: float
    status: int
    reason: str


class Traffic(Working):
    """GET / from three threads, about a hundred requests a second, until it is left."""

    def __init__(self, port: int, host: str, workers: int = WORKERS) -> None:
        self._port, self._host = port, host
        self._asked: list[Asked] = []
        self._lock = threading.Lock()
        self._end = time.monotonic() + MOST_SECONDS
        super().__init__(threading.Thread(target=self._work, daemon=True) for _ in range(workers))

    def asked(self, since: float = 0.0, until: float = float("inf")) -> list[Asked]:
        """The requests sent in this time that have ended, in the order of their end."""
        with self._lock:
            return [a for a in self._asked if since <= a.at < until]

    def statuses(self, since: float = 0.0, until: float = float("inf")) -> Counter[int]:
        """How often each status was answered."""
        return Counter(a.status for a in self.asked(since, until))

    def reasons(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """How often each reason stood in a 503; the empty one is Envoy's own 503."""
        return Counter(a.reason for a in self.asked(since, until) if a.status == 503)

    def wait_for_200(self) -> None:
        """Until the last requests, all sent from now on, were answered 200."""
        began = time.monotonic()

        def works() -> bool:
            last = self.asked(since=began)[-IN_A_ROW:]
            return len(last) == IN_A_ROW and all(a.status == 200 for a in last)

        assert wait_for(works, PATIENCE), f"no {IN_A_ROW} answers in a row: {self.statuses(began)}"

    def wait_for_503(self, reason: str = "no_credential") -> None:
        """Until a request sent from now on was refused with this reason."""
        began = time.monotonic()
        assert wait_for(lambda: self.reasons(began)[reason] > 0, PATIENCE), (
            f"no 503 {reason}: {self.statuses(began)} {self.reasons(began)}"
        )

    def _work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        while (
            not self._stopped.wait(PAUSE_SECONDS)
            and time.monotonic() < self._end
            and len(self._asked) < MOST_REQUESTS
        ):
            at = time.monotonic()
            status, reason = self._ask(connection)
            with self._lock:
                self._asked.append(Asked(at, time.monotonic(), status, reason))
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> tuple[int, str]:
        try:
            connection.request("GET", "/", headers={"Host": self._host})
            response = connection.getresponse()
            return response.status, _reason(response.read())
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0, ""


def _reason(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("error", "")) if isinstance(document, dict) else ""
