"""The certificates that clients of ours are shown, as doctor looks at them."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from tests.contract.certificates import Authority
from vaultauthz.config.values import Config, Listen, ServerTls, Vault
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.doctor import shown
from vaultauthz.doctor.evidence import Evidence, Shown
from vaultauthz.doctor.rules import judge
from vaultauthz.doctor.show import as_json, as_text
from vaultauthz.terminal import Output

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


DAY = 24 * HOUR
NOW = 1_800_000_000.0


def client(left: float, life: float = 90 * DAY) -> Shown:
    """What we show Vault, with so much of its life left."""
    one = EndingCertificate(
        "vault", NOW + left, "prod", file="/c.pem", not_before=NOW + left - life
    )
    return Shown(one, left)


@pytest.mark.parametrize(
    ("left", "life", "said"),
    [
        (8 * DAY, 90 * DAY, []),
        (6 * DAY, 90 * DAY, [("warning", "ends in 6d (2027-01-21T08:00:00Z)")]),
        (6 * DAY, 8 * DAY, []),
        (6 * DAY, 7 * DAY, []),  # as long as what renews it has time
        (0.6 * DAY, 7 * DAY, [("warning", "ends in 14h24m (2027-01-15T22:24:00Z)")]),
        (-1.0, 7 * DAY, [("error", "has ended (2027-01-15T07:59:59Z)")]),
    ],
)
def test_what_vault_is_shown(left: float, life: float, said: list[tuple[str, str]]) -> None:
    """A week before its end, or in the last tenth of a shorter life."""
    name = "client certificate for Vault in prod: /c.pem"
    assert told(client(left, life)) == [(severity, f"{name} {text}") for severity, text in said]


def test_they_are_shown(listen: Listen) -> None:
    """In a table of their own, and in the JSON."""
    found = (*shown(listening(listen), NOW), client(6 * DAY), client(-1.0))
    facts, out = Evidence((), (), shown=found), io.StringIO()
    as_text(facts, (), Output(out))
    lines = [line.split("  ") for line in out.getvalue().splitlines()]
    heads = next(line for line in lines if line[0] == "CERTIFICATE")
    rows = [[cell.strip() for cell in line if cell] for line in lines[lines.index(heads) + 1 :]]
    assert rows[2] == [
        "client certificate for Vault in prod",
        "6d",
        "2027-01-21T08:00:00Z",
        "/c.pem",
    ]
    assert rows[3][1] == "ENDED"
    told_to_programs = as_json(facts, ())["certificates"]
    assert [one["use"] for one in told_to_programs] == ["grpc", "admin", "vault", "vault"]
    assert (told_to_programs[2]["not_after"], told_to_programs[2]["ends_in"]) == (
        NOW + 6 * DAY,
        6 * DAY,
    )
