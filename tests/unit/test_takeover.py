"""What two servers say to each other when one takes over, over a real socket; and who is ready."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.values import Listen
from vaultauthz.core.events import ISSUED
from vaultauthz.core.events import Event as Happening
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.observe.handing_over import SentLines
from vaultauthz.observe.record import Entry, of_event
from vaultauthz.serve import await_ready
from vaultauthz.takeover import PLACE, Incumbent, Running, Successor, TakeOverError, place_of

PLACES = [("production", "pay"), ("production", "geo"), ("staging", "pay")]
LINE = of_event(1.5, Happening(ISSUED, "production", "pay"))


def running(*usable: tuple[str, str], started: bool = True) -> Running:
    """A server with these credentials."""
    return Running(7, "unix:///g", "unix:///a", "/audit", started, frozenset(usable))


def row(place: tuple[str, str], *, usable: bool = True, shared: bool = True) -> LeaseRow:
    """A lease."""
    return LeaseRow(*place, "held", usable=usable, shared=shared)


@given(
    st.sets(st.sampled_from(PLACES)),
    st.dictionaries(st.sampled_from(PLACES), st.booleans()),
    st.booleans(),
)
def test_it_is_as_ready(
    has: set[tuple[str, str]], mine: dict[tuple[str, str], bool], started: bool
) -> None:
    """When it has each credential that the one before has and it wants itself, and has started, if that one has."""
    before = running(*has, started=started)
    lacks = before.lacks([row(p, usable=u) for p, u in mine.items()], started=True)
    assert bool(lacks) == any(place in has and not usable for place, usable in mine.items())
    whole = [row(place) for place in mine]
    assert bool(before.lacks(whole, started=False)) == started


def test_leases_of_callers_and_logins_are_not_waited_for() -> None:
    """The first come with their callers; the others are there when their leases are."""
    before = running(("production", "pay"), ("production", ""))
    rows = [
        row(("production", "pay"), usable=False, shared=False),
        row(("production", ""), usable=False),
    ]
    assert before.lacks(rows, started=True) == ()


@pytest.mark.parametrize(
    ("grpc", "admin", "place"),
    [
        ("unix:///run/g.sock", "unix:///run/x/a.sock", "/run/x/.a.sock.take-over"),
        ("unix:///run/g.sock", "", "/run/.g.sock.take-over"),
        ("unix:///run/g.sock", "127.0.0.1:1", "/run/.g.sock.take-over"),
        ("127.0.0.1:2", "127.0.0.1:1", None),
        ("127.0.0.1:2", "", None),
    ],
)
def test_where_they_meet(grpc: str, admin: str, place: str | None) -> None:
    """Beside a unix socket of theirs, operators' first."""
    found = place_of(Listen(grpc=grpc, admin=admin))
    assert found == (Path(place) if place else None)


