"""A socket's name, from looking at it to giving it back; addresses; groups by name or number."""

from __future__ import annotations

import grp
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.listening import (
    LAST_GROUP,
    NO_SOCKET,
    SERVED,
    Address,
    SocketName,
    group_number,
    steer,
)

NAMES = {group.gr_name for group in grp.getgrall()}


@pytest.mark.parametrize("group", grp.getgrall(), ids=lambda group: group.gr_name)
def test_a_name(group: grp.struct_group) -> None:
    """As the system has it; the first one where two share it."""
    assert group_number(group.gr_name) == grp.getgrnam(group.gr_name).gr_gid


@given(st.integers(0, LAST_GROUP).filter(lambda number: str(number) not in NAMES))
def test_a_number(number: int) -> None:
    """Is the group's, whether it has a name here or not."""
    assert group_number(str(number)) == number


@given(
    st.text().filter(lambda text: text not in NAMES and not (text.isascii() and text.isdecimal()))
    | st.integers(min_value=LAST_GROUP + 1).map(str)
    | st.integers(max_value=-1).map(str)
)
def test_neither(text: str) -> None:
    """Never another group than was said: a number that chown takes for "as it is" is none, either."""
    with pytest.raises(LookupError, match="give its name, or its number"):
        group_number(text)


@pytest.mark.parametrize("text", ["4294967295", "١٢", "1_0", "+5", "0x10", " 5", "5 ", "1e3", "³"])
def test_what_int_would_take(text: str) -> None:
    """Python reads numbers in more ways than the system writes them."""
    with pytest.raises(LookupError):
        group_number(text)


@pytest.fixture
def name(tmp_path: Path) -> SocketName:
    return SocketName(tmp_path / "a.sock", ".test")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        yield made


def test_nobody_sees_it_before_it_is_whole(name: SocketName, listener: socket.socket) -> None:
    """It has its mode and takes connections before it has its name, and the passing one goes."""
    seen = []

    def listen() -> None:
        seen.append((name.path.exists(), stat.S_IMODE(name.passing.stat().st_mode)))
        listener.listen()

    name.bind(listener)
    name.publish(0o600, listen=listen)
    assert seen == [(False, 0o600)]
    assert name.in_the_way() == SERVED
    assert not name.passing.exists()
    assert not name.lost
    name.release()
    assert list(name.path.parent.iterdir()) == []


def test_what_is_left_is_replaced(name: SocketName, listener: socket.socket) -> None:
    """The socket of a server that was killed is not in the way."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(name.path))
    assert name.in_the_way() == ""
    name.bind(listener)
    name.publish(0o600, listen=listener.listen)
    assert name.in_the_way() == SERVED


def test_a_file_is_in_the_way(name: SocketName) -> None:
    """Whatever is no socket is somebody's."""
    name.path.write_text("mine")
    assert name.is_of_a_file
    assert name.in_the_way() == NO_SOCKET
    name.release()
    assert name.path.read_text() == "mine"


def test_a_successors_is_not_removed(name: SocketName, listener: socket.socket) -> None:
    """Released late, the name stays whose it is by now."""
    name.bind(listener)
    name.publish(0o600, listen=listener.listen)
    with socket.socket(socket.AF_UNIX) as other:
        successor = SocketName(name.path, ".other")
        successor.bind(other)
        successor.publish(0o600, listen=other.listen)
        assert name.lost
        name.release()
        assert name.in_the_way() == SERVED


def test_nothing_is_left_of_what_failed(name: SocketName, listener: socket.socket) -> None:
    """Neither name is there when the group does not exist."""
    name.bind(listener)
    with pytest.raises(LookupError):
        name.publish(0o660, "no-such-group")
    assert list(name.path.parent.iterdir()) == []


def test_a_name_too_long_is_refused(tmp_path: Path, listener: socket.socket) -> None:
    """Also where the passing one would fit: nobody could connect to it."""
    folder = tmp_path / ("a" * (100 - len(str(tmp_path))))
    folder.mkdir()
    with pytest.raises(OSError, match="path too long"):
        SocketName(folder / "too-long.sock").bind(listener)


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:0", "localhost:1", "unix:///a/b:c"])
def test_an_address_is_written_as_it_was(text: str) -> None:
    """What an error shows is what the configuration has."""
    assert str(Address.parse(text)) == text
    assert Address.parse(text).loopback is not text.startswith("unix:")


