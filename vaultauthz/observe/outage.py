"""Outages: of the audit log, of a credential, of a login; since when, why, and when they are over.

``EventLog`` tells the log of events, by the rules of ``Story``: a line for each start of an outage and
one for its end, with how long it was, and a line for each login, rotation, revocation and 401.

Lines of the audit log are not written, or not in time. For how long the oldest line has waited is
known without a time on each. Lines come out in the order in which they went in. So it is enough to
note, ten times a second, how many have gone in: the line with that number has waited since then at
the least. A check pays nothing for it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.core.grant import NOT_USED
from vaultauthz.core.history import History, News, Past, Tone
from vaultauthz.core.routing import StageUpstream

log = logging.getLogger(__name__)

LOOK: Final = 0.1  # seconds between two looks
# Seconds after which lines are overdue, by marks that may be one look younger than their line.
OVERDUE: Final = 1.0 - LOOK
# … and below which they are in time again: the writer is through.
IN_TIME: Final = 2.5 * LOOK
# Seconds between two looks of which one says nothing: we did not run, and nor did the writer.
_LATE: Final = 5 * LOOK


class Outage:
    """One outage after the other. It lasts while a write has failed, or lines wait for too long."""

    def __init__(self) -> None:
        self.failing = ""  # why the last write failed
        self.stalled = False  # lines wait for too long
        self.reason = ""  # why this one began, and when it is over for how long it was
        self._since: float | None = None

    def change(self, now: float, *, failing: str | None, stalled: bool | None) -> bool | None:
        """Take in what is so by now, None for what is as before; ``now`` in seconds.

        True when an outage begins by it, False when one ends, else None.
        """
        self.failing = self.failing if failing is None else failing
        self.stalled = self.stalled if stalled is None else stalled
        lasts = bool(self.failing) or self.stalled
        if lasts == (self._since is not None):
            return None
        if lasts:
            self._since, self.reason = now, self.failing or "a line has waited for a second"
        else:
            self.reason += f", for {now - (self._since or now):.1f} s"
            self._since = None
        return lasts


class QueueAge:
    """Told of two counters from time to time; ``age`` is what the last look found, in seconds."""

    def __init__(self) -> None:
        self.age = 0.0
        self._marks: deque[tuple[float, int]] = deque()  # when so many had gone in
        self._looked: float | None = None
        self._passed = False  # the last look said nothing

    def look(self, now: float, handed: int, written: int) -> None:
        """At ``now`` so many lines had been handed over since the start, and so many were written."""
        late = self._looked is not None and now - self._looked > _LATE
        self._looked = now
        while self._marks and self._marks[0][1] <= written:
            self._marks.popleft()
        if handed > (self._marks[-1][1] if self._marks else written):
            self._marks.append((now, handed))
        # A process that was frozen has its own first moment to write; but only one.
        self._passed = late and not self._passed
        if not self._passed:
            self.age = now - self._marks[0][0] if self._marks else 0.0

    def overdue(self, *, before: bool) -> bool:
        """Whether lines wait for too long; ``before``: whether they did at the last look."""
        return self.age > (IN_TIME if before else OVERDUE - 1e-9)


# --- credentials and logins --------------------------------------------------

_TONES: Final = {
    logging.INFO: Tone.NONE,
    logging.WARNING: Tone.WARN,
    logging.ERROR: Tone.BAD,
}
_MOST_LEASES: Final = 64  # of one credential, that are out of use and not revoked yet


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line for the log; ``fields`` are for programs."""

    level: int
    text: str
    fields: Mapping[str, Any]


@dataclass(slots=True)
class _Place:
    """What is known of a shared credential, or of a login."""

    lease_id: str = ""  # of what is in use
    credential_id: str = ""
    had: bool = False  # there has been one
    out_since: float | None = None  # there is none, although there should be
    failing_since: float | None = None  # calls to Vault for it do not work
    failed: int = 0  # so many of them
    reason: str = ""  # why the last did not
    # Why they are not used any more, of leases that are not revoked yet.
    left: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return bool(self.lease_id or self.credential_id)

    def uses(self, event: Event) -> bool:
        return self.holds and (self.lease_id, self.credential_id) == _names(event)

    def put_down(self, why: str) -> None:
        """What was in use is not any more."""
        if self.lease_id:
            if len(self.left) >= _MOST_LEASES:
                del self.left[next(iter(self.left))]
            self.left[self.lease_id] = why
        self.lease_id = self.credential_id = ""

    def well(self) -> None:
        self.out_since = self.failing_since = None
        self.failed, self.reason = 0, ""


