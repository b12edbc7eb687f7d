"""Certificate logins against a real OpenBao's door with TLS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.contract.certificates import Authority, Pair
from vaultauthz.config.auth.cert import Cert
from vaultauthz.core.grant import Verdict
from vaultauthz.vault.certificates import validities
from vaultauthz.vault.errors import VaultError

from .auth_bao import AuthBao, failure_of

pytestmark = pytest.mark.integration

NAME = "gateway.internal"


@pytest.fixture
def authority(vault: AuthBao, tmp_path: Path) -> Iterator[Authority]:
    """Who signs the certificates that OpenBao takes, for the role `gateway`."""
    authority = Authority(tmp_path, "client CA")
    vault.enable_auth("cert")
    vault.write(
        "auth/cert/certs/gateway",
        certificate=authority.ca.read_text(),
        allowed_common_names=[NAME],
        token_ttl="10m",
    )
    yield authority
    vault.client().delete("auth/cert/certs/gateway")


def auth_of(pair: Pair, role: str = "gateway") -> Cert:
    return Cert(pair.cert, pair.key, role)


def test_login_and_renewal_show_the_certificate(vault: AuthBao, authority: Authority) -> None:
    """Vault renews such a token only for its certificate; by name or not, the role is found."""
    pair = authority.issue(NAME)
    for role in ("gateway", ""):
        session = vault.session(auth_of(pair, role))
        grant = session.login()
        assert (grant.ttl, grant.renewable) == (600.0, True)
        assert session.renew_token(grant.payload, 600.0).ttl == 600.0


def test_a_certificate_that_the_role_does_not_take_is_refused(
    vault: AuthBao, authority: Authority, tmp_path: Path
) -> None:
    """Of another CA, for another name, for a role that is not there, and with none at all."""
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    pair = authority.issue(NAME)
    for auth in (
        auth_of(Authority(strangers, "other CA").issue(NAME)),
        auth_of(authority.issue("other.internal")),
        auth_of(pair, "no-such-role"),
    ):
        error = failure_of(vault.session(auth))
        assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)
    vault.session(auth_of(pair)).login()


def test_a_revoked_certificate_is_refused(vault: AuthBao, tmp_path: Path) -> None:
    """One that the PKI engine issued logs in until its revocation list names it."""
    pki = vault.pki("cert-pki")
    issued = pki.issue_client(tmp_path, "spiffe://corp/gateway")
    ca = pki.ca(tmp_path).read_text()
    vault.enable_auth("cert")
    vault.write("auth/cert/certs/revocable", certificate=ca)
    session = vault.session(Cert(issued.cert, issued.key, "revocable"))
    session.login()
    vault.write("cert-pki/revoke", certificate=issued.cert.read_text().split("\n\n")[0])
    crl = vault.client().adapter.get("/v1/cert-pki/crl/pem").text
    vault.write("auth/cert/crls/cert-pki", crl=crl)
    error = failure_of(session)
    assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)


def test_a_renewed_certificate_is_shown_from_then_on(
    vault: AuthBao, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """The next login is by it, and a line says so; the token of the old one is not renewed by it."""
    caplog.set_level(logging.INFO, "vaultauthz")
    pair = authority.issue(NAME)
    session = vault.session(auth_of(pair))
    old = session.login()
    authority.issue(NAME)  # into the same files
    with pytest.raises(VaultError) as caught:
        session.renew_token(old.payload, 600.0)
    assert "client identity" in caught.value.detail
    new = session.login()
    assert session.renew_token(new.payload, 600.0).ttl == 600.0
    session.revoke_token(old.payload)  # which wants no certificate
    assert set(session.watched) == {pair.cert, pair.key}
    shown = session.client_certificate
    assert shown
    assert (shown.taken, shown.trouble, shown.file) == (1, "", str(pair.cert))
    assert shown.not_after == validities(pair.cert.read_bytes())[0].ends
    (told,) = [text for text in caplog.messages if text.startswith("client certificate for Vault")]
    assert told.startswith("client certificate for Vault: replaced; new connections to Vault show ")


def test_a_pair_that_is_half_replaced_does_no_harm(vault: AuthBao, authority: Authority) -> None:
    """Until both files fit again, what was loaded is shown; a start with such a pair waits."""
    pair, other = authority.issue(NAME), authority.issue("other.internal")
    key = pair.key.read_bytes()
    loaded = serialization.load_pem_private_key(key, None)
    encrypted = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    session = vault.session(auth_of(pair))
    session.login()
    for content in (other.key.read_bytes(), b"no PEM", encrypted, None):
        pair.key.unlink() if content is None else pair.key.write_bytes(content)
        session.login()
        started = vault.session(auth_of(pair))
        error = failure_of(started)
        assert (error.status, error.failure.verdict) == (0, Verdict.RETRY)
        pair.key.write_bytes(key)
        started.login()
