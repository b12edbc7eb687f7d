"""TLS and unix sockets towards Vault."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.contract.certificates import Authority, Pair, server_context, stricter
from tests.contract.fake_vault import FakeVault
from tests.patience import PATIENCE
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.values import PathSecret, Tls, Vault
from vaultauthz.core.certificate import date
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.leases.clock import boottime
from vaultauthz.vault import trust
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA that Vault's certificate is from."""
    return Authority(tmp_path_factory.mktemp("ca"))


def session(values: Vault) -> Session:
    return Session(values, AppRole("gateway", Secret("s3cr3t-id")), boottime)


def failure_of(values: Vault) -> VaultError:
    """What a login that must not work fails with."""
    with pytest.raises(VaultError) as caught:
        session(values).login()
    return caught.value


def verdict_of(values: Vault) -> Verdict:
    """What follows from a login that must not work."""
    return failure_of(values).failure.verdict


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


def test_the_log_says_what_is_wrong_with_a_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    """OpenSSL's own words, and no more: unknown authority, another name, expired, no TLS."""
    stranger, ours = Authority(tmp_path, "stranger"), Tls(authority.ca)
    told = []
    for pair in (
        stranger.issue("127.0.0.1"),
        authority.issue("vault.internal"),
        authority.issue("127.0.0.1", hours=-0.5),
    ):
        with FakeVault(tls=server_context(pair)) as vault:
            told.append(failure_of(Vault(vault.address, tls=ours)))
    with FakeVault() as vault:
        told.append(failure_of(Vault(vault.address.replace("http", "https"), tls=ours)))
    assert [error.failure.verdict for error in told] == [Verdict.REFUSED] * 4
    assert [error.detail.split(",")[0] for error in told] == [
        "unable to get local issuer certificate",
        "IP address mismatch",
        "certificate has expired",
        "WRONG_VERSION_NUMBER",
    ]


