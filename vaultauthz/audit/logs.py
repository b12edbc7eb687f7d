"""The two logs, read: what ours says about each credential, and what Vault's (or OpenBao's) about a call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from vaultauthz.audit.files import (
    Log,
    LogError,
    Selection,
    line_of_ours,
    part_of,
    record_of,
    text_of,
    time_of,
)
from vaultauthz.core import events
from vaultauthz.observe.record import REQUEST_ALLOWED, REQUEST_DENIED

CredentialKey = tuple[str, str, str]  # stage, upstream, credential_id

_ISSUED: Final = (events.ISSUED, events.ROTATED)
_ENDED: Final = (events.REVOKED, events.EXPIRED, events.LOST)
_TOKEN_ENDED: Final = (events.TOKEN_REVOKED, events.TOKEN_LOST)
# Seconds after its end in which a use is no finding: the line of a request has the time of
# its check or of its arrival at Envoy, by a clock that may be another machine's.
_SLACK: Final = 2.0
MOST_REQUESTS: Final = 20  # that are told whole
# Of the two entries for each call the one that has the answer. Without a space, as Vault writes it; a log
# that something else wrote anew may have one.
_RESPONSE: Final = (b'"type":"response"', b'"type": "response"')
_NO_TIME: Final = 1  # the year of a time that Go has not set
_OWN_LINE: Final = b'Z","seq":'  # after the time


@dataclass(frozen=True, slots=True)
class OwnCall:
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
class CredentialUse:
    """One credential, of one upstream in one stage. Times are as in the log."""

    key: CredentialKey
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
class OwnLog:
    """A log, read."""

    credentials: dict[CredentialKey, CredentialUse] = field(default_factory=dict)
    calls: dict[str, OwnCall] = field(default_factory=dict)  # by Vault's request id
    logins: dict[str, str] = field(default_factory=dict)  # the same to the token's accessor
    tokens_ended: dict[str, tuple[str, str]] = field(default_factory=dict)  # by accessor
    leases: set[str] = field(default_factory=set)  # and accessors, whatever happened to them
    requests: list[dict[str, Any]] = field(default_factory=list)  # the first that were asked for
    asked: int = 0  # how many were
    begins: str = ""
    ends: str = ""
    nameless: int = 0  # requests that went on with a credential that is not known
    unreadable: int = 0


def read_own(log: Log, selection: Selection) -> OwnLog:
    """Read it once; ``selection`` says which requests count as uses.

    Raises:
        LogError: a file cannot be read, or there is no line of ours.
    """
    own = OwnLog()
    for line in log:
        record = line_of_ours(line)
        if record is None:
            own.unreadable += 1
        else:
            _add(own, record, selection)
    if own.unreadable == log.count:
        raise log.nothing_of_ours()
    return own


def is_after(when: str, end: str) -> bool:
    """Whether a line's time is surely after another's."""
    then, ended = time_of({"time": when}), time_of({"time": end})
    return then is not None and ended is not None and (then - ended).total_seconds() > _SLACK


def _add(own: OwnLog, record: dict[str, Any], selection: Selection) -> None:
    event = text_of(record, "event")
    if event in (REQUEST_ALLOWED, REQUEST_DENIED):
        _add_request(own, record, selection)
        return
    # Not by those of requests: their times are the requests' own.
    when, call = text_of(record, "time"), text_of(record, "vault_request_id")
    if time_of(record):
        own.begins = min(own.begins or when, when)
        own.ends = max(own.ends, when)
    own.leases.add(text_of(record, "lease_id"))
    if call:
        made = OwnCall(event, when, text_of(record, "stage"), text_of(record, "upstream"))
        own.calls[call] = made
    if event == events.LOGIN:
        own.logins[call] = text_of(record, "lease_id")
    elif event in _TOKEN_ENDED:
        own.tokens_ended[text_of(record, "lease_id")] = (event, when)
    elif text_of(record, "credential_id"):
        _add_change(own, record, event)


def _add_request(own: OwnLog, record: dict[str, Any], selection: Selection) -> None:
    if not selection.takes(record):
        return
    own.asked += 1
    if selection.request and len(own.requests) < MOST_REQUESTS:
        own.requests.append(record)
    if record["event"] != REQUEST_ALLOWED:
        return
    if text_of(record, "credential_id"):
        _credential(own, record).use(record)
    else:
        own.nameless += 1


def _add_change(own: OwnLog, record: dict[str, Any], event: str) -> None:
    if event in _ISSUED:
        _credential(own, record).issue(record)
    elif event == events.RENEWED:
        _credential(own, record).renewed += 1
    elif event in _ENDED:
        found = _credential(own, record)
        if text_of(record, "caller") and not text_of(record, "lease_id"):
            return  # of one caller's reading of a static secret, which others have under the same name
        # That it was given back in the end says less than why it was no good any more.
        if not found.end:
            found.end, found.ended = event, text_of(record, "time")


def _credential(own: OwnLog, record: dict[str, Any]) -> CredentialUse:
    key = (
        text_of(record, "stage"),
        text_of(record, "upstream"),
        text_of(record, "credential_id"),
    )
    found = own.credentials.get(key)
    if found is None:
        found = own.credentials[key] = CredentialUse(key)
    return found


@dataclass(frozen=True, slots=True)
class VaultCall:
    """A call that Vault answered. Values that Vault shows as fingerprints only are left so."""

    id: str
    time: str
    operation: str
    path: str
    namespace: str
    address: str  # where it came from
    display_name: str  # of the token: method and role, as approle or kubernetes-shop-gateway
    role: str
    entity: str
    policies: tuple[str, ...]
    accessor: str  # of the token that it was made with, or that it made
    lease_id: str  # that it issued


class VaultLog:
    """The answered calls in ``log``; ``begins`` and ``ends`` are the times of its first and last entry."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.begins = self.ends = ""

    def calls(self) -> Iterator[VaultCall]:
        """Each of them, once.

        Raises:
            LogError: a file cannot be read, or it holds no audit log of Vault.
        """
        some = False
        for line in self.log:
            if _OWN_LINE in line[:60]:
                path, _ = self.log.place(self.log.count)
                raise LogError(
                    f"{path}: this is our audit log, not Vault's; name it before --vault"
                )
            if not any(mark in line for mark in _RESPONSE):
                continue
            entry = record_of(line)
            if not entry or entry.get("type") != "response" or not part_of(entry, "request"):
                continue
            some = True
            call = _vault_call(entry)
            when = time_of(entry)
            if when and when.year > _NO_TIME:
                self.begins = min(self.begins or call.time, call.time)
                self.ends = max(self.ends, call.time)
            yield call
        if not some:
            names = ", ".join(map(str, self.log.paths))
            raise LogError(
                f"{names}: no answered call in there; --vault wants the file of a `file` audit device "
                "of Vault, in JSON"
            )


