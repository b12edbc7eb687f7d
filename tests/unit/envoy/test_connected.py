"""How many connections to an address are open, by our own open files."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaultauthz.envoy import connected
from vaultauthz.envoy.connected import connections_to


@contextlib.contextmanager
def listening(
    family: socket.AddressFamily, address: tuple[str, int] | str
) -> Iterator[socket.socket]:
    """A socket that takes connections."""
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        yield listener


@contextlib.contextmanager
def accepted(listener: socket.socket) -> Iterator[None]:
    """A connection, both ends of which are ours."""
    with socket.socket(listener.family) as client:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            yield


def test_accepted_connections_are_counted(tmp_path: Path) -> None:
    """Of a port and of a name; neither who listens, nor who has connected, nor another's."""
    name = str(tmp_path / "s")
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp,
        listening(socket.AF_INET, ("127.0.0.1", 0)) as other,
        listening(socket.AF_UNIX, name) as unix,
    ):
        port = tcp.getsockname()[1]
        assert (connections_to({port}), connections_to({name})) == (0, 0)
        with accepted(tcp), accepted(other), accepted(unix), accepted(unix):
            assert connections_to({port}) == 1
            assert connections_to({name, str(tmp_path / "t")}) == 2
        assert (connections_to({port}), connections_to({name})) == (0, 0)


def test_where_open_files_are_not_told_nobody_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is no count."""
    monkeypatch.setattr(connected, "_OPEN", tmp_path / "none")
    assert connections_to({1}) is None
