"""What the page is told: gathered, put in order, and times as moments that stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.admin.overview import (
    Asked,
    ConnectedGateway,
    ReloadOutcome,
    ServerFacts,
    Sources,
    of_vault,
    overview,
)
from vaultauthz.admin.view import KeptView
from vaultauthz.core import events
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.events import Event
from vaultauthz.core.grant import NodeState
from vaultauthz.core.history import History, Tone
from vaultauthz.core.lease_row import LeaseRow, StageFacts

NOW, WALL = 500.0, 1_700_000_500.0
AHEAD = WALL - NOW
ROW = LeaseRow("prod", "pay", "held", "lease-1", "c_1", 900.0, 600.0, held_for=100.0, ttl=1000.0)
LOGIN = LeaseRow("prod", "", "held", "acc", seconds_left=90.0, held_for=10.0, policies=("p",))
ASKED = Asked()
FACTS = ServerFacts("1.2.3", began_at=WALL - 60.0)
STAGE = StageFacts("prod", "approle", "approle", "team", (NodeState("https://v:8200", True),))


def sources(history: History | None = None, **given: Any) -> Sources:
    """With what a test is about; the rest is empty."""
    past = history or History()
    given.setdefault("server", lambda: FACTS)
    return Sources(
        lambda: NOW,
        lambda: WALL,
        pasts=lambda leases: ([past.past(*lease) for lease in leases], past.news()),
        **given,
    )


def told(*rows: LeaseRow, asked: Asked = ASKED, **given: Any) -> Any:
    """What the page is told of these."""
    return overview(NOW, rows, (), sources(**given), asked).told


def test_a_lease_has_its_marks_and_a_stage_its_login() -> None:
    """With the past of each, and what is configured and known of Vault."""
    history = History()
    history.take(Event(events.ISSUED, "prod", "pay", "lease-1", "c_1"), 400.0)
    history.take(Event(events.RENEWED, "prod", "pay", "lease-1", "c_1"), 450.0)
    history.take(Event(events.LOGIN, "prod", lease_id="acc"), 490.0)
    found = told(ROW, LOGIN, history=history, stages=lambda: [STAGE])
    (lease,), (stage,) = found["leases"], found["stages"]
    marks = [(mark["at"] - AHEAD, mark["name"]) for mark in lease["marks"]]
    assert marks == [(400.0, events.ISSUED), (450.0, events.RENEWED)]
    assert (lease["tone"], lease["troubles"], found["failing"]) == (Tone.GOOD, [], [])
    assert (stage["method"], stage["mount"], stage["namespace"]) == ("approle", "approle", "team")
    assert stage["nodes"] == [
        {"address": "https://v:8200", "works": True, "since": None, "reason": ""}
    ]
    assert (stage["login"]["policies"], stage["login"]["lease_id"]) == (("p",), "acc")
    assert [news["number"] for news in found["news"]] == [3, 2, 1]


def test_news_that_are_known_are_not_told_again() -> None:
    """The page says the number of the last that it has."""
    history = History()
    for at in range(5):
        history.take(Event(events.RELOADED, "", reason=str(at)), float(at))
    found = told(history=history, asked=Asked(after=3))
    assert [(n["number"], n["at"] - AHEAD) for n in found["news"]] == [(5, 4.0), (4, 3.0)]


def test_a_stage_that_a_reload_has_just_brought() -> None:
    """It has no login yet, and is shown."""
    (stage,) = told(ROW, stages=lambda: [STAGE])["stages"]
    assert stage["login"] is None


def test_a_requests_own_lease_has_no_marks() -> None:
    """Those of its place are another's."""
    history = History()
    history.take(Event(events.ISSUED, "prod", "pay", "lease-0", "c_0"), 1.0)
    (lease,) = told(replace(ROW, shared=False), history=history)["leases"]
    assert lease["marks"] == []


@pytest.mark.parametrize(
    ("others", "tone"), [(True, Tone.WARN), (None, Tone.BAD), (False, Tone.BAD)]
)
def test_a_vault_that_does_not_serve(others: bool | None, tone: Tone) -> None:
    """Worse when no other node of the stage does; one that was not asked yet is not told of."""
    down = NodeState("https://a:8200", False, 400.0, "connection refused")
    stage = STAGE._replace(nodes=(down, NodeState("https://b:8200", others)))
    first = next(iter(of_vault([stage])))
    assert (first.tone, first.why, first.since) == (tone, "connection refused", 400.0)
    assert first.place == ("prod", "", "")
    found = told(stages=lambda: [stage])["failing"]
    assert len(found) == (2 if others is False else 1)


def test_what_is_wrong_with_the_configuration(tmp_path: Path) -> None:
    """A reload that was refused, what waits for a restart, a file that is gone."""
    file = tmp_path / "vaultauthz.yaml"
    facts = ServerFacts(
        "1", WALL, file, WALL, ReloadOutcome(WALL - 5.0, taken=False, text="no key x"), ("listen",)
    )
    found = told(server=lambda: facts)
    shown = {one["why"]: (one["tone"], one["since"]) for one in found["failing"]}
    assert shown == {
        "no key x": (Tone.WARN, WALL - 5.0),
        "of listen": (Tone.WARN, None),
        str(file): (Tone.WARN, None),
    }
    assert found["server"]["reload"] == {"at": WALL - 5.0, "taken": False, "text": "no key x"}
    assert found["server"]["changed_at"] is None
    file.write_text("")
    taken = replace(facts, reload=ReloadOutcome(WALL, taken=True, text="ok"), at_restart=())
    found = told(server=lambda: taken)
    assert found["failing"] == []
    assert found["server"]["changed_at"] == pytest.approx(file.stat().st_mtime, abs=0.1)


