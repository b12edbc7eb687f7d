"""A load on the stand-in for Kong, and what became of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from tests.contract.faults import wait_until
from tests.contract.kong import Answer, Kong, Received
from tests.working import Working

Right = Callable[[Received, str], bool]


def token(received: Received, name: str) -> bool:
    """Whether the service got the token of its name, and no other."""
    return received.values("authorization") == [f"Bearer {name}"]


class Load(Working):
    """Requests for all routes without a pause, while the context lasts.

    Each is to get what ``right`` says: a token that is its route's name. ``wrong`` are those that went on with
    another, or with none; ``others`` are those that did not go on.
    """

    def __init__(self, kong: Kong, threads: int = 8, right: Right = token) -> None:
        self._kong = kong
        self._right = right
        names = list(kong.routes)
        super().__init__(
            threading.Thread(target=self._run, args=(names[n % len(names)],))
            for n in range(threads)
        )
        self.verdicts: Counter[str] = Counter()
        self.wrong: list[Answer] = []
        self.others: list[Answer] = []
        self.proxied: list[str] = []  # their ids

    def _run(self, name: str) -> None:
        while not self._stopped.is_set():
            answer = self._kong.request("GET", f"/{name}", headers=[("Authorization", "mine")])
            self.verdicts[answer.verdict.value] += 1
            if answer.received is None:
                self.others.append(answer)
                continue
            self.proxied.append(answer.received.header("x-kong-request-id") or "")
            if not self._right(answer.received, name):
                self.wrong.append(answer)

    def see(self, count: int) -> None:
        """Until so many more have been proxied."""
        wanted = self.verdicts["proxied"] + count
        assert wait_until(lambda: self.verdicts["proxied"] >= wanted), self.verdicts
