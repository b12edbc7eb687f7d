"""What has lately happened, for whoever looks at a server that runs: to each lease and login, and the news.

Kept where events pass by, never on a check's way, and bounded whatever happens: a lease has ``MARKS``
of its own, callers with leases of their own are forgotten oldest first, and of the news the last few
hundred stay. What is routine (a renewal, what Envoy is handed) has room of its own, so that a thousand
renewals do not push the one outage out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import Final, NamedTuple

from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.core.routing import StageUpstream

MARKS: Final = 12  # of one lease or login
CALLERS: Final = 1000  # with a lease of their own, whose marks are kept
NEWS: Final = 300
ROUTINE: Final = 100
_LONGEST: Final = 400  # characters of one sentence: names in it are a client's

_CAME: Final = frozenset((events.ISSUED, events.ROTATED, events.LOGIN))
_WELL: Final = frozenset((events.RENEWED, events.TOKEN_RENEWED, events.RECOVERED))
_ENDED: Final = frozenset((events.EXPIRED, events.LOST, events.TOKEN_LOST))
_MARKED: Final = frozenset((*_CAME, *_WELL, *_ENDED, events.FAILED, events.REJECTED))
_ROUTINE: Final = frozenset(
    # … and what fails again, after its outage has been told of.
    (
        events.RENEWED,
        events.TOKEN_RENEWED,
        events.SDS_DELIVERED,
        events.SDS_WITHDRAWN,
        events.FAILED,
    )
)

# By an operator, for whoever's leases.
_ASKED: Final = frozenset((events.ROTATE_ASKED, events.REVOKE_ASKED))

# Of what the log has no line for, or one that nobody sees.
_SENTENCES: Final = {
    events.RENEWED: "renewed",
    events.TOKEN_RENEWED: "the login token is renewed",
    events.RECOVERED: "read again",
    events.NOT_REVOKED: "a lease could not be revoked, which is tried again",
    events.TOKEN_NOT_REVOKED: "a login token could not be revoked, which is tried again",
    events.TOKEN_LEFT: "the login token is left to lapse",
    events.FAILED: "a call to Vault did not work",
    events.RELOADED: "the configuration was read again",
    events.SDS_DELIVERED: "handed to Envoy by SDS",
    events.SDS_WITHDRAWN: "withdrawn from Envoy by SDS",
    events.SDS_REFUSED: "not taken by Envoy, which uses the one before",
    events.AUDIT_DROPPED: "lines of the audit log are missing",
    events.AUDIT_TORN: "an unfinished line stands in the audit log",
    events.CLIENT_REFUSED: "a client that may not ask was turned away",
}
_WARNINGS: Final = frozenset(
    (
        events.NOT_REVOKED,
        events.TOKEN_NOT_REVOKED,
        events.FAILED,
        events.SDS_REFUSED,
        events.AUDIT_DROPPED,
        events.CLIENT_REFUSED,
    )
)


class Tone(StrEnum):
    """How good what is told is; the worst comes first."""

    BAD = "bad"
    WARN = "warn"
    NONE = "none"
    GOOD = "good"


class Mark(NamedTuple):
    """One thing that happened to a lease, ``times`` in a row; ``at`` is when it began, in seconds."""

    at: float
    name: str
    reason: str = ""
    times: int = 1


@dataclass(slots=True)
class Past:
    """What is known of one credential's or login's past; times are in seconds of the events' clock."""

    marks: list[Mark] = field(default_factory=list)  # the oldest first
    failing_since: float | None = None  # calls to Vault for it have not worked since then
    out_since: float | None = None  # there is none, although there should be
    in_use: tuple[str, str] = ("", "")

    def copy(self) -> Past:
        """As it stands, for another thread."""
        return replace(self, marks=[*self.marks])

    def take(self, event: Event, now: float) -> None:
        """Something happened to it."""
        names, name = (event.lease_id, event.credential_id), event.name
        if name in _CAME:
            self.in_use = names
        if name in _CAME or name in _WELL:
            self.failing_since = self.out_since = None
        elif name == events.FAILED:
            self.failing_since = now if self.failing_since is None else self.failing_since
            if self.in_use == ("", "") and self.out_since is None:
                self.out_since = now
        elif name in _ENDED:
            if names != self.in_use:
                return  # one that was not used any more
            self.in_use, self.out_since = ("", ""), now
        before = self.marks[-1] if self.marks else None
        if before and name == before.name == events.FAILED:
            self.marks[-1] = before._replace(reason=event.reason, times=before.times + 1)
        else:
            self.marks.append(Mark(now, name, event.reason))
            del self.marks[:-MARKS]