class FakeDesk:
    """A server that runs, which writes down what is wanted of it."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.refuses = ""
        self.recorded: list[Entry] = []
        self.back = Event()
        self.gone = Event()
        self.listener = socket.socket()

    def described(self) -> Running:
        """As it stands."""
        return running(("production", "pay"))

    def let_go(self) -> list[socket.socket]:
        """Let go, or not."""
        self.did.append("let go")
        if self.refuses:
            raise OSError(self.refuses)
        return [self.listener]

    def take_back(self) -> bool:
        """The second time it works."""
        self.did.append("take back")
        if self.did.count("take back") == 1:
            return False
        self.back.set()
        return True

    def go(self, line: socket.socket, grpc: str) -> None:
        """Send a line."""
        self.did.append(f"go to {grpc}")
        lines = SentLines(line, "audit", lambda: pytest.fail("it has it"))
        lines.put([LINE])
        lines.write()
        lines.close()
        self.gone.set()

    def record(self, entry: Entry) -> None:
        """Keep it."""
        self.recorded.append(entry)


@pytest.fixture
def desk() -> Iterator[FakeDesk]:
    """One of them."""
    made = FakeDesk()
    yield made
    made.listener.close()


@pytest.fixture
def place(tmp_path: Path, desk: FakeDesk) -> Iterator[Path]:
    """Where it waits."""
    incumbent = Incumbent(tmp_path / ".a.take-over", desk, patience=5.0)
    incumbent.start()
    yield tmp_path / ".a.take-over"
    incumbent.stop()
    assert list(tmp_path.iterdir()) == []


def met(place: Path) -> Successor:
    """The next one, which has asked who serves."""
    found = Successor.meet(place, 5.0)
    assert found
    return found


def test_from_one_to_the_next(place: Path, desk: FakeDesk) -> None:
    """It learns how the other stands, is given what listens, and then its audit lines."""
    assert place.stat().st_mode & 0o777 == 0o600
    successor = met(place)
    assert successor.running == running(("production", "pay"))
    assert not successor.lost
    (listener,) = successor.place()
    assert os.path.sameopenfile(listener.fileno(), desk.listener.fileno())
    listener.close()
    successor.go("unix:///g")
    assert list(successor.entries()) == [LINE]
    assert desk.gone.wait(5)
    assert desk.did == ["let go", "go to unix:///g"]
    successor.close()


def test_a_stop_meanwhile(tmp_path: Path, desk: FakeDesk) -> None:
    """It waits until it is known who has the place."""
    incumbent = Incumbent(tmp_path / "s", desk, patience=5.0)
    incumbent.start()
    successor = met(tmp_path / "s")
    successor.place().pop().close()
    settled = Event()

    def settle() -> None:
        incumbent.settle()
        settled.set()

    thread = Thread(target=settle)
    thread.start()
    assert not settled.wait(0.05)
    successor.go("unix:///g")
    assert settled.wait(5)
    assert desk.did == ["let go", "go to unix:///g"]
    thread.join()
    successor.close()
    incumbent.stop()


def test_who_stops_gives_its_place_to_nobody(tmp_path: Path, desk: FakeDesk) -> None:
    """While the next one gets ready it waits for nothing; whoever asks later has no answer until it has ended."""
    incumbent = Incumbent(tmp_path / "s", desk, patience=5.0)
    incumbent.start()
    successor = met(tmp_path / "s")
    successor._patience = 0.1
    incumbent.settle()
    incumbent.stop()
    with pytest.raises(TakeOverError, match="does not answer any more"):
        successor.place()
    successor.close()
    assert not desk.did


def test_who_comes_after_the_one_that_has_the_place(place: Path, desk: FakeDesk) -> None:
    """Is told so: it is for the next one to give."""
    successor = met(place)
    successor.place().pop().close()
    successor.go("unix:///g")
    assert desk.gone.wait(5)
    with pytest.raises(TakeOverError, match="another take-over"):
        Successor.meet(place, 5.0)
    assert desk.did == ["let go", "go to unix:///g"]
    successor.close()


def test_it_is_given_back(place: Path, desk: FakeDesk) -> None:
    """Until it works; then what the next one has written down of itself is recorded."""
    successor = met(place)
    successor.place().pop().close()
    lines = SentLines(successor.back(), "audit", lambda: pytest.fail("it has it"))
    lines.put([LINE, LINE])
    lines.write()
    lines.close()
    assert desk.back.wait(5)
    met(place).close()  # the next may try, once that is done
    assert desk.did == ["let go", "take back", "take back"]
    assert desk.recorded == [LINE, LINE]


@pytest.mark.parametrize("asked", [True, False])
def test_the_next_one_ends(place: Path, desk: FakeDesk, *, asked: bool) -> None:
    """Before it has asked for anything nothing is to be undone."""
    successor = met(place)
    if asked:
        successor.place().pop().close()
    successor.close()
    assert desk.back.wait(5) if asked else not desk.did


def test_the_next_one_ends_before_it_hears_the_answer(place: Path, desk: FakeDesk) -> None:
    """All of it is had back: whom it was given to is gone."""
    successor = met(place)
    successor._talk.say({"ask": PLACE})
    successor.close()
    assert desk.back.wait(5)


def test_a_second_one(place: Path) -> None:
    """Is told, and may come again."""
    first = met(place)
    with pytest.raises(TakeOverError, match="another take-over"):
        Successor.meet(place, 5.0)
    first.back(end=True)
    first.close()


def test_one_that_keeps_its_place(place: Path, desk: FakeDesk) -> None:
    """It says why; what the next one has done is recorded all the same."""
    desk.refuses = "the disk is full"
    successor = met(place)
    with pytest.raises(TakeOverError, match="keeps its place: the disk is full"):
        successor.place()
    lines = SentLines(successor.back(), "audit", lambda: pytest.fail("it has it"))
    lines.put([LINE])
    lines.write()
    lines.close()
    while not desk.recorded:
        desk.back.wait(0.01)
    assert desk.did == ["let go", "take back", "take back"]


def test_nobody(tmp_path: Path) -> None:
    """No socket, or one of a server that was killed."""
    assert Successor.meet(tmp_path / "none", 1.0) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    assert Successor.meet(tmp_path / "dead", 1.0) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "has ended"),
        (b"{}\n", "another version"),
        (b'{"take_over": 2}\n', "another version"),
        (b'{"take_over": 1, "usable": 7}\n', "does not speak as vaultauthz"),
        (b"[]\n", "no JSON object"),
        (None, "does not answer"),
    ],
)
def test_somebody_else_listens(tmp_path: Path, answer: bytes | None, said: str) -> None:
    """It is told what is wrong, with the number of the process."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        made: list[socket.socket] = []

        def answered() -> None:
            line, _ = listener.accept()
            made.append(line)
            if answer is not None:
                line.sendall(answer)
                line.close()

        thread = Thread(target=answered)
        thread.start()
        with pytest.raises(TakeOverError, match=f"process {os.getpid()}.*{said}"):
            Successor.meet(tmp_path / "s", 0.5)
        thread.join()
        for line in made:
            line.close()


