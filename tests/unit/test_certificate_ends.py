"""The certificates that end, from files, listeners, logins and leases, and what is said of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.certificates import Authority, Pair
from vaultauthz.certificates import configured, ending, in_use
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.values import Config, Listen, ServerTls, Stage, Tls, Vault
from vaultauthz.core.certificate import SOON, EndingCertificate, date
from vaultauthz.core.grant import Grant
from vaultauthz.core.secret import Fields
from vaultauthz.server_tls import FollowedTls
from vaultauthz.vault.ends import of_certificates

NOW = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Good for an hour."""
    return Authority(tmp_path).issue("localhost")


def file_of(config: Config) -> dict[str, str]:
    """Each certificate's file by what it is called."""
    return {one.name: Path(one.file).name for one in configured(config)}


def a_stage(name: str, pair: Pair) -> Stage:
    """One that logs in by a certificate of its own."""
    return Stage(name, Cert(pair.cert, pair.key))


def test_the_files_of_a_configuration(pair: Pair, tmp_path: Path) -> None:
    """Listeners', and of each stage what it shows Vault: its own, or that of the connection."""
    shown = Authority(tmp_path).issue("usual")
    tls = ServerTls(pair.cert, pair.key)
    config = Config(
        Vault("https://vault.test", tls=Tls(None, shown.cert, shown.key)),
        {"prod": a_stage("prod", pair), "dev": a_stage("dev", shown)},
        {},
        listen=Listen(grpc_tls=tls, admin_tls=tls),
    )
    assert file_of(config) == {
        "listen.grpc_tls": "localhost.crt",
        "listen.admin_tls": "localhost.crt",
        "client certificate for Vault in prod": "localhost.crt",
        "client certificate for Vault in dev": "usual.crt",
    }
    assert len({one.not_after for one in configured(config)}) <= 2


def test_a_vault_without_tls_is_shown_nothing(pair: Pair) -> None:
    """A unix socket, or loopback in clear text."""
    vault = Vault("http://127.0.0.1:1", tls=Tls(None, pair.cert, pair.key))
    assert configured(Config(vault, {"dev": a_stage("dev", pair)}, {})) == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It says so, and has no end."""
    tls = ServerTls(tmp_path / "gone.crt", tmp_path / "gone.key")
    (one,) = configured(Config(Vault(""), {}, {}, listen=Listen(grpc_tls=tls)))
    assert one.trouble == f"cannot read {tmp_path / 'gone.crt'}: No such file or directory"
    assert one.not_after == inf
    assert list(ending([one], NOW)) == []


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (SOON + 1, None),
        (SOON - 1, "ends in 7.0 days"),
        (0.5 * DAY, "ends in 0.5 days"),
        (900.0, "ends in 15 minutes"),
        (-1, "has ended (2027-01-15T07:59:59Z), and nobody new can connect"),
    ],
)
def test_what_is_said(left: float, said: str | None) -> None:
    """Under seven days, and once it has ended, what that means."""
    lines = list(ending([EndingCertificate("grpc", NOW + left, file="tls.crt")], NOW))
    assert [bool(said and said in line) for line in lines] == ([True] if said else [])


@pytest.mark.parametrize(
    ("left", "life", "near"),
    [
        (6.9, inf, True),
        (7.1, inf, False),
        (6.9, 90.0, True),
        (6.9, 30.0, False),
        (2.9, 30.0, True),
        (0.9, 1.0, False),
        (0.09, 1.0, True),
        (-0.1, 1.0, True),
        (-0.1, -1.0, True),
    ],
)
def test_what_is_near(left: float, life: float, near: bool) -> None:
    """A week, and of a life that is shorter than ten weeks its last tenth; one rule for all that tell of it."""
    end = NOW + left * DAY
    one = EndingCertificate("grpc", end, file="c.pem", not_before=end - life * DAY)
    assert one.near(NOW) == near
    assert len(list(ending([one], NOW))) == near


def test_one_file_is_told_of_once() -> None:
    """However many stages show it."""
    one = EndingCertificate("vault", NOW + DAY, "dev", file="c.pem")
    (line,) = ending([one, replace(one, stage="prod")], NOW)
    assert line.startswith("client certificate for Vault in dev: c.pem ends in 1.0 days (2027-")


def test_what_a_server_uses(pair: Pair, tmp_path: Path) -> None:
    """All kinds, in the order of their uses; of callers' own the first to end."""
    tls = FollowedTls("listen.grpc_tls", ServerTls(pair.cert, pair.key))
    issued = [("prod", "mesh", 9.0), ("prod", "mesh", 7.0), ("prod", "pay", None)]
    found = in_use({"grpc": tls}, {"prod": EndingCertificate("vault", 5.0)}, issued)
    assert [(one.use, one.stage, one.upstream) for one in found] == [
        ("grpc", "", ""),
        ("vault", "prod", ""),
        ("upstream", "prod", "mesh"),
    ]
    assert [one.not_after for one in found[1:]] == [5.0, 7.0]
    assert found[0].not_after == tls.identity.validity.ends
    shutil.copyfile(Authority(tmp_path).issue("other").key, pair.key)
    tls.look(final=True)
    (listener,) = in_use({"grpc": tls}, {}, [])
    assert (listener.trouble, listener.refused) == (f"{pair.key} is not the key of {pair.cert}", 1)


def test_the_certificate_of_a_credential(pair: Pair) -> None:
    """Of the fields that go on requests: an authority's beside it is not looked at."""
    text = pair.cert.read_text()
    fields = Fields.of({"certificate": text, "issuing_ca": text, "serial_number": "1"})
    grant = Grant(fields, certificates=of_certificates(fields))
    assert set(grant.certificates) == {"certificate", "issuing_ca"}
    assert grant.using(["certificate"]).not_after == grant.certificates["certificate"]
    assert grant.using(["serial_number"]).not_after == inf


@given(st.floats(allow_nan=False))
def test_every_moment_has_a_date(when: float) -> None:
    """No notAfter of a client's or an authority's own making ends a page."""
    assert date(when)