class News(NamedTuple):
    """One thing that happened, as a sentence; ``number`` counts from 1 and never repeats."""

    number: int
    at: float
    tone: Tone
    text: str
    event: Event
    routine: bool


class History:
    """Takes events in, with the time in seconds of one clock. Not safe for threads."""

    def __init__(self) -> None:
        self._shared: dict[StageUpstream, Past] = {}
        self._callers: OrderedDict[tuple[str, str, str], Past] = OrderedDict()
        self._numbers = count(1)
        self._news: deque[News] = deque(maxlen=NEWS)
        self._routine: deque[News] = deque(maxlen=ROUTINE)

    def take(
        self,
        event: Event,
        now: float,
        text: str = "",
        tone: Tone | None = None,
        *,
        own: bool = False,
    ) -> None:
        """An event; ``text`` and ``tone`` are what the log says of it, if anything.

        ``own``: of a place where callers, or requests, have leases of their own.
        """
        if event.name in _MARKED:
            past = self._past(event, own=own)
            if past is not None:
                past.take(event, now)
        # The caller of an event that is no lease's is an Envoy, or a client.
        routine = own or bool(event.caller and event.name in _MARKED)
        routine |= not text and event.name in _ROUTINE  # what the log tells of is news
        routine &= event.name not in _ASKED
        news = News(
            next(self._numbers),
            now,
            tone or (Tone.WARN if event.name in _WARNINGS else Tone.NONE),
            _cut(text or _sentence(event)),
            event,
            routine,
        )
        (self._routine if routine else self._news).append(news)

    def _past(self, event: Event, *, own: bool) -> Past | None:
        if event.caller:
            key = (event.stage, event.upstream, event.caller)
            past = self._callers.pop(key, None) or Past()
            self._callers[key] = past
            if len(self._callers) > CALLERS:
                self._callers.popitem(last=False)
            return past
        if own:
            return None  # a request's own: it has no past
        return self._shared.setdefault((event.stage, event.upstream), Past())

    def past(self, stage: str, upstream: str, caller: str = "") -> Past | None:
        """Of a lease, or of a login, whose upstream is ""; None where nothing is known."""
        if caller:
            return self._callers.get((stage, upstream, caller))
        return self._shared.get((stage, upstream))

    def news(self) -> list[News]:
        """The newest first, those of routine among them."""
        return sorted((*self._news, *self._routine), reverse=True, key=lambda news: news.number)

    def configured(self, known: Collection[StageUpstream]) -> None:
        """Another configuration: what is in it no more has no past."""
        there = {*known, *((stage, "") for stage, _ in known)}
        for place in [place for place in self._shared if place not in there]:
            del self._shared[place]
        for key in [key for key in self._callers if key[:2] not in there]:
            del self._callers[key]


def _sentence(event: Event) -> str:
    what = _SENTENCES.get(event.name, event.name)
    where = ""
    if event.upstream:
        where = f"upstream {event.upstream}, stage {event.stage}: "
    elif event.stage:
        where = f"login of stage {event.stage}: "
    whose = f" ({event.caller})" if event.caller else ""
    why = f": {event.reason}" if event.reason else ""
    return f"{where}{what}{whose}{why}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