def test_without_ca_cert_the_systems_authorities_count(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What OpenSSL takes for the system's store, not a list that came with a package."""
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        assert verdict_of(Vault(vault.address)) is Verdict.REFUSED
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        session(Vault(vault.address)).login()


def test_a_python_that_knows_no_store_finds_the_systems(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was built elsewhere looks where nothing is; the usual places are looked at."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setattr(trust, "_SYSTEM", (str(tmp_path / "no.pem"), str(authority.ca)))
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        session(Vault(vault.address)).login()


def test_certificates_are_loaded_once_for_all_threads(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a system's 144 authorities takes 18 ms; it is done once a session."""
    made, make = [], ssl.create_default_context

    def counted(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr("vaultauthz.vault.trust.ssl.create_default_context", counted)
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        ours = session(Vault(vault.address, tls=Tls(authority.ca)))
        token = ours.login().payload
        together = threading.Barrier(8)

        def renew() -> None:
            together.wait()
            ours.renew_token(token, 60.0)

        threads = [threading.Thread(target=renew) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(vault.heard) == 9
    assert len(made) == 1


def test_a_replaced_client_certificate_is_shown_at_once(
    authority: Authority, tmp_path: Path
) -> None:
    """Open connections keep the old one, so they are left; half a new pair changes nothing."""
    good, bad = authority.issue("gateway"), Authority(tmp_path, "stranger").issue("gateway")
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"

    def put(new: Path, place: Path) -> None:
        (tmp_path / "new").write_bytes(new.read_bytes())
        (tmp_path / "new").replace(place)

    put(good.cert, cert)
    put(good.key, key)
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"), authority.ca)) as vault:
        vault.set_approle()
        ours = session(Vault(vault.address, tls=Tls(authority.ca, cert, key)))
        ours.login()
        put(bad.cert, cert)  # its key comes a moment later
        ours.login()
        assert vault.connections == 1
        put(bad.key, key)
        with pytest.raises(VaultError) as caught:
            ours.login()
        assert "UNKNOWN_CA" in caught.value.detail
        put(good.cert, cert)
        put(good.key, key)
        ours.login()
        assert len(vault.heard) == 3


def test_a_replaced_client_certificate_is_told_of(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it is; one when another's key stays beside it, and what was loaded stays in use."""
    caplog.set_level(logging.INFO, "vaultauthz")
    cert, key, times = tmp_path / "c.pem", tmp_path / "k.pem", [0.0]

    def put(pair: Pair) -> None:
        shutil.copyfile(pair.cert, cert)
        shutil.copyfile(pair.key, key)

    put(authority.issue("first"))
    found = trust.Trust(Tls(authority.ca, cert, key), "prod", lambda: times[-1])
    assert found.client  # before the first call, what is in the file
    before, first = found.client.not_after, found.context()
    put(authority.issue("second", hours=2))
    second = found.context()
    assert second is not first
    assert (found.client.taken, found.client.not_after > before) == (1, True)
    shutil.copyfile(authority.issue("third").key, key)
    for now in (0.0, 1.9, 2.1, 9.0):
        times.append(now)
        assert found.context() is second
    mismatch = f"{key} is not the key of {cert}"
    assert (found.client.refused, found.client.trouble) == (1, mismatch)
    name = "client certificate for Vault, stage prod"
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"{name}: replaced; new connections to Vault show {cert}, which ends {date(found.client.not_after)}",
        f"{name}: not taken, what was loaded stays in use: {mismatch}",
    ]
    put(authority.issue("fourth"))
    found.context()
    assert (found.client.taken, found.client.trouble) == (2, "")


def test_a_file_that_hangs_keeps_nobody_waiting(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a page is told of the certificate does not wait for a call that waits for a file."""
    pair = authority.issue("gateway")
    found = trust.Trust(Tls(authority.ca, pair.cert, pair.key))
    found.context()
    told, hangs, free = found.client, threading.Event(), threading.Event()

    def hang(_path: Path) -> None:
        hangs.set()
        assert free.wait(PATIENCE)

    monkeypatch.setattr(trust, "stamp_if_any", hang)
    calling = threading.Thread(target=found.context)
    calling.start()
    assert hangs.wait(PATIENCE)
    asked = list[object]()
    asking = threading.Thread(target=lambda: asked.append(found.client))
    asking.start()
    asking.join(PATIENCE / 4)
    waited = asking.is_alive()
    free.set()
    calling.join()
    asking.join()
    assert (waited, asked) == (False, [told])


def test_what_comes_back_is_no_trouble(authority: Authority, tmp_path: Path) -> None:
    """The same files as before, as `cp -p` or a link brings them: they are loaded already."""
    cert, key, times = tmp_path / "c.pem", tmp_path / "k.pem", [0.0]
    pair, other = authority.issue("first"), authority.issue("second")
    cert.symlink_to(pair.cert)
    key.symlink_to(pair.key)
    found = trust.Trust(Tls(authority.ca, cert, key), "prod", lambda: times[-1])
    found.context()
    for target, trouble in ((other.key, True), (pair.key, False), (other.key, True)):
        key.unlink()
        key.symlink_to(target)
        for _ in range(2):
            found.context()
            times.append(times[-1] + 3.0)
        assert found.client
        assert bool(found.client.trouble) == trouble
    assert found.client
    assert found.client.refused == 2


@pytest.mark.parametrize("with_client", [False, True])
def test_a_broken_authority_is_called_by_its_name(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, with_client: bool
) -> None:
    """It is no client certificate, whether there is one or not."""
    ca, times = tmp_path / "authorities.pem", [0.0]
    shutil.copyfile(authority.ca, ca)
    pair = authority.issue("gateway")
    tls = Tls(ca, pair.cert, pair.key) if with_client else Tls(ca)
    found = trust.Trust(tls, "prod", lambda: times[-1])
    found.context()
    ca.write_text("no certificate")
    for _ in range(2):
        found.context()
        times.append(times[-1] + 3.0)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(
        "ca_cert for Vault, stage prod: not taken, what was loaded stays in use: "
    )
    assert str(ca) in said
    assert (found.client.trouble.startswith(str(ca)) if found.client else None) == (
        True if with_client else None
    )


def test_what_is_shown_says_from_when_it_is_good(authority: Authority) -> None:
    """So how long it lives is known, and when its end is near."""
    pair = authority.issue("gateway", hours=1)
    found = trust.Trust(Tls(authority.ca, pair.cert, pair.key))
    for _ in range(2):
        assert found.client
        assert 0 < found.client.not_after - found.client.not_before < 86_400.0
        found.context()


def test_a_replaced_authority_is_trusted_at_once(authority: Authority, tmp_path: Path) -> None:
    """The file of `ca_cert` is read again when it has changed."""
    (tmp_path / "ca.pem").write_bytes(Authority(tmp_path, "before").ca.read_bytes())
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        ours = session(Vault(vault.address, tls=Tls(tmp_path / "ca.pem")))
        with pytest.raises(VaultError):
            ours.login()
        (tmp_path / "ca.pem").write_bytes(authority.ca.read_bytes())
        ours.login()


def test_an_encrypted_key_is_an_error_and_no_question(authority: Authority, tmp_path: Path) -> None:
    """OpenSSL would ask for its password at the terminal, and wait there."""
    pair = authority.issue("gateway")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        error = failure_of(Vault(vault.address, tls=Tls(authority.ca, pair.cert, locked)))
    assert error.failure.verdict is Verdict.RETRY
    assert "certificate file" in error.failure.reason


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
        ours = session(Vault(vault.address, timeout=PATIENCE))
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


@pytest.fixture(params=["as it is", "3.13"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python whose contexts are made as from 3.13 on, whichever runs this."""
    if request.param != "as it is":
        monkeypatch.setattr(ssl, "create_default_context", stricter)


@pytest.mark.usefixtures("python")
def test_a_home_made_ca(tmp_path: Path) -> None:
    """Without keyUsage and authorityKeyIdentifier it is taken, as by Vault's other clients."""
    plain = Authority(tmp_path, "home-made", plain=True)
    with FakeVault(tls=server_context(plain.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        session(Vault(vault.address, tls=Tls(ca_cert=plain.ca))).login()
        strict = Tls(ca_cert=plain.ca, x509_strict=True)
        error = failure_of(Vault(vault.address, tls=strict))
    assert error.failure.reason == "Vault's certificate is not accepted"
    assert error.detail.lower() in (
        "missing authority key identifier",
        "ca cert does not include key usage extension",
    )


@pytest.mark.usefixtures("python")
def test_what_rfc_5280_demands_is_enough(authority: Authority) -> None:
    """x509_strict takes a certificate that has it all."""
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        session(Vault(vault.address, tls=Tls(ca_cert=authority.ca, x509_strict=True))).login()


@pytest.mark.usefixtures("python")
def test_a_stranger_is_refused_under_each_python(authority: Authority, tmp_path: Path) -> None:
    """What is asked for besides strictness: an authority that we know, and the name."""
    stranger = Authority(tmp_path, "stranger", plain=True)
    with FakeVault(tls=server_context(stranger.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        assert verdict_of(Vault(vault.address, tls=Tls(ca_cert=authority.ca))) is Verdict.REFUSED
    with FakeVault(tls=server_context(authority.issue("vault.test"))) as vault:
        vault.set_approle()
        assert verdict_of(Vault(vault.address, tls=Tls(ca_cert=authority.ca))) is Verdict.REFUSED


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\xef\xbb\xbf# a CA\r\n"])
def test_a_byte_order_mark_before_certificates(
    authority: Authority, tmp_path: Path, before: bytes
) -> None:
    """They are read past it."""
    ca = tmp_path / "marked.pem"
    ca.write_bytes(before + authority.ca.read_bytes().replace(b"\n", b"\r\n"))
    with FakeVault(tls=server_context(authority.issue("127.0.0.1"))) as vault:
        vault.set_approle()
        session(Vault(vault.address, tls=Tls(ca_cert=ca))).login()