def _vault_call(entry: dict[str, Any]) -> VaultCall:
    request, answer = part_of(entry, "request"), part_of(entry, "response")
    auth = part_of(answer, "auth") or part_of(entry, "auth")
    return VaultCall(
        text_of(request, "id"),
        text_of(entry, "time"),
        text_of(request, "operation"),
        text_of(request, "path"),
        text_of(part_of(request, "namespace"), "path"),
        text_of(request, "remote_address"),
        text_of(auth, "display_name"),
        _role(part_of(auth, "metadata")),
        text_of(auth, "entity_id"),
        _policies(auth),
        sys.intern(text_of(auth, "accessor")),
        text_of(part_of(answer, "secret"), "lease_id"),
    )


def _policies(auth: dict[str, Any]) -> tuple[str, ...]:
    """Those of the token and of its identity, but for `default`, which nearly all have."""
    found: list[object] = []
    for key in ("token_policies", "identity_policies", "policies"):
        named = auth.get(key)
        found += named if isinstance(named, list) else []
    return tuple(dict.fromkeys(one for one in found if isinstance(one, str) and one != "default"))


def _role(metadata: dict[str, Any]) -> str:
    """As the methods name it: AppRole, Kubernetes and JWT, certificates, LDAP and userpass."""
    for key in ("role_name", "role", "cert_name", "username"):
        if found := text_of(metadata, key):
            return found
    return ""
