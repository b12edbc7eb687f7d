"""Where it listens: unix sockets and ports."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest

from tests.contract.admin.conftest import (
    MARKED,
    FakeView,
    Reply,
    port,
    serving,
)
from tests.patience import PATIENCE
from vaultauthz.admin import Admin
from vaultauthz.config.values import Listen
from vaultauthz.listening import ListenError

REVOKE = "/upstreams/pay%20ments/revoke"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


def ask_unix(path: Path, target: str, method: str = "GET", host: str = "localhost") -> Reply:
    """One request over a unix socket."""
    connection = UnixConnection(path)
    connection.request(method, target, headers=MARKED | {"Host": host})
    reply = Reply(connection.getresponse())
    connection.close()
    return reply


def test_unix_socket(view: FakeView, tmp_path: Path) -> None:
    """A unix socket is for its owner only, serves everything, and is gone after stop."""
    path = tmp_path / "admin.sock"
    with serving(Listen(admin=f"unix://{path}"), view) as admin:
        assert admin.address == f"unix://{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        assert ask_unix(path, "/leases").status == 200
        assert ask_unix(path, REVOKE, "POST").status == 202
    assert not path.exists()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9901", "localhost.evil", "vault"])
def test_rebound_name(view: FakeView, tmp_path: Path, host: str) -> None:
    """By `ssh -L` a browser reaches it, and so may a page whose name resolves to 127.0.0.1: it gets nothing."""
    path = tmp_path / "admin.sock"
    with serving(Listen(admin=f"unix://{path}"), view):
        for target, method in (("/", "GET"), ("/leases", "GET"), (REVOKE, "POST")):
            reply = ask_unix(path, target, method, host)
            assert (reply.status, reply.json) == (421, {"error": "wrong_host"})
    assert not view.asked


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9901", "127.0.0.1:9901", "[::1]:9901", ""]
)
def test_own_names(view: FakeView, tmp_path: Path, host: str) -> None:
    """As curl, nginx and a browser behind `ssh -L` call it; a check without a name is no browser's."""
    path = tmp_path / "admin.sock"
    with serving(Listen(admin=f"unix://{path}"), view):
        assert ask_unix(path, REVOKE, "POST", host).status == 202


def test_dead_socket_is_replaced(view: FakeView, tmp_path: Path) -> None:
    """What a killed server left behind does not stop the next one."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serving(Listen(admin=f"unix://{path}"), view):
        assert ask_unix(path, "/healthz").status == 200


def test_live_socket_is_refused(view: FakeView, tmp_path: Path) -> None:
    """A socket that another server answers is not taken from it."""
    path = tmp_path / "admin.sock"
    listen = Listen(admin=f"unix://{path}")
    with serving(listen, view):
        with pytest.raises(ListenError, match="in use by another process"):
            Admin(listen, view).start()
        assert ask_unix(path, "/healthz").status == 200


def test_file_in_the_way_is_left_alone(view: FakeView, tmp_path: Path) -> None:
    """A file at the socket's path is somebody's, and stays."""
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        Admin(Listen(admin=f"unix://{path}"), view).start()
    assert path.read_text() == "precious"


def test_successors_socket_is_left_alone(view: FakeView, tmp_path: Path) -> None:
    """A server that stops late does not remove the socket of the one after it."""
    path = tmp_path / "admin.sock"
    with serving(Listen(admin=f"unix://{path}"), view):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


@pytest.mark.parametrize(
    "address", ["", "8080", "localhost:", "localhost:99999", ":1", "unix:///" + "a/" * 99 + "s"]
)
def test_unusable_address(view: FakeView, address: str) -> None:
    """An address that cannot work is refused with the option's name."""
    with pytest.raises(ListenError, match=r"listen\.admin"):
        Admin(Listen(admin=address, admin_token_file=None), view).start()


def test_taken_port(admin: Admin, view: FakeView) -> None:
    """A port in use is refused with the address."""
    with pytest.raises(ListenError, match=f"{admin.address}: Address already in use"):
        Admin(Listen(admin=admin.address), view).start()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(view: FakeView) -> None:
    """An IPv6 address in brackets works."""
    with serving(Listen(admin="[::1]:0"), view) as admin:
        assert admin.address.startswith("[::1]:")
        connection = http.client.HTTPConnection("::1", port(admin), timeout=PATIENCE)
        connection.request("GET", "/healthz")
        assert Reply(connection.getresponse()).status == 200
        connection.close()