def test_it_waits_no_longer_than_it_may(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it names what it lacks; told to end, it does at once."""
    now = [0.0]
    successor = met(place)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    with pytest.raises(TakeOverError, match="after 60 s this one still lacks pay, geo"):
        await_ready(successor, lambda: ["pay", "geo"], lambda: False, 60.0)
    assert 60.0 <= now[0] < 61.0
    with pytest.raises(TakeOverError, match="before it was ready"):
        await_ready(successor, lambda: ["pay"], lambda: True, 60.0)
    await_ready(successor, list, lambda: False, 60.0)
    successor.close()


def test_another_user_is_not_answered(
    place: Path, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it may open: neither side trusts it."""
    monkeypatch.setattr("vaultauthz.takeover.peer_of", lambda line: (7, False))
    with pytest.raises(TakeOverError, match="another user's"):
        Successor.meet(place, 5.0)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(place))
        assert line.recv(1) == b""
    assert not desk.did


@pytest.mark.parametrize("pid", [0, 1 << 22])
def test_one_that_could_not_be_ended_is_not_answered(
    place: Path, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    """Of another PID namespace, or gone: should it hang with the place, nobody would serve."""
    monkeypatch.setattr("vaultauthz.takeover.peer_of", lambda line: (pid, True))
    killed: list[tuple[int, int]] = []
    kill = os.kill

    def spied(process: int, number: int) -> None:
        killed.append((process, number))
        kill(process, number)

    monkeypatch.setattr(os, "kill", spied)
    with pytest.raises(TakeOverError, match=r"keeps its place: .* could not be ended"):
        Successor.meet(place, 5.0)
    assert not desk.did
    assert killed == ([(pid, 0)] if pid else [])