class Story:
    """What the log is told of events; times are in seconds of one clock. Not safe for threads.

    ``own``: the (stage, upstream) whose callers have leases of their own. Of these there may be many
    a second, and no outage is made out of one caller's: they are told at the level debug.
    """

    def __init__(self, own: Collection[StageUpstream] = ()) -> None:
        self._own = frozenset(own)
        self._places: dict[StageUpstream, _Place] = {}
        self._rules: Mapping[str, Callable[[_Place, Event, float], LogLine | None]] = {
            **dict.fromkeys((events.ISSUED, events.ROTATED, events.LOGIN), self._came),
            **dict.fromkeys((events.RENEWED, events.TOKEN_RENEWED, events.RECOVERED), self._well),
            **dict.fromkeys((events.EXPIRED, events.LOST, events.TOKEN_LOST), self._ended),
            **dict.fromkeys((events.REVOKED, events.TOKEN_REVOKED), self._revoked),
            events.FAILED: self._failed,
            events.REJECTED: self._rejected,
        }

    def configured(self, known: Collection[StageUpstream], own: Collection[StageUpstream]) -> None:
        """Another configuration: no outage goes on of what is in it no more."""
        self._own = frozenset(own)
        there = {*known, *((stage, "") for stage, _ in known)}
        for name, place in list(self._places.items()):
            if name not in there:
                place.well()
                if not place.holds and not place.left:
                    del self._places[name]

    def line(self, event: Event, now: float) -> LogLine | None:
        """The line for it; None for what others tell, and for what is an outage's already."""
        if event.name in _ASKED:
            return _line(logging.INFO, _asked(event), event)
        rule = self._rules.get(event.name)
        if rule is None:
            return None
        if event.caller or self.own(event):
            whose = f", caller {event.caller}" if event.caller else ""
            return _line(logging.DEBUG, f"{_label(event)}{whose}: {_what(event)}", event)
        place = self._places.setdefault((event.stage, event.upstream), _Place())
        return rule(place, event, now)

    def own(self, event: Event) -> bool:
        """Whether it is of an upstream whose callers, or requests, have leases of their own."""
        return (event.stage, event.upstream) in self._own

    def _rejected(self, _place: _Place, event: Event, _now: float) -> LogLine:
        text = f"{_label(event)}: the upstream answered 401 to its credential, {_named(event)}"
        return _line(logging.WARNING, text, event)

    def _came(self, place: _Place, event: Event, now: float) -> LogLine:
        before, more = place.lease_id or place.credential_id, _after(place, now)
        if place.holds:
            place.put_down(f"replaced by {_named(event)}")
        place.lease_id, place.credential_id = _names(event)
        place.left.pop(place.lease_id, None)
        what = "logged in" if event.name == events.LOGIN else "has its credential"
        if place.out_since is not None:
            seconds = now - place.out_since
            after = "again after" if place.had else "after"
            again = f"{what} {after} {seconds:.1f} s{_failures(place)}"
            more["seconds"] = round(seconds, 3)
        elif before:
            what = "logged in anew" if event.name == events.LOGIN else "rotated"
            again = f"{what}{_recovery(place, now)}, in place of {before}"
        else:
            again = what
        place.had = True
        place.well()
        return _line(logging.INFO, f"{_label(event)}: {again}: {_named(event)}", event, **more)

    def _well(self, place: _Place, event: Event, now: float) -> LogLine:
        """Renewed, or read again."""
        if place.failing_since is None or not place.holds:
            return _line(logging.DEBUG, f"{_label(event)}: {_what(event)}", event)
        what = "read again" if event.name == events.RECOVERED else "renewed"
        text = f"{_label(event)}: {what}{_recovery(place, now)}; it was used all the time"
        more = _after(place, now)
        place.well()
        return _line(logging.INFO, text, event, **more)

    def _ended(self, place: _Place, event: Event, now: float) -> LogLine:
        if not place.uses(event):
            place.left.pop(event.lease_id, None)
            text = f"{_label(event)}: {_named(event)}, which was not used any more, has ended"
            return _line(logging.INFO, f"{text}: {event.reason}", event)
        why = (
            f"; Vault has given nothing for {now - place.failing_since:.1f} s: {place.reason}"
            if place.failing_since is not None
            else ""
        )
        place.put_down(event.reason)
        place.out_since = now
        login = event.name == events.TOKEN_LOST
        what = "the login token has" if login else "its credential has"
        then = "" if login else "; requests are answered 503 until there is another"
        text = f"{_label(event)}: {what} ended ({event.reason}){then}{why}"
        return _line(logging.ERROR, text, event)

    def _revoked(self, place: _Place, event: Event, _now: float) -> LogLine:
        why = place.left.pop(event.lease_id, "")
        if event.lease_id and event.lease_id == place.lease_id:
            place.put_down("")
            place.left.pop(event.lease_id)
        why = event.reason or why or "it is not needed any more"
        text = f"{_label(event)}: revoked {_named(event)}: {why}"
        return _line(logging.INFO, text, event, reason=why)

    def _failed(self, place: _Place, event: Event, now: float) -> LogLine | None:
        place.failed, place.reason = place.failed + 1, event.reason
        if place.failing_since is None:
            place.failing_since = now
        if place.holds and event.reason in NOT_USED:
            text = f"{_label(event)}: {event.reason}; what is in use is used on"
            return _line(logging.WARNING, text, event)
        if place.holds or place.out_since is not None:
            return None  # who makes the calls says why each has failed
        place.out_since = now
        what = "no credential" if event.upstream else "no login"
        then = "; requests are answered 503 until there is one" if event.upstream else ""
        return _line(logging.ERROR, f"{_label(event)}: {what}: {event.reason}{then}", event)


