"""What Vault has granted and until when, and every use of it after that."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass

from tests.integration.faults.vault_proxy import Kind, Reply

# A request that was checked while its credential was good may arrive this much later.
ON_ITS_WAY = 0.25


@dataclass(frozen=True)
class Use:
    """A credential that had ended when it arrived at its service."""

    at: float
    credential: str
    why: str


class Ledger:
    """The database users that OpenBao made, the end of each lease by OpenBao's own word, and the dead uses."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()  # what no log may hold
        self.dead: list[Use] = []
        self.crossed: list[Use] = []  # the lease ended while the request was on its way
        self.cut: list[Use] = []  # the session was ended while the request was answered
        self._lock = threading.Lock()
        self._users: dict[str, str] = {}  # by lease
        self._ends: dict[str, float] = {}  # by user

    @property
    def minted(self) -> int:
        """How many database users OpenBao made."""
        return len(self._ends)

    def heard(self, kind: Kind, reply: Reply) -> None:
        """Take in an answer of OpenBao's, in the moment it is given."""
        if kind not in (Kind.LOGIN, Kind.ISSUE, Kind.RENEW) or reply.status != 200:
            return
        answer = json.loads(reply.body)
        if kind is Kind.LOGIN:
            self.secrets.add(answer["auth"]["client_token"])
            return
        with self._lock:
            if kind is Kind.ISSUE:
                self._users[answer["lease_id"]] = answer["data"]["username"]
                self.secrets.add(answer["data"]["password"])
            user = self._users[answer["lease_id"]]
            self._ends[user] = time.monotonic() + answer["lease_duration"]

    def arrived(self, at: float, user: str) -> None:
        """A request came with this user; it is dead if its lease has ended, whatever PostgreSQL says."""
        with self._lock:
            end = self._ends.get(user, 0.0)
            if at > end + ON_ITS_WAY:
                self.dead.append(Use(at, user, f"used {at - end:.2f} s after its lease's end"))

    def refused(self, at: float, credential: str, why: str) -> bool:
        """A credential that came at this time is refused; whether its lease ended while it was on its way."""
        with self._lock:
            if self._crosses(at, credential, why):
                return True
            if not any(use.at == at for use in self.dead):
                self.dead.append(Use(at, credential, why))
            return False

    def was_cut(self, at: float, user: str, why: str) -> bool:
        """A session was ended under a request; whether its lease ended in that moment."""
        with self._lock:
            crossed = self._crosses(at, user, why)
            if not crossed:
                self.cut.append(Use(at, user, why))
            return crossed

    def _crosses(self, at: float, credential: str, why: str) -> bool:
        end = self._ends.get(credential)
        if end is None or abs(at - end) > ON_ITS_WAY:
            return False
        self.crossed.append(Use(at, credential, f"{at - end:+.3f} s from its end: {why}"))
        return True
