"""What Vault has granted and until when, and every use of it after that.

A request takes its time from our answer to its service, on a busy machine any time. So what is
judged is our answer: the audit log has its time, by the request's id. A use is dead if we gave
the credential out after its end; if before, the two have crossed on the way.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.integration.faults.vault_proxy import Kind, Reply


@dataclass(frozen=True)
class Use:
    """A credential that had ended when it arrived at its service, or when that let it in."""

    at: float  # when it was given out, if that is known, or when it arrived
    credential: str
    why: str
    request: str = ""
    end: float | None = None  # None: it was refused although it had not ended


class Ledger:
    """The database users that OpenBao made, the end of each lease by OpenBao's own word, and the dead uses."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()  # what no log may hold
        self.dead: list[Use] = []  # as of the last `judge`, as `crossed` is
        self.crossed: list[Use] = []  # the lease ended while the request was on its way
        self.cut: list[Use] = []  # the session was ended while the request was answered
        self._late: list[Use] = []
        self._lock = threading.Lock()
        self._users: dict[str, str] = {}  # by lease
        self._ends: dict[str, float] = {}  # by user

    @property
    def minted(self) -> int:
        """How many database users OpenBao made."""
        return len(self._ends)

    def heard(self, asked: float, kind: Kind, reply: Reply) -> None:
        """Take in an answer of OpenBao's to a call that came at ``asked``: no lease ends earlier than from then."""
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
            self._ends[user] = asked + answer["lease_duration"]

    def arrived(self, at: float, request: str, user: str) -> None:
        """A request came with this user; it is late if its lease has ended, whatever PostgreSQL says."""
        with self._lock:
            end = self._ends.get(user, 0.0)
            if at > end:
                self._late.append(Use(at, user, "used after its lease's end", request, end))

    def refused(
        self, at: float, request: str, credential: str, why: str, *, end: float | None = None
    ) -> bool:
        """A credential that came at ``at`` is refused by now; whether it has ended, as far as is known."""
        with self._lock:
            known = self._ends.get(credential) if end is None else end
            over = known is not None and known <= time.monotonic()
            self._late.append(Use(at, credential, why, request, known if over else None))
            return over

    def was_cut(self, at: float, request: str, user: str, why: str) -> bool:
        """A session was ended under a request; whether its lease has ended."""
        with self._lock:
            end = self._ends.get(user)
            if end is None or end > time.monotonic():
                self.cut.append(Use(at, user, why, request))
                return False
            self._late.append(Use(at, user, why, request, end))
            return True

    @property
    def wanted(self) -> set[str]:
        """The requests whose answer is to be known before it can be judged."""
        with self._lock:
            return {use.request for use in self._late if use.end is not None}

    def judge(self, given: Mapping[str, float]) -> None:
        """Tell the dead from those that crossed, by when we answered each request."""
        with self._lock:
            late = {(use.request, use.credential): use for use in reversed(self._late)}
        known = [replace(use, at=given.get(use.request, use.at)) for use in late.values()]
        self.crossed = [use for use in known if use.end is not None and use.at <= use.end]
        self.dead = sorted(
            (use for use in known if use not in self.crossed), key=lambda use: use.at
        )
