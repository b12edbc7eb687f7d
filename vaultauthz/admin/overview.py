"""What the page shows: what fails first, in plain words and since when; then the leases, and all around them.

Made from what is gathered, without a clock: all times that go out are seconds since 1970, which stay
the same until something happens. So an answer that has not changed is known by its ETag. Leases are
looked through, sorted and cut here: of ten thousand a browser is given fifty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from vaultauthz.core.certificate import UPSTREAM, VAULT, EndingCertificate, date
from vaultauthz.core.history import News, Past, Tone
from vaultauthz.core.lease_row import (
    BADNESS,
    AlikeTroubles,
    LeaseRow,
    ShownTrouble,
    StageFacts,
    grouped,
    troubles,
)
from vaultauthz.watching import stamp_if_any

MOST: Final = 50  # leases of an answer, unless asked for more
_NAMED: Final = 20  # places by name, of those that fail alike
_CERTIFICATES: Final = 50  # told of
_OFTEN: Final = 2.0  # seconds between two looks of a page
_SELDOM: Final = 10.0
_ROWS_A_SECOND: Final = 1000  # that may be gone through for a page without anybody noticing

# What is so many seconds from now, or ago, goes out as a moment.
_MOMENTS: Final = (
    ("seconds_left", "ends_at", 1.0),
    ("renew_in", "next_at", 1.0),
    ("held_for", "began_at", -1.0),
    ("refused_for", "refused_at", -1.0),
)


class Asked(NamedTuple):
    """Which leases, and which news.

    The leases whose names or ids have ``find`` in them, ``most`` of them; the news ``after`` the number
    of the last that is known.
    """

    find: str = ""
    most: int = MOST
    failing: bool = False  # only those
    after: int = 0


class ConnectedGateway(NamedTuple):
    """A gateway that is connected: its name, how, and since when (on the keeper's clock)."""

    name: str
    how: str
    connections: int = 1
    secrets: int | None = None  # that it has by SDS; None where it asks for each request
    since: float | None = None


class ReloadOutcome(NamedTuple):
    """What became of the last reload; ``at`` is in seconds since 1970."""

    at: float
    taken: bool
    text: str


@dataclass(slots=True)
class ServerFacts:
    """The server itself; times are seconds since 1970."""

    version: str
    began_at: float
    config_file: Path | None = None  # None where a program has made the configuration
    read_at: float | None = None  # when the configuration in force was read
    reload: ReloadOutcome | None = None
    at_restart: tuple[str, ...] = ()  # sections whose change waits for a restart

    def took(self, at: float, text: str, at_restart: tuple[str, ...]) -> None:
        """A reload was carried out."""
        self.read_at, self.reload = at, ReloadOutcome(at, taken=True, text=text)
        self.at_restart = at_restart

    def refuse(self, at: float, why: str) -> None:
        """What was read is no configuration; the one before stays."""
        self.reload = ReloadOutcome(at, taken=False, text=why)


def _no_pasts(leases: Iterable[tuple[str, str, str]]) -> tuple[list[Past | None], list[News]]:
    return [None for _ in leases], []


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the rest comes from. None of it may wait. ``clock`` is the keeper's, ``wall`` counts from 1970."""

    clock: Callable[[], float]
    wall: Callable[[], float]
    server: Callable[[], ServerFacts]
    pasts: Callable[
        [Iterable[tuple[str, str, str]]], tuple[Sequence[Past | None], Sequence[News]]
    ] = _no_pasts
    stages: Callable[[], Sequence[StageFacts]] = tuple
    gateways: Callable[[], Sequence[ConnectedGateway]] = tuple
    certificates: Callable[[], Sequence[EndingCertificate]] = tuple


def of_vault(stages: Iterable[StageFacts]) -> Iterator[ShownTrouble]:
    """Addresses of Vault that do not serve: the less the others do, the worse."""
    for stage in stages:
        served = any(node.works for node in stage.nodes)
        for node in stage.nodes:
            if node.works is False:
                tone = Tone.WARN if served else Tone.BAD
                what = f"Vault at {node.address} does not serve"
                yield ShownTrouble(tone, what, node.reason, node.since, (stage.stage, "", ""))


def of_server(facts: ServerFacts, by: float) -> Iterator[ShownTrouble]:
    """What is wrong with the configuration; ``by`` is what the wall clock is ahead of the keeper's."""
    last = facts.reload
    if last and not last.taken:
        what = "A change of the configuration was refused; the one before stays in force"
        yield ShownTrouble(Tone.WARN, what, last.text, last.at - by)
    if facts.at_restart:
        what = "A change of the configuration waits for a restart"
        yield ShownTrouble(Tone.WARN, what, f"of {', '.join(facts.at_restart)}")
    if facts.config_file and stamp_if_any(facts.config_file) is None:
        what = "The configuration's file is gone; no restart would find it"
        yield ShownTrouble(Tone.WARN, what, str(facts.config_file))


def of_certificates(found: Iterable[EndingCertificate], wall: float) -> Iterator[ShownTrouble]:
    """Those in files that have ended or soon will, or whose next one is not taken; ``wall`` is since 1970.

    What Envoy is handed is as short-lived as its lease, which tells of itself. That a listener's has
    ended is what readiness tells besides.
    """
    for one in found:
        place, left = (one.stage, "", ""), one.seconds_left(wall)
        if one.trouble:
            what = "The certificate in a file is not taken; the one before is used"
            yield ShownTrouble(Tone.WARN, what, f"{one.name}: {one.trouble}", None, place)
        if one.use == UPSTREAM or (left <= 0 and one.use != VAULT) or not one.near(wall):
            continue
        if left > 0:
            tone, what = Tone.WARN, "A certificate ends soon"
        else:
            tone, what = Tone.BAD, "A certificate has ended; Vault takes no new connection with it"
        yield ShownTrouble(tone, what, f"{one.name}: {date(one.not_after)}", None, place)


class _Moment:
    """Turns the clock's seconds into those since 1970, which an answer of a quiet server has again."""

    def __init__(self, now: float, wall: float) -> None:
        self.now = now
        self.by = round(wall - now, 1)

    def __call__(self, at: float | None) -> float | None:
        return None if at is None or not math.isfinite(at) else round(at + self.by, 1)

    def off(self, seconds: float | None) -> int | None:
        """So many seconds from now: a whole one, as what is gathered takes some microseconds."""
        at = self(None if seconds is None else self.now + seconds)
        return None if at is None else round(at)


def _alike(group: AlikeTroubles, moment: _Moment) -> dict[str, Any]:
    names = ("stage", "upstream", "caller")
    return {
        "tone": group.trouble.tone,
        "what": group.trouble.what,
        "why": group.trouble.why,
        "since": moment(group.since),
        "count": len(group.places),
        "places": [dict(zip(names, place, strict=True)) for place in group.places[:_NAMED]],
    }


class Overview(NamedTuple):
    """What a page is told, as JSON has it; ``now`` is its time, in seconds since 1970."""

    now: float
    told: dict[str, object]


def overview(
    now: float,
    rows: Sequence[LeaseRow],
    besides: Iterable[ShownTrouble],
    sources: Sources,
    asked: Asked,
) -> Overview:
    """Everything. ``rows`` are as of ``now``; ``besides``: what fails of the server itself."""
    moment = _Moment(now, sources.wall())
    tones = {id(row): _worst(row, troubles(row, None, now)) for row in rows}
    leases = [row for row in rows if row.upstream]
    logins = {row.stage: row for row in rows if not row.upstream}
    bad = [row for row in rows if tones[id(row)] in (Tone.BAD, Tone.WARN)]
    found = sorted(_chosen(leases, asked, tones), key=lambda row: _order(row, tones[id(row)]))
    shown = found[: asked.most]
    wanted = {id(row): row for row in (*bad, *logins.values(), *shown)}
    kept, news = sources.pasts(_place(row) for row in wanted.values())
    pasts = dict(zip(wanted, kept, strict=True))
    stages, facts = sources.stages(), sources.server()
    certificates, wall = sources.certificates(), now + moment.by
    every = [*besides, *of_server(facts, moment.by), *of_vault(stages)]
    every += of_certificates(certificates, wall)
    every += [one for row in bad for one in troubles(row, pasts[id(row)], now)]
    by_stage = {stage: _told(row, pasts[id(row)], moment) for stage, row in logins.items()}
    return Overview(
        wall,
        {
            "server": _server(facts),
            "again_in": min(_SELDOM, max(_OFTEN, len(rows) / _ROWS_A_SECOND)),
            "failing": [_alike(group, moment) for group in grouped(every)],
            "leases": [_told(row, pasts[id(row)], moment) for row in shown],
            "found": len(found),
            "total": len(leases),
            "failing_leases": sum(bool(row.upstream) for row in bad),
            "stages": [_stage(stage, by_stage, moment) for stage in stages],
            "gateways": [
                one._asdict() | {"since": moment(one.since)} for one in sources.gateways()
            ],
            "certificates": [
                _certificate(one, wall)
                for one in sorted(certificates, key=_soonest)[:_CERTIFICATES]
            ],
            "news": [_news(one, moment) for one in news if one.number > asked.after],
        },
    )


def _place(row: LeaseRow) -> tuple[str, str, str]:
    return (row.stage, row.upstream, row.caller)


def _worst(row: LeaseRow, found: Sequence[ShownTrouble]) -> Tone:
    return found[0].tone if found else Tone.GOOD if row.usable else Tone.NONE


def _order(row: LeaseRow, tone: Tone) -> tuple[object, ...]:
    """What is bad first, by name what is not."""
    return (min(BADNESS[tone], BADNESS[Tone.NONE]), row.upstream, row.stage, row.caller)


def _chosen(
    leases: Iterable[LeaseRow], asked: Asked, tones: Mapping[int, Tone]
) -> Iterator[LeaseRow]:
    text = asked.find.lower()
    for row in leases:
        if asked.failing and tones[id(row)] not in (Tone.BAD, Tone.WARN):
            continue
        if not text or text in _searched(row):
            yield row


def _searched(row: LeaseRow) -> str:
    state = "refused" if row.refused else row.state
    names = (row.upstream, row.stage, row.caller, state, row.lease_id, row.credential_id)
    return "\n".join(names).lower()


def _told(row: LeaseRow, past: Past | None, moment: _Moment) -> dict[str, Any]:
    told = asdict(row)
    for name, at, sign in _MOMENTS:
        seconds = told.pop(name)
        told[at] = None if seconds is None else moment.off(sign * seconds)
    told["ttl"] = None if row.ttl is None else round(row.ttl)
    found = troubles(row, past, moment.now)
    told["tone"] = _worst(row, found)
    told["troubles"] = [
        {"tone": one.tone, "what": one.what, "why": one.why, "since": moment(one.since)}
        for one in found
    ]
    # A request's own lease is one of many of its place, whose past is not its own.
    marks = past.marks if past and (row.shared or row.caller) else []
    told["marks"] = [mark._asdict() | {"at": moment(mark.at)} for mark in marks]
    return told


def _stage(
    facts: StageFacts, logins: Mapping[str, dict[str, Any]], moment: _Moment
) -> dict[str, Any]:
    nodes = [node._asdict() | {"since": moment(node.since)} for node in facts.nodes]
    # A reload may just have brought the stage: then it has no login yet.
    return {**facts._asdict(), "nodes": nodes, "login": logins.get(facts.stage)}


def _soonest(one: EndingCertificate) -> tuple[bool, float]:
    """Those that are in files are few; of what Envoys are handed, what ends first."""
    return one.use == UPSTREAM, one.not_after


def _certificate(one: EndingCertificate, wall: float) -> dict[str, Any]:
    troubles_of = [trouble.tone for trouble in of_certificates([one], wall)]
    ended = Tone.BAD if one.seconds_left(wall) <= 0 else Tone.GOOD
    return {
        "name": one.name,
        "file": one.file,
        "ends_at": round(one.not_after) if math.isfinite(one.not_after) else None,
        "trouble": one.trouble,
        "tone": min((*troubles_of, ended), key=BADNESS.__getitem__),
    }


def _news(one: News, moment: _Moment) -> dict[str, Any]:
    named = {"number": one.number, "tone": one.tone, "text": one.text, "routine": one.routine}
    return named | {"at": moment(one.at)}


def _server(facts: ServerFacts) -> dict[str, Any]:
    changed = stamp_if_any(facts.config_file) if facts.config_file else None
    return {
        **asdict(facts),
        "config_file": str(facts.config_file or ""),
        "changed_at": round(changed.modified / 1e9, 1) if changed else None,
        "reload": facts.reload._asdict() if facts.reload else None,
    }
