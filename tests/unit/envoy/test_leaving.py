"""Which connections are told to go, and when."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaultauthz.envoy.leaving import GOAWAY, Leaving, send_away


class Gateway:
    """A connection to a listener at ``path``."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self.ours = socket.socket(socket.AF_UNIX)
        self.ours.connect(str(path))
        self.ours.settimeout(0)
        self.server, _ = listener.accept()

    def told(self) -> bytes:
        """What it has been sent."""
        try:
            return self.ours.recv(999)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Both ends."""
        self.ours.close()
        self.server.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where gateways connect."""
    return tmp_path / "g.sock"


@pytest.fixture
def listener(place: Path) -> Iterator[socket.socket]:
    """What listens there."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))
        made.listen(8)
        yield made


def test_each_is_told_once_when_it_is_settled(listener: socket.socket, place: Path) -> None:
    """One that has just come may not have had our first frame; the listener itself is none."""
    leaving = Leaving([str(place)])
    assert leaving.look(0.0) == 0
    one = Gateway(listener, place)
    assert leaving.look(1.0) == 1
    assert one.told() == b""
    other = Gateway(listener, place)
    assert leaving.look(1.2) == 2
    assert leaving.look(1.3) == 2
    assert (one.told(), other.told()) == (GOAWAY, b"")
    assert leaving.look(1.5) == 2
    assert (one.told(), other.told()) == (b"", GOAWAY)
    one.close()
    assert leaving.look(9.0) == 1
    other.close()
    assert leaving.look(9.1) == 0


def test_not_in_the_middle_of_what_is_sent(listener: socket.socket, place: Path) -> None:
    """While something waits to be read, half a frame may wait to be written."""
    leaving = Leaving([str(place)])
    gateway = Gateway(listener, place)
    gateway.server.sendall(b"half")
    leaving.look(0.0)
    leaving.look(1.0)
    assert gateway.told() == b"half"
    leaving.look(1.1)
    assert gateway.told() == GOAWAY
    gateway.close()


def test_others_are_left_alone(listener: socket.socket, place: Path) -> None:
    """Connections of this process that are not gateways'."""
    leaving = Leaving([str(place.parent)])
    gateway = Gateway(listener, place)
    assert leaving.look(0.0) == leaving.look(1.0) == 0
    assert gateway.told() == b""
    gateway.close()


def test_it_waits_until_they_are_gone(listener: socket.socket, place: Path) -> None:
    """And says so; what would keep them ends once they know. Nobody there: at once."""
    ours = Leaving([str(place)])
    ended: list[bytes] = []
    assert send_away(ours, 60.0, lambda: ended.append(b""))
    assert len(ended) == 1
    gateway = Gateway(listener, place)

    def end() -> None:
        ended.append(gateway.told())
        gateway.close()

    assert send_away(ours, 60.0, end)
    assert ended[1:] == [GOAWAY]
    slow = Gateway(listener, place)
    assert not send_away(ours, 0.0)
    assert not send_away(ours, 60.0, over=lambda: True)
    slow.close()


def test_nothing_is_written_into_tls(listener: socket.socket, place: Path) -> None:
    """They are counted, and go by themselves."""
    leaving = Leaving([str(place)], mute=True)
    gateway = Gateway(listener, place)
    assert leaving.look(0.0) == leaving.look(9.0) == 1
    assert gateway.told() == b""
    gateway.close()