def certificate(use: str, days: float, **more: Any) -> EndingCertificate:
    """One that ends in so many days."""
    return EndingCertificate(use, WALL + days * 86_400.0, **more)


def test_certificates_that_end() -> None:
    """Those in files under seven days before; what Envoys are handed is as short-lived as its lease."""
    ending = [
        certificate("grpc", 6.9, file="/tls.pem"),
        certificate("admin", 7.1, file="/admin.pem", trouble="no pair"),
        certificate("vault", -1.0, stage="prod"),
        certificate("upstream", 0.1, stage="prod", upstream="pay"),
    ]
    found = told(certificates=lambda: ending)
    assert [
        (one["tone"], one["what"].partition(";")[0], one["why"].partition(":")[0])
        for one in found["failing"]
    ] == [
        (Tone.BAD, "A certificate has ended", "client certificate for Vault in prod"),
        (Tone.WARN, "A certificate ends soon", "listen.grpc_tls"),
        (Tone.WARN, "The certificate in a file is not taken", "listen.admin_tls"),
    ]
    shown = {
        one["name"]: (one["tone"], one["file"], one["trouble"]) for one in found["certificates"]
    }
    assert shown == {
        "client certificate for Vault in prod": (Tone.BAD, "", ""),
        "listen.grpc_tls": (Tone.WARN, "/tls.pem", ""),
        "listen.admin_tls": (Tone.WARN, "/admin.pem", "no pair"),
        "pay in prod": (Tone.GOOD, "", ""),
    }


@pytest.mark.parametrize(("left", "soon"), [(0.9, False), (0.11, False), (0.09, True)])
def test_a_certificate_of_a_short_life(left: float, soon: bool) -> None:
    """One of a day, as a mesh hands out, is renewed at its half: it fails in its last tenth."""
    one = certificate("vault", left, stage="prod", not_before=WALL + (left - 1.0) * 86_400.0)
    found = told(certificates=lambda: [one])
    assert [failing["tone"] for failing in found["failing"]] == [Tone.WARN] * soon
    assert found["certificates"][0]["tone"] == (Tone.WARN if soon else Tone.GOOD)


def test_of_a_thousand_certificates_those_that_end_first_are_told() -> None:
    """And all that are in files, whenever they end."""
    many = [certificate("upstream", float(day), upstream=f"u{day}") for day in range(1, 1001)]
    endless = EndingCertificate("grpc")
    names = [
        one["name"] for one in told(certificates=lambda: [*many[::-1], endless])["certificates"]
    ]
    assert (names[:3], len(names)) == (["listen.grpc_tls", "u1 in ", "u2 in "], 50)


def test_gateways() -> None:
    """As the door tells them."""
    one = ConnectedGateway("envoy-1", "SDS", secrets=3, since=NOW - 7.0)
    assert told(gateways=lambda: [one])["gateways"] == [
        {"name": "envoy-1", "how": "SDS", "connections": 1, "secrets": 3, "since": WALL - 7.0}
    ]


def test_a_large_server_is_looked_at_less_often() -> None:
    """To go through ten thousand leases takes a while, which checks need, too."""
    rows = [replace(ROW, upstream=str(number)) for number in range(10_000)]
    again = [told(*rows[:count])["again_in"] for count in (1, 2000, 5000, 10_000)]
    assert again == [2.0, 2.0, 5.0, 10.0]


@given(st.integers(0, 10_000_000), st.floats(0, 0.19))
def test_what_stays_is_told_the_same(passed: int, late: float) -> None:
    """A lease's end seems to move neither by the moment of the look, nor by how long the rows took."""
    ends = 20_000_000.3

    def shown(now: float, late: float) -> object:
        row = replace(ROW, seconds_left=ends - now - late)
        given = Sources(lambda: now, lambda: now + AHEAD, server=lambda: FACTS)
        told: Any = overview(now, [row], (), given, Asked()).told
        return told["leases"][0]["ends_at"]

    assert shown(0.0, 0.0) == shown(float(passed), late)


class _Kept:
    """Leases that stand still."""

    def __init__(self, *rows: LeaseRow) -> None:
        self._rows = rows

    def waiting(self) -> list[LeaseRow]:
        return [row for row in self._rows if not row.usable]

    def rows(self) -> list[LeaseRow]:
        return [*self._rows]


def test_the_view_tells_of_the_server_first() -> None:
    """That nothing can be recorded, that a certificate has ended, that a stop is near."""
    besides = {"grpc_tls": "the certificate has ended", "stopping": "gateways are turned away"}
    lost = replace(ROW, usable=False, state="empty", failures=1, last_error="no")
    view = KeptView(
        _Kept(LOGIN, lost),
        str,
        lambda: True,
        lambda: False,
        lambda: besides,
        ask=lambda *_: (),
        sources=sources(),
    )
    found: Any = view.overview(Asked())
    assert (found.now, found.told["ready"], found.told["started"]) == (WALL, False, False)
    assert [(one["tone"], one["what"]) for one in found.told["failing"]] == [
        (Tone.BAD, "The audit log cannot be written: every check is refused"),
        (Tone.BAD, "grpc_tls: the certificate has ended"),
        (Tone.BAD, "No credential: requests are answered 503"),
        (Tone.WARN, "stopping: gateways are turned away"),
    ]
