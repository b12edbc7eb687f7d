"""Vault's own words at a refused login, as they are told, and the setting that doctor names.

The texts are Vault 1.21.4's, its plugins' of that release, or what OpenBao 2.7.2 answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.doctor import examples as ex
from tests.unit.doctor.examples import judged
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.azure import Azure
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.methods import METHODS
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.core.redaction import HIDDEN
from vaultauthz.doctor.evidence import Trouble
from vaultauthz.doctor.finding import Finding
from vaultauthz.doctor.rules.login import _FailedLogin, _in_vaults_words
from vaultauthz.vault.errors import Call, of_status

AUTHS: Final[dict[str, AuthMethod]] = {
    "approle": AppRole("gateway", secret_id_file=Path("/run/id")),
    "kubernetes": Kubernetes("gw"),
    "jwt": Jwt("gw", Path("/run/jwt")),
    "cert": Cert(Path("/c"), Path("/k"), "web"),
    "userpass": UserPass("joe", Path("/p")),
    "ldap": Ldap("joe", Path("/p")),
    "aws": Aws("gw"),
    "gcp": Gcp("gw"),
    "azure": Azure("gw"),
}
_DATA: Final = yaml.safe_load((Path(__file__).parents[2] / "data/refused_logins.yaml").read_text())
TEXTS: Final = [
    pytest.param(method, row["status"], row["said"], row["why"], row["mend"], id=f"{method}-{at}")
    for method, rows in _DATA.items()
    for at, row in enumerate(rows)
]


def answered(status: int, text: str) -> Trouble:
    """The login's answer, of which not a word is told: all of it may be hidden or cut."""
    return Trouble.of(of_status(Call.LOGIN, status, [text], detail=HIDDEN))


def refused(method: str, status: int, text: str, *, mounted: bool | None = None) -> Finding:
    """What doctor says of a login that was answered so."""
    auth, trouble = AUTHS[method], answered(status, text)
    gone = {"token": None, "role": "", "accesses": (), "places": (), "fetched": ()}
    (finding,) = judged(ex.stage(auth=auth, login=trouble, mounted=mounted, **gone))
    return finding


@pytest.mark.parametrize(("method", "status", "text", "means", "mend"), TEXTS)
def test_vaults_words_name_the_setting(
    method: str, status: int, text: str, means: str, mend: str
) -> None:
    """What is wrong in the reason, and what to set in the way out or in a command."""
    finding = refused(method, status, text)
    assert means in finding.why
    assert mend in finding.mend + "\n" + "\n".join(finding.lines)
    assert finding.severity == "error"


def test_each_method_is_tried_here() -> None:
    """All that log in; a token from a file does not."""
    assert set(AUTHS) == {name for name, method in METHODS.items() if method.owns_token}


def test_each_row_is_reached_by_a_text_of_vaults() -> None:
    """None is without an example, and none stands behind another that takes all it would."""
    reached = {
        id(
            _in_vaults_words(
                _FailedLogin(AUTHS[method], answered(row["status"], row["said"]), None)
            )
        )
        for method, rows in _DATA.items()
        for row in rows
    }
    rows = [(method, row) for method, auth in AUTHS.items() for row in auth.refusals]
    assert [(method, row.texts) for method, row in rows if id(row) not in reached] == []


@pytest.mark.parametrize(
    "method", [name for name in AUTHS if name not in ("approle", "kubernetes")]
)
def test_a_plain_denial_of_a_method_that_is_there_names_the_bound_addresses(method: str) -> None:
    """`token_bound_cidrs` of each method that looks at them in the login; nothing is to be enabled."""
    finding = refused(method, 403, "permission denied", mounted=True)
    assert "token_bound_cidrs" in finding.why
    assert "no auth method" not in finding.why
    assert "enable" not in "\n".join(finding.lines)


def test_a_plain_denial_of_kubernetes_has_one_cause_less_when_it_is_there() -> None:
    """The TokenReview, or the addresses; that it is not mounted is known not to be so."""
    assert "not mounted" in refused("kubernetes", 403, "permission denied").why
    there = refused("kubernetes", 403, "permission denied", mounted=True).why
    assert "token_bound_cidrs" in there
    assert "not mounted" not in there


def test_an_approle_that_is_there_and_denies_is_locked() -> None:
    """Its token_bound_cidrs are asked later, and its mount answered."""
    finding = refused("approle", 403, "permission denied", mounted=True)
    assert finding.why.startswith("Vault has locked this login")
    assert "bao read sys/locked-users" in finding.lines


@pytest.mark.parametrize("method", AUTHS)
def test_what_is_not_mounted_is_to_be_enabled(method: str) -> None:
    """Whatever the method: doctor has asked."""
    finding = refused(method, 403, "permission denied", mounted=False)
    assert f"no auth method answers at auth/{method}" in finding.why
    assert f"bao auth enable -path={method} {method}" in finding.lines


@pytest.mark.parametrize("method", AUTHS)
def test_vaults_own_quota_is_no_fault_of_a_role(method: str) -> None:
    """A 429 is about all who log in there."""
    text = f'request path "auth/{method}/login": rate limit quota exceeded'
    assert "quota" in refused(method, 429, text).why


_ANYTHING = st.text(max_size=200)


@given(st.sampled_from(list(AUTHS)), st.sampled_from([400, 403, 404, 429, 500, 502]), _ANYTHING)
def test_other_words_are_explained_too(method: str, status: int, text: str) -> None:
    """There is always a reason and a way out, and each command is whole."""
    finding = refused(method, status, text)
    assert finding.why
    assert finding.mend
    assert not any("{" in line for line in finding.lines)
