"""The certificates that clients of ours are shown, as doctor looks at them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.contract.certificates import Authority
from vaultauthz.config.values import Config, Listen, ServerTls, Vault
from vaultauthz.doctor import shown
from vaultauthz.doctor.evidence import Evidence, Shown
from vaultauthz.doctor.rules import judge

HOUR = 3600.0


@pytest.fixture
def listen(tmp_path: Path) -> Listen:
    """Both listeners with certificates of an hour, of which an hour has gone before."""
    authority = Authority(tmp_path)
    grpc, admin = authority.issue("grpc.test"), authority.issue("admin.test")
    return Listen(
        grpc_tls=ServerTls(grpc.cert, grpc.key, authority.ca, ("gateway",)),
        admin_tls=ServerTls(admin.cert, admin.key),
    )


def listening(listen: Listen) -> Config:
    """A configuration of nothing else."""
    return Config(Vault("http://127.0.0.1:1"), {}, {}, listen=listen)


def told(*found: Shown) -> list[tuple[str, str]]:
    """Severity and words of the findings."""
    findings = judge(Evidence((), (), shown=found))
    return [(finding.severity, finding.what) for finding in findings]


def test_those_that_are_good(listen: Listen) -> None:
    """Nothing is said of them, nor where there is no TLS."""
    found = shown(listening(listen), time.time())
    assert [one.certificate.name for one in found] == ["listen.grpc_tls", "listen.admin_tls"]
    assert told(*found) == []
    assert shown(listening(Listen()), 0.0) == ()


def test_one_that_is_about_to_end(listen: Listen) -> None:
    """Measured by its own life: one of an hour is renewed in its last minutes."""
    found = shown(listening(listen), time.time() + 0.95 * HOUR)
    assert [severity for severity, _ in told(*found)] == ["warning", "warning"]
    assert "grpc.test.crt ends in " in told(*found)[0][1]


def test_one_that_would_not_be_taken(listen: Listen) -> None:
    """Ended; or with another's key."""
    ended = shown(listening(listen), time.time() + 2 * HOUR)
    assert [severity for severity, _ in told(*ended)] == ["error", "error"]
    assert "grpc.test.crt has ended" in told(*ended)[0][1]
    assert listen.grpc_tls
    assert listen.admin_tls
    listen.grpc_tls.key.write_bytes(listen.admin_tls.key.read_bytes())
    ((severity, what),) = told(*shown(listening(listen), time.time()))
    assert severity == "error"
    assert what.startswith("listen.grpc_tls: ")
    assert "is not the key of" in what
