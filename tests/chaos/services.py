"""The services behind the gateway: each asks PostgreSQL about every login that it is given."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from tests.chaos.plan import Place
from vaultauthz.demo.parts import Postgres
from vaultauthz.demo.parts.upstreams import Answer, Seen, Service

TRACE = "x-trace"
_AT_ONCE = 8  # logins
_NO_LOGIN = ("password authentication failed", "is not permitted to log in", "does not exist")
# A session that was ended under a request, as the revocation of its role does, and PostgreSQL's own stop;
# one that was not let in yet is ended without a word.
CUT = "terminating connection"
_CUT = (CUT, "server closed the connection")


@dataclass(frozen=True)
class Use:
    """A request as it reached a service. ``good``: what was said of the credential; None: nobody answered."""

    place: Place
    trace: str
    credential: str
    at: float
    answered: float
    good: bool | None
    why: str = ""


Note = Callable[[Use], object]


def database(place: Place, postgres: Postgres, note: Note, room: threading.Semaphore) -> Service:
    """Logs in to PostgreSQL with the one Basic login that it is given: 200, 401, or 502 if nobody answers."""

    def answer(seen: Seen) -> Answer:
        at, login = time.monotonic(), seen.basic()
        trace = next(iter(seen.all(TRACE)), "")
        if login is None:
            note(Use(place, trace, "", at, at, good=False, why="no login, or two"))
            return 401, {"error": "no login"}
        try:
            with room, postgres.connect(*login) as session:
                session.execute("SELECT 1")
            good: bool | None = True
            why = ""
        except psycopg.Error as error:
            good, why = _refusal(str(error))
        note(Use(place, trace, login[0], at, time.monotonic(), good, why))
        return {True: 200, False: 401, None: 502}[good], {"place": place.name}

    return answer


def _refusal(text: str) -> tuple[bool | None, str]:
    """What PostgreSQL's words say of the credential."""
    why = text.strip().splitlines()[-1].rpartition("FATAL:  ")[2].strip()
    if any(part in text for part in _CUT):
        return False, f"{CUT}: {why}"
    return (False if any(part in why for part in _NO_LOGIN) else None), why


def keyed(place: Place, known: Callable[[str], bool], note: Note) -> Service:
    """Takes one X-Api-Key that somebody has made."""

    def answer(seen: Seen) -> Answer:
        at, keys = time.monotonic(), seen.all("x-api-key")
        key = keys[0] if len(keys) == 1 else ""
        good = known(key)
        trace = next(iter(seen.all(TRACE)), "")
        note(Use(place, trace, key, at, at, good, "" if good else "no key, two, or an unknown one"))
        return 200 if good else 401, {"place": place.name}

    return answer


def room() -> threading.Semaphore:
    """For so many logins at once."""
    return threading.Semaphore(_AT_ONCE)


numbers = itertools.count(1)
