"""What doctor says of a login that a real OpenBao refuses: the setting that is wrong, by its name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.certificates import Authority, server_context
from tests.contract.house import write
from tests.contract.jwt_issuer import Issuer
from tests.contract.kube_api import Account, KubeApi

from .auth_bao import AuthBao
from .refused import reason

pytestmark = pytest.mark.integration

ELSEWHERE: Final = "10.1.2.0/24"  # where this machine is not
GATEWAY: Final = Account("production", "gateway")


def role(vault: AuthBao, path: str, **bounds: Any) -> None:
    """A role, user or certificate that is bound to nothing but these."""
    vault.client().delete(path)
    vault.write(path, token_ttl="10m", **bounds)


# --- AppRole ---


@pytest.fixture
def approle(vault: AuthBao, tmp_path: Path) -> dict[str, Any]:
    """The keys of a login; the role is new, so that none of its tries counts for another."""
    name = f"refused-{tmp_path.name}".replace("_", "-").rstrip("0123456789") + str(time.time_ns())
    vault.enable_auth("approle")
    role(vault, f"auth/approle/role/{name}")
    role_id = vault.client().read(f"auth/approle/role/{name}/role-id")["data"]["role_id"]
    file = write(tmp_path / "secret_id", "")
    return {"method": "approle", "role_id": role_id, "secret_id_file": file, "name": name}


def issued(vault: AuthBao, approle: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The login with a secret_id that was issued with these settings."""
    made = vault.write(f"auth/approle/role/{approle['name']}/secret-id", **settings)
    write(approle["secret_id_file"], made["secret_id"])
    return {key: value for key, value in approle.items() if key != "name"}


def test_a_used_or_expired_secret_id(vault: AuthBao, approle: dict[str, Any]) -> None:
    """Vault says the same of both, and so does doctor."""
    auth = issued(vault, approle, num_uses=1)
    vault.write("auth/approle/login", role_id=auth["role_id"], secret_id=read(auth))
    assert "expired, used up" in reason(vault, auth)


def test_a_secret_id_for_another_address(vault: AuthBao, approle: dict[str, Any]) -> None:
    """Its own cidr_list, and its role's."""
    assert "cidr_list" in reason(vault, issued(vault, approle, cidr_list=ELSEWHERE))
    auth = issued(vault, approle)
    vault.write(f"auth/approle/role/{approle['name']}", secret_id_bound_cidrs=ELSEWHERE)
    assert "secret_id_bound_cidrs" in reason(vault, auth)


def test_a_locked_approle(vault: AuthBao, approle: dict[str, Any]) -> None:
    """Five wrong tries, and the right one is denied: that it is locked is all that is left."""
    auth = issued(vault, approle)
    for _ in range(5):
        with pytest.raises(Exception, match="invalid role or secret ID"):
            vault.write("auth/approle/login", role_id=auth["role_id"], secret_id="wrong")
    assert "Vault has locked this login" in reason(vault, auth)


def read(auth: dict[str, Any]) -> str:
    """The secret_id of the file."""
    return Path(auth["secret_id_file"]).read_text()


# --- userpass ---


def test_a_user_that_is_bound_to_another_address(vault: AuthBao, tmp_path: Path) -> None:
    """The method is there, which is asked without a try for the user; and one that is not there."""
    vault.enable_auth("userpass")
    role(vault, "auth/userpass/users/bound", password="right", token_bound_cidrs=ELSEWHERE)
    file = write(tmp_path / "password", "right")
    auth = {"method": "userpass", "username": "bound", "password_file": file}
    told = reason(vault, auth)
    assert "token_bound_cidrs" in told
    assert "no auth method" not in told
    assert "no auth method answers at auth/nowhere" in reason(vault, {**auth, "mount": "nowhere"})
    write(file, "wrong")
    assert "as Vault has it" in reason(vault, auth)


# --- JWT ---


@pytest.fixture
def issuer(vault: AuthBao) -> Iterator[Issuer]:
    """Whose tokens the mount `refused-jwt` checks."""
    issuer = Issuer()
    vault.enable_auth("jwt", "refused-jwt")
    vault.write(
        "auth/refused-jwt/config",
        jwt_validation_pubkeys=[issuer.public_pem],
        bound_issuer=issuer.name,
    )
    yield issuer
    vault.client().sys.disable_auth_method("refused-jwt")


_IN_AN_HOUR: Final = 3600
_USUAL: Final = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"]}
_JWT: Final[dict[str, tuple[dict[str, Any], dict[str, Any], str]]] = {
    # what the role has beside the usual, what the token has, what must be named
    "audience": ({"bound_audiences": ["other"]}, {}, "bound_audiences"),
    "no audience bound": (
        {"bound_audiences": [], "bound_subject": "gateway"},
        {},
        "the role has no bound_audiences",
    ),
    "subject": ({"bound_subject": "other"}, {}, "bound_subject"),
    "claim is missing": ({"bound_claims": {"env": "production"}}, {}, "bound_claims"),
    "claim is another": (
        {"bound_claims": {"env": "production"}},
        {"env": "staging"},
        "bound_claims",
    ),
    "user claim": ({"user_claim": "email"}, {}, "user_claim"),
    "addresses": ({"token_bound_cidrs": ELSEWHERE}, {}, "token_bound_cidrs"),
    "issuer": ({}, {"iss": "https://other.test"}, "bound_issuer"),
    "expired": ({}, {"exp": -_IN_AN_HOUR}, "the token has expired"),
    "clock": ({}, {"nbf": _IN_AN_HOUR, "exp": 2 * _IN_AN_HOUR}, "clock_skew_leeway"),
}


