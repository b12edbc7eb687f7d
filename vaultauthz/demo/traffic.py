"""Constant traffic: a few threads that ask again and again and note every answer."""

import http.client
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vaultauthz.demo.client import OK, Client

WORKERS = 3
PAUSE_SECONDS = 0.03
# It stops by itself, whatever happens to the one who started it.
MOST_REQUESTS = 6000
MOST_SECONDS = 60


class Traffic:
    """GET / from three threads, about a hundred requests a second, until it is left, or after 6000 requests or 60 s.

    `users` holds the database users that answered, in the order of their first answer; `failures` says what went wrong.
    """

    def __init__(self, client: Callable[[], Client]) -> None:
        self.users: list[str] = []
        self.failures: list[str] = []
        self.answered = 0
        self._client = client
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._end = time.monotonic() + MOST_SECONDS
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(WORKERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        client = self._client()
        while (
            not self._stopped.wait(PAUSE_SECONDS)
            and time.monotonic() < self._end
            and self.answered < MOST_REQUESTS
        ):
            try:
                reply = client.get()
            except (OSError, http.client.HTTPException) as error:
                self._note("", f"{type(error).__name__}: {error}")
            else:
                failure = "" if reply.status == OK else f"{reply.status} {reply.error}".rstrip()
                self._note(str(reply.body.get("current_user", "")), failure)
        client.close()

    def _note(self, user: str, failure: str) -> None:
        with self._lock:
            self.answered += 1
            if failure:
                self.failures.append(failure)
            elif user not in self.users:
                self.users.append(user)
