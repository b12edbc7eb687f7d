"""A stored certificate ends at its own notAfter, as a stored token does at its exp."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.forms.tls import ClientCertificate
from vaultauthz.config.values import KvSecret
from vaultauthz.core.grant import EndedSecretError
from vaultauthz.core.injection import used_fields
from vaultauthz.vault import grants
from vaultauthz.vault.certificates import Names, Validity, alternative_names, not_after, validities
from vaultauthz.vault.ends import Now

T = 1796032800  # 2026-11-30T10:00:00Z
KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])


def pem(end: float, *, serial: int = 1) -> str:
    """A certificate that ends then."""
    until = datetime.fromtimestamp(end, UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(until - timedelta(days=1))
        .not_valid_after(until)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def named(*names: x509.GeneralName, serial: int = 1) -> bytes:
    """A certificate with these names, behind another extension."""
    when = datetime.fromtimestamp(T, UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(when)
        .not_valid_after(when)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


@pytest.mark.parametrize("year", [1951, 1969, 1999, 2026, 2049, 2050, 2068, 2069, 9999])
def test_the_end_of_any_century(year: int) -> None:
    """Two digits for a year until 2049, four from then on."""
    end = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert not_after(pem(end)) == end


@given(st.integers(0, 2**33), st.integers(1, 2**158))
def test_the_end_is_what_its_maker_wrote(end: int, serial: int) -> None:
    """Whatever the length of what stands before it; of the first where others follow."""
    text = pem(end, serial=serial)
    assert not_after(text) == end
    assert not_after(f"subject=CN = gateway\n{text}{pem(T)}") == end


@given(st.binary(max_size=200), st.integers(0, 400))
def test_what_is_no_certificate_has_no_end(noise: bytes, at: int) -> None:
    """Or one that somebody has cut or overwritten has some: never an error."""
    text = pem(T).splitlines()
    body = "".join(text[1:-1])
    mixed = body[:at] + noise.hex() + body[at + len(noise) :]
    not_after(f"{text[0]}\n{mixed}\n{text[-1]}")
    assert not_after(noise.decode("latin-1")) is None


def test_one_in_kv_is_used_until_then() -> None:
    """The chain that stands beside it may hold an authority's that has ended."""
    key = "-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----"
    data = {"certificate": pem(T + 60), "private_key": key, "ca_chain": [pem(T - 60)]}
    grant = grants.kv({"data": data}, KvSecret("secret/partner"), 1, Now(T, T))
    assert grant.fitting(used_fields([ClientCertificate()])).ends_in == 60.0
    data["certificate"] = pem(T - 1)
    grant = grants.kv({"data": data}, KvSecret("secret/partner"), 1, Now(T, T))
    with pytest.raises(EndedSecretError, match=r"field certificate .* notAfter"):
        grant.fitting(used_fields([ClientCertificate()]))


def test_all_of_a_text_from_when_to_when() -> None:
    """In their order; what cannot be read is left out."""
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    text = f"{pem(T)}{broken}{pem(T + 5)}".encode()
    assert validities(text) == [Validity(T - 86400, T), Validity(T - 86395, T + 5)]
    assert validities(b"\xff") == []


NAMED = st.from_regex(r"[ -~\0]{1,200}", fullmatch=True)


@given(st.lists(NAMED, max_size=5), st.lists(NAMED, max_size=5), st.integers(1, 2**158))
def test_its_names_are_whole(dns: list[str], uri: list[str], serial: int) -> None:
    """Of two types, in their order, with whatever is in them; others stand between."""
    others = [x509.RFC822Name("a@b.test"), x509.DirectoryName(NAME)]
    names = [
        *map(x509.DNSName, dns),
        *others,
        *map(x509.UniformResourceIdentifier, uri),
    ]
    text = named(*names, serial=serial)
    expected = Names(tuple(n.encode() for n in dns), tuple(n.encode() for n in uri))
    assert alternative_names(text) == expected
    assert alternative_names(text + pem(T).encode()) == expected
    assert alternative_names(pem(T).encode()) == Names()


@given(st.binary(max_size=200), st.integers(0, 600))
def test_names_of_what_is_no_certificate(noise: bytes, at: int) -> None:
    """Or of one that somebody has cut or overwritten: never an error."""
    text = named(x509.DNSName("gateway.internal"))
    alternative_names(text[:at] + noise + text[at + len(noise) :])