class EventLog:
    """Tells the log of events, by the rules of ``Story``; a Listener. Safe for threads."""

    def __init__(self, clock: Callable[[], float], own: Collection[StageUpstream] = ()) -> None:
        self._clock = clock
        self._story = Story(own)
        self._history = History()
        self._lock = threading.Lock()

    def configured(self, known: Collection[StageUpstream], own: Collection[StageUpstream]) -> None:
        """Take over another configuration."""
        with self._lock:
            self._story.configured(known, own)
            self._history.configured(known)

    def record_event(self, event: Event) -> None:
        """Write its line, if it has one, and keep it for whoever looks."""
        with self._lock:
            now = self._clock()
            line = self._story.line(event, now)
            told = line if line and line.level > logging.DEBUG else None
            own = self._story.own(event)
            if told:
                self._history.take(event, now, told.text, _TONES[told.level], own=own)
            else:
                self._history.take(event, now, own=own)
        if line:
            log.log(line.level, "%s", line.text, extra={"fields": line.fields})

    def shown(self, leases: Iterable[tuple[str, str, str]]) -> tuple[list[Past | None], list[News]]:
        """The pasts of some leases or logins (stage, upstream or "", caller), and the news."""
        with self._lock:
            pasts = [self._history.past(*lease) for lease in leases]
            return [past and past.copy() for past in pasts], self._history.news()


_ASKED: Final = {events.ROTATE_ASKED: "rotate", events.REVOKE_ASKED: "revoke"}


def _asked(event: Event) -> str:
    why = f": {event.reason}" if event.reason else ""
    return f"{_label(event)}: {event.caller} asked for {_ASKED[event.name]}{why}"


def _label(event: Event) -> str:
    """As those name it who make its calls."""
    if event.upstream:
        return f"upstream {event.upstream}, stage {event.stage}"
    return f"login of stage {event.stage}"


def _names(event: Event) -> tuple[str, str]:
    return event.lease_id, event.credential_id


def _named(event: Event) -> str:
    if not event.upstream:
        return f"token of accessor {event.lease_id}"
    return f"lease {event.lease_id}" if event.lease_id else f"credential {event.credential_id}"


def _what(event: Event) -> str:
    why = f": {event.reason}" if event.reason else ""
    named = f", {_named(event)}" if event.lease_id or event.credential_id else ""
    return f"{event.name}{named}{why}"


def _failures(place: _Place) -> str:
    calls = "call" if place.failed == 1 else "calls"
    return f", {place.failed} {calls} to Vault failed" if place.failed else ""


def _recovery(place: _Place, now: float) -> str:
    if place.failing_since is None:
        return ""
    return f" after {now - place.failing_since:.1f} s{_failures(place)}"


def _after(place: _Place, now: float) -> dict[str, Any]:
    if place.failing_since is None:
        return {}
    return {"seconds": round(now - place.failing_since, 3), "failed_calls": place.failed}


def _line(level: int, text: str, event: Event, **more: Any) -> LogLine:
    fields = {
        "event": event.name,
        "stage": event.stage,
        "upstream": event.upstream,
        "lease_id": event.lease_id,
        "credential_id": event.credential_id,
        "caller": event.caller,
        "vault_request_id": event.vault_request_id,
        "reason": event.reason,
    }
    return LogLine(level, text, {**fields, **more})
