"""Who asks for a rotation or a revocation, as it comes to the audit log: by socket, token and certificate."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import socket
import ssl
from pathlib import Path

import pytest

from tests.contract.admin.conftest import BEARER, MARKED, FakeView, Reply, port, serving
from tests.contract.admin.test_admin_sockets import UnixConnection
from tests.contract.certificates import Authority
from tests.patience import PATIENCE
from vaultauthz.admin import Admin
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.core.events import AskedBy

TARGET = "/upstreams/pay%20ments/revoke"


def act(connection: http.client.HTTPConnection, body: object = None, **headers: str) -> int:
    """Ask for it; the status."""
    text = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    try:
        connection.request("POST", TARGET, text, MARKED | headers)
        return Reply(connection.getresponse()).status
    finally:
        connection.close()


def to(admin: Admin) -> http.client.HTTPConnection:
    """A connection to its port."""
    return http.client.HTTPConnection("127.0.0.1", port(admin), timeout=PATIENCE)


def test_a_unix_socket_tells_the_user(view: FakeView, tmp_path: Path) -> None:
    """By the kernel's word, with the name that the user has, if he has one."""
    path = tmp_path / "admin.sock"
    with serving(Listen(admin=f"unix://{path}"), view):
        assert act(UnixConnection(path), {"reason": "found in a chat"}) == 202
    (operator,) = view.operators
    assert operator.who == f"uid {os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name})"
    assert operator.reason == "found in a chat"


def test_a_user_without_a_name(
    view: FakeView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    path = tmp_path / "admin.sock"
    with serving(Listen(admin=f"unix://{path}"), view):
        assert act(UnixConnection(path)) == 202
    assert [one.who for one in view.operators] == [f"uid {os.getuid()}"]


def test_a_system_that_does_not_tell(
    view: FakeView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS: it works, and nobody is named."""
    monkeypatch.delattr(socket, "SO_PEERCRED")
    path = tmp_path / "admin.sock"
    with serving(Listen(admin=f"unix://{path}"), view):
        assert act(UnixConnection(path)) == 202
    assert [one.who for one in view.operators] == ["anybody from a unix socket"]


def test_a_port_tells_the_token(guarded: Admin, view: FakeView) -> None:
    """And from where."""
    assert act(to(guarded), **BEARER) == 202
    assert [one.who for one in view.operators] == ["token from 127.0.0.1"]


def test_an_open_port_tells_nobody(admin: Admin, view: FakeView) -> None:
    """As ``admin_insecure`` has it."""
    assert act(to(admin)) == 202
    assert [one.who for one in view.operators] == ["anybody from 127.0.0.1"]


@pytest.mark.parametrize("with_token", [False, True])
def test_a_certificate_tells_its_name(
    view: FakeView, tmp_path: Path, token_file: Path, with_token: bool
) -> None:
    """The client's, which says more than the token that all share."""
    authority = Authority(tmp_path)
    ours, client = authority.issue("127.0.0.1"), authority.issue("ops.internal")
    tls = ServerTls(ours.cert, ours.key, authority.ca)
    token = token_file if with_token else None
    listen = Listen(admin="127.0.0.1:0", admin_tls=tls, admin_token_file=token)
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.load_cert_chain(client.cert, client.key)
    with serving(listen, view) as admin:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port(admin), timeout=PATIENCE, context=context
        )
        assert act(connection, **(BEARER if with_token else {})) == 202
    assert [one.who for one in view.operators] == ["certificate ops.internal from 127.0.0.1"]


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b'"x"', b"\xff", b"[" * 4000, {"reason": 1}, {"reason": None}, {"why": "x"},
        {"reason": "x", "stage": "y"}, {"reason": "a\nb"}, {"reason": "\x1b[2J"},
        {"reason": "\u202e"}, {"reason": "x" * (AskedBy.longest + 1)},
    ],
)  # fmt: skip
def test_what_is_no_reason(admin: Admin, view: FakeView, body: object) -> None:
    """Nothing is done: whoever had something to say is to know that it is not kept."""
    assert act(to(admin), body) == 400
    assert not view.asked


def test_a_secret_in_a_reason_is_not_kept(admin: Admin, view: FakeView) -> None:
    """Somebody who pastes what was found must not publish it a second time."""
    found = {"reason": "hvs.CAESIJ1 and password=hunter2secret were in a chat"}
    assert act(to(admin), found) == 202
    (operator,) = view.operators
    assert operator.reason == "<hidden> and password=<hidden> were in a chat"


def test_the_longest_reason_of_any_script_fits(admin: Admin, view: FakeView) -> None:
    """However JSON escapes it."""
    assert act(to(admin), {"reason": "\U0001f511" * AskedBy.longest}) == 202
    assert view.operators[0].reason == "\U0001f511" * AskedBy.longest
