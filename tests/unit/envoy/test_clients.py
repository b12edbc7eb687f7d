from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from vaultauthz.envoy.refused_calls import Clients
from vaultauthz.envoy.rpc import PERMISSION_DENIED, RpcError

NAMES = ("gateway.internal", "spiffe://Corp/gateway")
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*names: x509.GeneralName, cn: str = "") -> bytes:
    """One with these names, as PEM."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)] if cn else [])
    when = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(when)
        .not_valid_after(when)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def auth(
    *, dns: tuple[str, ...] = (), uri: tuple[str, ...] = (), cn: str = ""
) -> dict[str, list[bytes]]:
    """What gRPC tells of a client's certificate, each name up to its first NUL."""
    names = [*map(x509.UniformResourceIdentifier, uri), *map(x509.DNSName, dns)]
    found = {
        "peer_dns": [name.partition("\0")[0].encode() for name in dns],
        "peer_uri": [name.partition("\0")[0].encode() for name in uri],
        "x509_common_name": [cn.encode()] if cn else [],
        "x509_pem_cert": [certificate(*names, cn=cn)],
    }
    return {key: told for key, told in found.items() if told}


@pytest.mark.parametrize(
    "known",
    [
        auth(dns=("gateway.internal",)),
        auth(dns=("other.internal", "GateWay.Internal")),
        auth(uri=("spiffe://Corp/gateway",), dns=("other.internal",)),
    ],
)
def test_one_of_its_names_is_enough(known: dict[str, list[bytes]]) -> None:
    """DNS names in any letter case; URIs as they are."""
    clients = Clients(NAMES)
    clients.admit(known, "s")
    assert clients.refused == {}


@pytest.mark.parametrize(
    "other",
    [
        {},
        auth(cn="gateway.internal"),
        auth(dns=("other.internal",), cn="gateway.internal"),
        auth(uri=("spiffe://corp/gateway",)),
        auth(uri=("spiffe://Corp/gateway/x", "spiffe://Corp/gatewa")),
        auth(uri=("gateway.internal",)),
        auth(dns=("spiffe://Corp/gateway/",)),
        auth(
            dns=(
                "*.internal",
                "gateway.internal.",
                " gateway.internal",
                "gateway.internal\0.evil.test",
            )
        ),
        auth(uri=("spiffe://Corp/gateway\0x",)),
        {"x509_pem_cert": [certificate(x509.RFC822Name("gateway.internal"))]},
        {"x509_pem_cert": [b"no certificate"]},
    ],
)
def test_others_are_refused(other: dict[str, list[bytes]]) -> None:
    """A common name, another letter case of a URI, a wildcard, a part: none of them is a name."""
    clients = Clients(NAMES)
    with pytest.raises(RpcError) as caught:
        clients.admit(other, "s")
    assert caught.value.code == PERMISSION_DENIED
    assert clients.refused == {"s": 1}


def test_they_are_counted_and_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """One line a minute, with names that somebody else chose: bounded, and on one line."""
    heard: list[tuple[str, str]] = []
    clients = Clients(NAMES, lambda names, reason: heard.append((names, reason)))
    many = auth(dns=("a\nb.test", *(f"n{number}.test" for number in range(1000))))
    for service in ("one", "two", "one"):
        with pytest.raises(RpcError):
            clients.admit(many, service)
    assert clients.refused == {"one": 2, "two": 1}
    (line,) = caplog.messages
    assert "one was refused" in line
    assert "a b.test" in line
    assert len(line) < 2000
    ((names, reason),) = heard
    assert "a b.test" in names
    assert len(names) < 1500
    assert reason == "one: not of client_names; 1 calls since the last such line"


def test_a_certificate_without_names_is_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    """Who has only given it a common name learns why that does not do."""
    with pytest.raises(RpcError):
        Clients(NAMES).admit(auth(cn="gateway.internal"), "s")
    assert "a common name does not count" in caplog.text