@pytest.mark.parametrize("text", ["", "8080", "localhost:", ":1", "localhost:65536", "a:\u0661"])
def test_no_address(text: str) -> None:
    """What names no place is refused."""
    with pytest.raises(ValueError, match="is neither"):
        Address.parse(text)


def served(path: Path, tag: str = "") -> tuple[SocketName, socket.socket]:
    """A server at ``path``, and its name."""
    name, listener = SocketName(path, tag), socket.socket(socket.AF_UNIX)
    name.bind(listener)
    name.publish(0o600, listen=listener.listen)
    return name, listener


def test_a_name_that_is_had_back(tmp_path: Path) -> None:
    """The next server took it and went: the one before has it again, with all that wait for it."""
    path = tmp_path / "s"
    before, listener = served(path)
    before.keep()
    other, another = served(path, "x")
    other.release()
    another.close()
    assert before.lost
    before.restore()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.accept()[0].close()
    before.release()
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_was_never_lost(tmp_path: Path) -> None:
    """Is kept, given back or let go of without a trace; an adopted one is removed by who has adopted it."""
    path = tmp_path / "s"
    before, listener = served(path)
    for undo in (before.restore, before.let_go):
        before.keep()
        undo()
        assert list(tmp_path.iterdir()) == [path]
    heir = SocketName(path)
    heir.release()
    assert path.exists()
    heir.adopt()
    heir.release()
    assert not path.exists()
    listener.close()


def test_a_borrowed_name(tmp_path: Path) -> None:
    """Who had it has it again when the last of those that took it over from each other releases it."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as systemds:
        systemds.bind(str(path))
        systemds.listen(8)
        one = SocketName(path)
        one.borrow()
        first = socket.socket(socket.AF_UNIX)
        one.bind(first)
        one.publish(0o600, listen=first.listen)
        other, second = served(path, "x")
        one.release()
        assert not other.lost
        assert other.borrowed
        other.release()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        systemds.accept()[0].close()
        assert list(tmp_path.iterdir()) == [path]
        first.close()
        second.close()


def test_a_borrowed_name_that_the_next_one_gave_back(tmp_path: Path) -> None:
    """The server before has the name again, and gives it back itself in the end."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as systemds:
        systemds.bind(str(path))
        systemds.listen(8)
        one, first = SocketName(path), socket.socket(socket.AF_UNIX)
        one.borrow()
        one.bind(first)
        one.publish(0o600, listen=first.listen)
        one.keep()
        other, second = served(path, "x")
        other.release()
        second.close()
        one.restore()
        assert not one.lost
        one.release()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        systemds.accept()[0].close()
        assert list(tmp_path.iterdir()) == [path]
        first.close()


def test_a_name_that_somebody_removed(tmp_path: Path) -> None:
    """There is none to keep, and none to have back."""
    name, listener = served(tmp_path / "s")
    (tmp_path / "s").unlink()
    with pytest.raises(FileNotFoundError):
        name.keep()
    name.restore()
    assert list(tmp_path.iterdir()) == []
    listener.close()


def test_nobody_to_borrow_from(tmp_path: Path) -> None:
    """A name that leads to nobody is not given back to anybody."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    name = SocketName(path)
    name.borrow()
    assert not name.borrowed


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_two_servers_share(host: str) -> None:
    """New connections come to the last one, once that has said so; to the other one when it is gone.

    No file is left open by it: a copy of the audit log's would keep its lock.
    """
    before = len(list(Path("/dev/fd").iterdir()))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listeners = [socket.socket(family), socket.socket(family)]
    port = 0
    for each in listeners:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        each.bind((host, port))
        each.listen(99)
        each.settimeout(0)
        port = each.getsockname()[1]
    steer(port)
    for taken in (listeners[1], listeners[0]):
        clients = [socket.create_connection((host, port)) for _ in range(30)]
        for client in clients:
            taken.accept()[0].close()
            client.close()
        listeners[1].close()
    listeners[0].close()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_one_server_alone_is_not_steered() -> None:
    """Neither is one that knows no such thing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        steer(port)
        steer(port, Path("/nowhere"))
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()