@pytest.mark.parametrize("what", _JWT)
def test_a_jwt_that_the_role_does_not_take(
    vault: AuthBao, issuer: Issuer, tmp_path: Path, what: str
) -> None:
    """The bound, the claim or the clock."""
    bounds, claims, named = _JWT[what]
    now = int(time.time())
    given = {k: now + v if isinstance(v, int) else v for k, v in claims.items()}
    role(vault, "auth/refused-jwt/role/gw", **{**_USUAL, **bounds})
    file = write(tmp_path / "jwt", issuer.token("gateway", "vault", **given))
    auth = {"method": "jwt", "mount": "refused-jwt", "role": "gw", "token_file": file}
    assert named in reason(vault, auth)


def test_a_jwt_without_a_role_and_one_of_another_issuers_key(
    vault: AuthBao, issuer: Issuer, tmp_path: Path
) -> None:
    """And a file that holds no JWT at all."""
    role(vault, "auth/refused-jwt/role/gw", **_USUAL)
    file = write(tmp_path / "jwt", issuer.token("gateway", "vault"))
    auth = {"method": "jwt", "mount": "refused-jwt", "role": "nobody", "token_file": file}
    assert "there is no such role" in reason(vault, auth)
    write(file, Issuer().token("gateway", "vault"))
    assert "none of the method's keys" in reason(vault, {**auth, "role": "gw"})
    write(file, "no-jwt")
    assert "no JWT" in reason(vault, {**auth, "role": "gw"})


# --- certificates ---


def test_a_certificate_that_is_not_trusted_or_not_named(vault: AuthBao, tmp_path: Path) -> None:
    """OpenBao says one thing of all of these."""
    authority = Authority(tmp_path, "client CA")
    pair = authority.issue("gateway.internal")
    auth = {"method": "cert", "client_cert": pair.cert, "client_key": pair.key, "role": "web"}
    vault.enable_auth("cert")
    role(
        vault,
        "auth/cert/certs/web",
        certificate=authority.ca.read_text(),
        allowed_common_names="other.internal",
    )
    assert "allowed_" in reason(vault, auth)
    role(
        vault,
        "auth/cert/certs/web",
        certificate=authority.ca.read_text(),
        token_bound_cidrs=ELSEWHERE,
    )
    assert "token_bound_cidrs" in reason(vault, auth)


# --- Kubernetes ---


@pytest.fixture
def kube(vault: AuthBao, tmp_path: Path) -> Iterator[KubeApi]:
    """The API server that the mount `refused-kube` asks."""
    authority = Authority(tmp_path, "cluster CA")
    with KubeApi(server_context(authority.issue("127.0.0.1"))) as api:
        vault.enable_auth("kubernetes", "refused-kube")
        vault.write(
            "auth/refused-kube/config",
            kubernetes_host=api.address,
            kubernetes_ca_cert=authority.ca.read_text(),
            token_reviewer_jwt=api.token(api.reviewer),
        )
        yield api
        vault.client().sys.disable_auth_method("refused-kube")


_BOUND: Final = {
    "bound_service_account_names": [GATEWAY.name],
    "bound_service_account_namespaces": [GATEWAY.namespace],
}


def kubernetes(path: Path, token: str, role: str = "gw") -> dict[str, Any]:
    """The keys of a login with this token."""
    file = write(path / "token", token)
    return {"method": "kubernetes", "mount": "refused-kube", "role": role, "token_file": file}


def test_a_pod_that_the_role_does_not_name(vault: AuthBao, kube: KubeApi, tmp_path: Path) -> None:
    """Its account, its namespace, its audience, its addresses; and no such role."""
    role(vault, "auth/refused-kube/role/gw", **_BOUND)
    other = kube.token(Account("production", "other"))
    assert "bound_service_account_names" in reason(vault, kubernetes(tmp_path, other))
    other = kube.token(Account("staging", "gateway"))
    assert "bound_service_account_namespaces" in reason(vault, kubernetes(tmp_path, other))
    mine = kube.token(GATEWAY)
    assert "there is no such role" in reason(vault, kubernetes(tmp_path, mine, "nobody"))
    role(vault, "auth/refused-kube/role/gw", audience="vault", **_BOUND)
    assert "audience" in reason(vault, kubernetes(tmp_path, mine))
    role(vault, "auth/refused-kube/role/gw", token_bound_cidrs=ELSEWHERE, **_BOUND)
    assert "token_bound_cidrs" in reason(vault, kubernetes(tmp_path, mine))


def test_a_reviewer_that_may_not_review(vault: AuthBao, kube: KubeApi, tmp_path: Path) -> None:
    """Kubernetes denies the TokenReview, of which Vault tells us no word; nor of an issuer."""
    role(vault, "auth/refused-kube/role/gw", **_BOUND)
    config = vault.client().read("auth/refused-kube/config")["data"]
    config = {key: config[key] for key in ("kubernetes_host", "kubernetes_ca_cert")}
    weak = kube.token(Account("vault", "weak"))
    vault.write("auth/refused-kube/config", **{**config, "token_reviewer_jwt": weak})
    told = reason(vault, kubernetes(tmp_path, kube.token(GATEWAY)))
    assert "system:auth-delegator" in told
    assert "not mounted" not in told
    other = {"issuer": "https://other.test", "disable_iss_validation": False}
    vault.write("auth/refused-kube/config", **config, **other)
    assert "disable_iss_validation" in reason(vault, kubernetes(tmp_path, kube.token(GATEWAY)))
