"""TLS: with and without client certificates, and renewed ones."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

import pytest
import trustme

from tests.contract.admin.conftest import (
    GET,
    FakeView,
    Reply,
    port,
    raw,
    serving,
)
from tests.patience import PATIENCE
from vaultauthz.admin import Admin
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.listening import ListenError


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """A certificate authority for the module."""
    return trustme.CA()


def issue(ca: trustme.CA, folder: Path) -> ServerTls:
    """A certificate for loopback, in files."""
    issued = ca.issue_cert("127.0.0.1", "localhost")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return ServerTls(cert, key)


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    """A client that trusts this authority."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def ask_tls(admin: Admin, context: ssl.SSLContext) -> tuple[int, bytes]:
    """The status of /leases over TLS, and the server's certificate."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port(admin), timeout=PATIENCE, context=context
    )
    try:
        connection.request("GET", "/leases")
        status = Reply(connection.getresponse()).status
        assert isinstance(connection.sock, ssl.SSLSocket)
        return status, connection.sock.getpeercert(binary_form=True) or b""
    finally:
        connection.close()


def test_tls(view: FakeView, ca: trustme.CA, tmp_path: Path) -> None:
    """With admin_tls only TLS is answered; plain HTTP is hung up on."""
    listen = Listen(admin="127.0.0.1:0", admin_tls=issue(ca, tmp_path))
    with serving(listen, view) as admin:
        assert ask_tls(admin, trusting(ca))[0] == 200
        assert b"HTTP/1.1" not in raw(admin, GET + b"\r\n")
        old = trusting(ca)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask_tls(admin, old)
        assert ask_tls(admin, trusting(ca))[0] == 200


def test_silent_tls_client_is_dropped(view: FakeView, ca: trustme.CA, tmp_path: Path) -> None:
    """A handshake that never comes holds a connection no longer than a silent request."""
    listen = Listen(admin="127.0.0.1:0", admin_tls=issue(ca, tmp_path))
    with serving(listen, view, quiet=0.3) as admin:
        assert raw(admin, b"\x16\x03\x01", more=True) == b""


def test_mutual_tls(view: FakeView, ca: trustme.CA, tmp_path: Path) -> None:
    """With client_ca a client without its certificate is refused."""
    files = issue(ca, tmp_path)
    root = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(root))
    tls = ServerTls(files.cert, files.key, client_ca=root)
    with serving(Listen(admin="127.0.0.1:0", admin_tls=tls), view) as admin:
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            ask_tls(admin, trusting(ca))
        known = trusting(ca)
        ca.issue_cert("operator@corp.example").configure_cert(known)
        assert ask_tls(admin, known)[0] == 200


def test_renewed_certificate(view: FakeView, ca: trustme.CA, tmp_path: Path) -> None:
    """A renewed certificate is served without a restart; half of a new pair is not."""
    files = issue(ca, tmp_path)
    with serving(Listen(admin="127.0.0.1:0", admin_tls=files), view) as admin:
        first = ask_tls(admin, trusting(ca))[1]
        key = files.key.read_bytes()
        files.key.write_text("half")
        assert ask_tls(admin, trusting(ca))[1] == first
        files.key.write_bytes(key)
        issue(ca, tmp_path)
        assert ask_tls(admin, trusting(ca))[1] != first


def test_unusable_certificate(view: FakeView, tmp_path: Path) -> None:
    """Files that are no certificate and key stop the start, by name."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for text in (None, "not a certificate"):
        if text:
            cert.write_text(text)
            key.write_text(text)
        admin = Admin(Listen(admin="127.0.0.1:0", admin_tls=ServerTls(cert, key)), view)
        with pytest.raises(ListenError, match=str(cert)):
            admin.start()
