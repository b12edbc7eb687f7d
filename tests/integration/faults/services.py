"""The two services behind the gateway, which know exactly what they must refuse."""

from __future__ import annotations

import threading
import time

import psycopg

from tests.integration.faults.ledger import Ledger
from vaultauthz.demo.parts import Postgres
from vaultauthz.demo.parts.upstreams import Answer, Seen, Service

# What PostgreSQL says of a login that it knows no more, or lets in no more.
_NO_LOGIN = ("password authentication failed", "is not permitted to log in", "does not exist")
# Instead of 401, when the lease ended between the check and the login.
CROSSED = 410
_ENDED = ("57P01", "42501")  # admin_shutdown; insufficient_privilege: its grants are gone


def reports(postgres: Postgres, ledger: Ledger) -> Service:
    """Opens a PostgreSQL session with the Basic login; 401 if PostgreSQL refuses it, 502 if it is not there."""

    def answer(seen: Seen) -> Answer:
        at, login, request = time.monotonic(), seen.basic(), _request(seen)
        if login is None:
            ledger.refused(at, request, "", "no login at all")
            return 401, {"error": "no login"}
        ledger.arrived(at, request, login[0])
        try:
            with postgres.connect(*login) as session:
                user = session.execute("SELECT current_user FROM reports LIMIT 1").fetchone()
        except psycopg.Error as error:
            return _refusal(ledger, at, request, login[0], error)
        return 200, {"current_user": user[0] if user else ""}

    return answer


def _request(seen: Seen) -> str:
    """The id that Envoy has given it and that stands in our audit log."""
    return (seen.all("x-request-id") or [""])[0]


def _refusal(ledger: Ledger, at: float, request: str, user: str, error: psycopg.Error) -> Answer:
    text = str(error)
    why = text.strip().splitlines()[-1].rpartition("FATAL:  ")[2]
    if any(part in text for part in _NO_LOGIN):
        crossed = ledger.refused(at, request, user, why)
        return CROSSED if crossed else 401, {"error": "PostgreSQL refuses this login"}
    if error.sqlstate in _ENDED and ledger.was_cut(at, request, user, why):
        return CROSSED, {"error": "PostgreSQL ended the session"}
    return 502, {"error": "PostgreSQL does not answer"}


class Geocoder:
    """Takes one X-Api-Key; each key is good from ``add`` to ``retire``."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._retired: dict[str, float] = {}
        self.uses: dict[str, int] = {}  # by key, also those refused

    def add(self, key: str) -> None:
        """A key that is good from now on."""
        self._ledger.secrets.add(key)
        with self._lock:
            self._retired[key] = float("inf")

    def retire(self, key: str, at: float | None = None) -> None:
        """The key is no good any more, from now or the given time on."""
        with self._lock:
            self._retired[key] = time.monotonic() if at is None else at

    def answer(self, seen: Seen) -> Answer:
        """200 with the key's name, or 401."""
        at, keys = time.monotonic(), seen.all("x-api-key")
        key = keys[0] if len(keys) == 1 else ""
        with self._lock:
            end = self._retired.get(key)
            good = end is not None and at < end
            self.uses[key] = self.uses.get(key, 0) + 1
        if not good:
            self._ledger.refused(
                at, _request(seen), key, "a key that is not good (any more)", end=end
            )
            return 401, {"error": "no valid key"}
        return 200, {"key": key}
