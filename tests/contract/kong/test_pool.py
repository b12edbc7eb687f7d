"""A worker's connections: which is handed out, which is kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.contract.kong.pool import Connection, Lost, Pool
from tests.contract.kong.routes import Settings


class Listener:
    """A listening socket and what is connected to it."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self.socket = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.socket.bind(str(path))
        self.socket.listen(1)

    def pool(self, settings: Settings | None = None) -> Pool:
        return self._stack.enter_context(
            closing(Pool(self.path, settings or Settings(timeout=0.1)))
        )

    def take(self, pool: Pool) -> Connection:
        return self._stack.enter_context(closing(pool.take()))

    def accept(self) -> socket.socket:
        return self._stack.enter_context(self.socket.accept()[0])


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with ExitStack() as stack:
        yield Listener(tmp_path / "s", stack)


def test_the_last_used_is_taken_first(listener: Listener) -> None:
    """Connections are a stack, and past the pool's size the oldest is closed."""
    pool = listener.pool(Settings(timeout=0.1, pool_size=2))
    taken = []
    for _ in range(3):
        taken.append(listener.take(pool))
        listener.accept()
    for connection in taken:
        pool.put(connection)
    assert pool.idle == 2
    assert [pool.take(), pool.take()] == [taken[2], taken[1]]
    assert taken[0].broken


def test_a_timeout_breaks_nothing(listener: Listener) -> None:
    """A connection goes back to the pool although its answer never came."""
    pool = listener.pool()
    connection = listener.take(pool)
    with pytest.raises(Lost, match="timeout"):
        connection.receive(4)
    pool.put(connection)
    assert pool.take() is connection


@pytest.mark.parametrize("notices", [True, False])
@pytest.mark.parametrize("stirs", ["hangs up", "answers late"])
def test_an_idle_connection_that_stirs(listener: Listener, stirs: str, notices: bool) -> None:
    """What happens on an idle connection ends it; without `notices_hangups` it is handed out all the same."""
    pool = listener.pool(Settings(timeout=0.1, notices_hangups=notices))
    connection = listener.take(pool)
    other = listener.accept()
    pool.put(connection)
    if stirs == "hangs up":
        other.close()
    else:
        other.send(b"late")
    assert (listener.take(pool) is connection) is not notices


def test_why_there_is_no_connection(listener: Listener) -> None:
    """The reasons are nginx's words; a full backlog refuses at once, as it does for nginx."""
    pool = listener.pool()
    for _ in range(2):
        listener.take(pool)
    with pytest.raises(Lost, match="resource temporarily unavailable"):
        pool.take()
    listener.socket.close()
    with pytest.raises(Lost, match="connection refused"):
        pool.take()
    listener.path.unlink()
    with pytest.raises(Lost, match="no such file or directory"):
        pool.take()
