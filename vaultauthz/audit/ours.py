"""What our own log says about each credential: issued, used by whom, ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from vaultauthz.audit.files import Log, line_of_ours, text_of
from vaultauthz.audit.wanted import Wanted, time_of
from vaultauthz.core import events
from vaultauthz.observe.record import REQUEST_ALLOWED, REQUEST_DENIED

Place = tuple[str, str, str]  # stage, upstream, credential_id

_ISSUED: Final = (events.ISSUED, events.ROTATED)
_ENDED: Final = (events.REVOKED, events.EXPIRED, events.LOST)
_TOKEN_ENDED: Final = (events.TOKEN_REVOKED, events.TOKEN_LOST)
# Seconds after its end in which a use is no finding: the line of a request has the time of
# its check or of its arrival at Envoy, by a clock that may be another machine's.
_SLACK: Final = 2.0
MOST_REQUESTS: Final = 20  # that are told whole


@dataclass(frozen=True, slots=True)
class OurCall:
    """A line of ours about a call to Vault."""

    event: str
    time: str
    stage: str
    upstream: str


@dataclass(frozen=True, slots=True)
class Issue:
    """When Vault issued a credential, by which request; "" where our log does not say."""

    time: str = ""
    vault_request: str = ""
    lease_id: str = ""


@dataclass(slots=True)
class Credential:
    """One credential, of one upstream in one stage. Times are as in the log."""

    place: Place
    issues: list[Issue] = field(default_factory=list)  # several of a static one that came again
    renewed: int = 0
    end: str = ""  # the event
    ended: str = ""
    uses: int = 0  # of those that are wanted
    callers: set[str] = field(default_factory=set)
    first: str = ""
    last: str = ""
    late: int = 0  # uses after its end

    @property
    def issued(self) -> Issue:
        """The latest."""
        return self.issues[-1] if self.issues else Issue()

    def issued_for(self, when: str) -> Issue:
        """That which a request of this time used."""
        before = [one for one in self.issues if one.time <= when]
        return before[-1] if before else Issue()

    def issue(self, record: dict[str, Any]) -> None:
        """It is there; a static one may come again after it was lost."""
        keys = ("time", "vault_request_id", "lease_id")
        self.issues.append(Issue(*(text_of(record, key) for key in keys)))
        self.end = self.ended = ""

    def use(self, record: dict[str, Any]) -> None:
        """A request went on with it."""
        when = text_of(record, "time")
        self.uses += 1
        if caller := text_of(record, "caller"):
            self.callers.add(caller)
        self.first = min(self.first or when, when)
        self.last = max(self.last, when)
        if self.ended and is_after(when, self.ended):
            self.late += 1


@dataclass(slots=True)
class Ours:
    """A log, read."""

    credentials: dict[Place, Credential] = field(default_factory=dict)
    calls: dict[str, OurCall] = field(default_factory=dict)  # by Vault's request id
    logins: dict[str, str] = field(default_factory=dict)  # the same to the token's accessor
    tokens_ended: dict[str, tuple[str, str]] = field(default_factory=dict)  # by accessor
    leases: set[str] = field(default_factory=set)  # and accessors, whatever happened to them
    requests: list[dict[str, Any]] = field(default_factory=list)  # the first that were asked for
    asked: int = 0  # how many were
    begins: str = ""
    ends: str = ""
    nameless: int = 0  # requests that went on with a credential that is not known
    unreadable: int = 0


def read(log: Log, wanted: Wanted) -> Ours:
    """Read it once; ``wanted`` says which requests count as uses.

    Raises:
        LogError: a file cannot be read, or there is no line of ours.
    """
    ours = Ours()
    for line in log:
        record = line_of_ours(line)
        if record is None:
            ours.unreadable += 1
        else:
            _add(ours, record, wanted)
    if ours.unreadable == log.count:
        raise log.nothing_of_ours()
    return ours


def is_after(when: str, end: str) -> bool:
    """Whether a line's time is surely after another's."""
    then, ended = time_of({"time": when}), time_of({"time": end})
    return then is not None and ended is not None and (then - ended).total_seconds() > _SLACK


def _add(ours: Ours, record: dict[str, Any], wanted: Wanted) -> None:
    event = text_of(record, "event")
    if event in (REQUEST_ALLOWED, REQUEST_DENIED):
        _add_request(ours, record, wanted)
        return
    # Not by those of requests: their times are the requests' own.
    when, call = text_of(record, "time"), text_of(record, "vault_request_id")
    if time_of(record):
        ours.begins = min(ours.begins or when, when)
        ours.ends = max(ours.ends, when)
    ours.leases.add(text_of(record, "lease_id"))
    if call:
        made = OurCall(event, when, text_of(record, "stage"), text_of(record, "upstream"))
        ours.calls[call] = made
    if event == events.LOGIN:
        ours.logins[call] = text_of(record, "lease_id")
    elif event in _TOKEN_ENDED:
        ours.tokens_ended[text_of(record, "lease_id")] = (event, when)
    elif text_of(record, "credential_id"):
        _add_change(ours, record, event)


def _add_request(ours: Ours, record: dict[str, Any], wanted: Wanted) -> None:
    if not wanted.takes(record):
        return
    ours.asked += 1
    if wanted.request and len(ours.requests) < MOST_REQUESTS:
        ours.requests.append(record)
    if record["event"] != REQUEST_ALLOWED:
        return
    if text_of(record, "credential_id"):
        _credential(ours, record).use(record)
    else:
        ours.nameless += 1


def _add_change(ours: Ours, record: dict[str, Any], event: str) -> None:
    if event in _ISSUED:
        _credential(ours, record).issue(record)
    elif event == events.RENEWED:
        _credential(ours, record).renewed += 1
    elif event in _ENDED:
        found = _credential(ours, record)
        if text_of(record, "caller") and not text_of(record, "lease_id"):
            return  # of one caller's reading of a static secret, which others have under the same name
        # That it was given back in the end says less than why it was no good any more.
        if not found.end:
            found.end, found.ended = event, text_of(record, "time")


def _credential(ours: Ours, record: dict[str, Any]) -> Credential:
    place = (
        text_of(record, "stage"),
        text_of(record, "upstream"),
        text_of(record, "credential_id"),
    )
    found = ours.credentials.get(place)
    if found is None:
        found = ours.credentials[place] = Credential(place)
    return found
