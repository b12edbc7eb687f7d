"""What a refused login means, by method and answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.doctor import examples as ex
from tests.unit.doctor.examples import judged
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.core.grant import Verdict
from vaultauthz.doctor.evidence import SecretFile, Trouble
from vaultauthz.doctor.finding import Finding
from vaultauthz.vault.errors import Call, of_status

_APPROLE = AppRole("gateway", secret_id_file=Path("/run/id"))
_JWT = Jwt("gw", Path("/run/jwt"))
_CERT = Cert(Path("/c"), Path("/k"), "web")
_TOKEN = TokenFile(Path("/run/token"))


def _refused(auth: AuthMethod, status: int, detail: str = "", **more: bool | Verdict) -> Finding:
    says = Trouble.of(of_status(Call.LOGIN, status, [detail])).says
    trouble = Trouble("refused", detail, status, says=says, **more)  # type: ignore[arg-type]
    bare = ex.stage(
        auth=auth, login=trouble, token=None, role="", accesses=(), places=(), fetched=()
    )
    (finding,) = judged(bare)
    assert finding.severity == "error"
    return finding


@pytest.mark.parametrize("auth", [_JWT, Aws("gw"), _CERT])
def test_a_method_that_is_there_and_denies_is_bound_to_other_addresses(auth: AuthMethod) -> None:
    """Not one that is to be enabled: doctor has asked whether it is there."""
    trouble = Trouble("refused", "permission denied", 403)
    bare = ex.stage(
        auth=auth,
        login=trouble,
        mounted=True,
        token=None,
        role="",
        accesses=(),
        places=(),
        fetched=(),
    )
    (finding,) = judged(bare)
    assert "token_bound_cidrs" in finding.why
    assert "enable" not in finding.mend + " ".join(finding.lines)


@pytest.mark.parametrize(
    ("auth", "status", "detail", "means", "line"),
    [
        (_APPROLE, 400, "", "expired, used up", "bao write -f auth/approle/role/ROLE/secret-id"),
        (_APPROLE, 403, "permission denied", "locked this login", "bao read sys/locked-users"),
        (_APPROLE, 404, "", "no auth method answers", "bao auth enable -path=approle approle"),
        (
            UserPass("joe", Path("/p")),
            400,
            "",
            "as Vault has it",
            "bao read auth/userpass/users/joe",
        ),
        (Ldap("joe", Path("/p")), 400, "", "as the directory has it", "bao read auth/ldap/config"),
        (Ldap("joe", Path("/p")), 403, "", "locked this login", "bao read sys/locked-users"),
        (Kubernetes("gw"), 403, "", "TokenReview", "bao read auth/kubernetes/config"),
        (Kubernetes("gw"), 500, "", "could not ask Kubernetes", "bao read auth/kubernetes/config"),
        (_JWT, 400, "invalid audience (aud) claim", "bound_audiences", "bao read auth/jwt/role/gw"),
        (_JWT, 400, "invalid issuer (iss) claim", "bound_issuer", "bao read auth/jwt/config"),
        (_JWT, 400, 'role "gw" could not be found', "no such role", "bao list auth/jwt/role"),
        (_JWT, 400, "claim x does not match", "subject or claims", "bao read auth/jwt/role/gw"),
        (_JWT, 403, "permission denied", "no auth method answers", "bao auth list"),
        (_CERT, 400, "", "trusts this client certificate", "bao read auth/cert/certs/web"),
        (Aws("gw"), 400, "", "a wrong clock", "bao read auth/aws/role/gw"),
    ],
)
def test_a_refusal_is_explained(
    auth: AuthMethod, status: int, detail: str, means: str, line: str
) -> None:
    """The likely causes, and the command that shows which it is."""
    finding = _refused(auth, status, detail)
    assert means in finding.why
    assert line in finding.lines
    assert detail in finding.what


@pytest.mark.parametrize(
    ("status", "detail", "means"),
    [(403, "permission denied", "has expired or was revoked"), (0, "", "cannot be used")],
)
def test_a_token_from_a_file_is_renewed_by_what_writes_it(
    status: int, detail: str, means: str
) -> None:
    """There is no command of ours for it."""
    finding = _refused(_TOKEN, status, detail)
    assert means in finding.why
    assert "whatever writes the file" in finding.mend


def test_vault_that_went_away_is_no_refusal() -> None:
    """Nobody is sent to look at roles."""
    finding = _refused(_APPROLE, 503, "Vault is sealed", away=True)
    assert finding.lines == ("bao status",)


def test_a_login_that_was_not_sent_names_its_own_trouble() -> None:
    """Such as a program that prints no token."""
    assert "did not get as far as Vault" in _refused(_JWT, 0, "the program ended with 1").why


@pytest.mark.parametrize("auth", [_APPROLE, UserPass("joe", Path("/p")), Ldap("joe", Path("/p"))])
def test_a_login_that_is_not_risked_now_says_for_how_long(auth: AuthMethod) -> None:
    """Nothing is wrong with what doctor sees: the tries before it are why."""
    finding = _refused(auth, 0, verdict=Verdict.LOCKED)
    assert "five in a row lock it" in finding.why
    assert "17 minutes" in finding.mend


def test_a_file_that_is_absent_is_the_only_finding() -> None:
    """The login without it failed, of course."""
    file = SecretFile("secret_id_file", Path("/run/id"), None)
    bare = ex.stage(login=Trouble("the secret_id file cannot be read"), files=(file,))
    (finding,) = judged(bare)
    assert "is not there" in finding.what
