"""TLS and unix sockets towards Vault."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tests.contract.certificates import Authority, server_context
from tests.contract.fake_vault import FakeVault
from vaultauthz.config.methods import AppRole
from vaultauthz.config.values import PathSecret, Tls, Vault
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA that Vault's certificate is from."""
    return Authority(tmp_path_factory.mktemp("ca"))


def session(values: Vault) -> Session:
    return Session(values, AppRole("gateway", Secret("s3cr3t-id")), boottime)


def verdict_of(values: Vault) -> Verdict:
    """What a login that must not work fails with."""
    with pytest.raises(VaultError) as caught:
        session(values).login()
    return caught.value.failure.verdict


def test_a_certificate_of_the_configured_ca_is_taken(authority: Authority) -> None:
    """With ca_cert and the address's name in the certificate, all is well."""
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        session(Vault(vault.address, tls=Tls(ca_cert=authority.ca))).login()


def test_a_certificate_of_another_ca_is_refused_for_good(
    authority: Authority, tmp_path: Path
) -> None:
    """Neither a wrong CA nor the system's own list takes it, and nothing is sent."""
    stranger = Authority(tmp_path, "stranger")
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        assert verdict_of(Vault(vault.address, tls=Tls(stranger.ca))) is Verdict.REFUSED
        assert verdict_of(Vault(vault.address)) is Verdict.REFUSED
        assert vault.heard == []


def test_server_name_is_what_is_asked_for_and_checked(authority: Authority) -> None:
    """A certificate for another name than the address is taken by server_name only."""
    with FakeVault(tls=server_context(authority.issue("vault.internal"))) as vault:
        vault.set_approle()
        right = Tls(authority.ca, server_name="vault.internal")
        session(Vault(vault.address, tls=right)).login()
        wrong = Tls(authority.ca, server_name="other.internal")
        assert verdict_of(Vault(vault.address, tls=wrong)) is Verdict.REFUSED
        assert verdict_of(Vault(vault.address, tls=Tls(authority.ca))) is Verdict.REFUSED
        assert len(vault.heard) == 1


def test_the_client_certificate_is_shown(authority: Authority, tmp_path: Path) -> None:
    """A Vault that wants a client certificate gets ours, also from one file with both."""
    client = authority.issue("gateway.internal")
    both = tmp_path / "both.pem"
    both.write_bytes(client.cert.read_bytes() + client.key.read_bytes())
    context = server_context(authority.issue("127.0.0.1"), authority.ca)
    with FakeVault(tls=context) as vault:
        vault.set_approle()
        session(Vault(vault.address, tls=Tls(authority.ca, client.cert, client.key))).login()
        session(Vault(vault.address, tls=Tls(authority.ca, both))).login()
        with pytest.raises(VaultError):
            session(Vault(vault.address, tls=Tls(authority.ca))).login()


def test_a_missing_certificate_file_is_an_error_and_no_crash(
    authority: Authority, tmp_path: Path
) -> None:
    """A file of `tls` that vanished after the start is a VaultError like others."""
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        verdict_of(Vault(vault.address, tls=Tls(tmp_path / "gone.pem")))
        verdict_of(Vault(vault.address, tls=Tls(authority.ca, tmp_path / "gone.pem")))
        (tmp_path / "bad.pem").write_text("no certificate")
        verdict_of(Vault(vault.address, tls=Tls(tmp_path / "bad.pem")))


def test_a_server_that_hangs_up_in_the_handshake_passes() -> None:
    """A stopping server closes within the handshake: no reason to give up on its certificate."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(64)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        port = server.getsockname()[1]
        assert verdict_of(Vault(f"https://127.0.0.1:{port}")) is Verdict.RETRY
        thread.join()


def test_plain_http_behind_an_https_address_is_refused() -> None:
    """A server that does not speak TLS gets nothing from us."""
    with FakeVault() as vault:
        address = vault.address.replace("http://", "https://")
        assert verdict_of(Vault(address)) is Verdict.REFUSED
        assert vault.heard == []


def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    """Calls go over the socket; when it is gone they fail, when it is back they work."""
    with FakeVault(unix=tmp_path / "agent.sock") as vault:
        vault.set_approle()
        vault.set_creds("database/creds/pay")
        ours = session(Vault(vault.address, timeout=2.0))
        grant = ours.login()
        source = PathSecret("database/creds/pay")

        def fetch() -> Grant:
            return ours.fetch(grant.payload, grant.login, source)

        assert fetch().lease_id
        vault.stop()
        with pytest.raises(VaultError) as caught:
            fetch()
        assert caught.value.failure.verdict is Verdict.RETRY
        (tmp_path / "agent.sock").unlink()
        assert verdict_of(Vault(vault.address)) is Verdict.RETRY
        vault.start()
        assert fetch().lease_id
