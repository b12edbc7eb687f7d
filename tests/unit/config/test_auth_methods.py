"""What each auth method asks of Vault, from surroundings that are made up: path, body, what is secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from vaultauthz.config.auth import AuthMethod, NoLoginError, ServiceReply, SignedFields
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.azure import Azure
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.methods import METHODS
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret

FILE: Final = Path("/f")
LONG_ID: Final = "0123456789abcdef"
IDENTITY: Final = ServiceReply(200, {}, b'{"access_token": "of-a-service", "compute": {}}')


@dataclass
class MadeUp:
    """Surroundings in which each thing is called by where it is from."""

    environ: Mapping[str, str] = field(default_factory=dict)
    file: str = "of-a-file"
    reply: ServiceReply = IDENTITY

    def text(self, path: Path, what: str) -> Secret:
        return Secret(self.file)

    def printed(self, command: tuple[str, ...]) -> Secret:
        return Secret("of-a-command")

    def unwrapped(self, mount: str, token: Secret) -> Secret:
        return Secret(f"in {token.reveal()} of {mount}")

    def asked(
        self, who: str, url: str, headers: Mapping[str, str], params: Mapping[str, str]
    ) -> ServiceReply:
        return self.reply

    def signed(self, method: AuthMethod) -> SignedFields:
        return SignedFields({"jwt": Secret(f"of {method.name}'s library")}, ("coded",))


ID: Final = {"role_id": "gateway", "secret_id": "<of-a-file>"}
LOGINS: Final[list[tuple[AuthMethod, str, dict[str, str]]]] = [
    (AppRole("gateway", secret_id_file=FILE), "auth/approle/login", ID),
    (AppRole("gateway"), "auth/approle/login", {"role_id": "gateway"}),
    (AppRole("a", Secret("inline")), "auth/approle/login", {"role_id": "a", "secret_id": "<inline>"}),
    # A short role_id is a name that somebody chose, another is half of what is secret.
    (AppRole(LONG_ID), "auth/approle/login", {"role_id": f"<{LONG_ID}>"}),
    (AppRole(role_id_file=FILE, mount="team/x"), "auth/team/x/login", {"role_id": "of-a-file"}),
    (
        AppRole("a", secret_id_file=FILE, secret_id_wrapped=True),
        "auth/approle/login",
        {"role_id": "a", "secret_id": "<in of-a-file of approle>"},
    ),
    (Kubernetes("r"), "auth/kubernetes/login", {"role": "r", "jwt": "<of-a-file>"}),
    (Jwt("r", FILE), "auth/jwt/login", {"role": "r", "jwt": "<of-a-file>"}),
    (Jwt("r", None, ("a",)), "auth/jwt/login", {"role": "r", "jwt": "<of-a-command>"}),
    (Cert(FILE, FILE), "auth/cert/login", {}),
    (Cert(FILE, FILE, "web"), "auth/cert/login", {"name": "web"}),
    (UserPass("Joe", FILE), "auth/userpass/login/Joe", {"password": "<of-a-file>"}),
    (Ldap("Joe", FILE), "auth/ldap/login/Joe", {"password": "<of-a-file>"}),
    (Aws("r"), "auth/aws/login", {"role": "r", "jwt": "<of aws's library>"}),
    (Gcp("r", "iam"), "auth/gcp/login", {"role": "r", "jwt": "<of gcp's library>"}),
    (Azure("r"), "auth/azure/login", {"role": "r", "jwt": "<of-a-service>"}),
]  # fmt: skip


def shown(body: Mapping[str, str | Secret]) -> dict[str, str]:
    """The body, what is secret in angle brackets."""
    return {
        name: f"<{value.reveal()}>" if isinstance(value, Secret) else value
        for name, value in body.items()
    }


@pytest.mark.parametrize(("method", "path", "body"), LOGINS)
def test_a_login_says_its_path_its_body_and_what_is_secret_in_it(
    method: AuthMethod, path: str, body: dict[str, str]
) -> None:
    """A `Secret` is kept out of Vault's texts; names may be told."""
    request = method.login(MadeUp())
    assert (request.path, shown(request.body or {}), request.token) == (path, body, None)
    assert request.hidden == (("coded",) if isinstance(method, Aws) else ())


def test_each_method_is_tried_here() -> None:
    """A new one is not forgotten."""
    assert {method.name for method, *_ in LOGINS} | {TokenFile.name} == set(METHODS)


def test_an_instances_token_is_asked_of_google() -> None:
    """It is the answer itself."""
    here = MadeUp(reply=ServiceReply(200, {}, b"ey.J.x\n"))
    assert shown(Gcp("r").login(here).body or {}) == {"role": "r", "jwt": "<ey.J.x>"}


@pytest.mark.parametrize("method", [Azure("r"), Gcp("r")])
@pytest.mark.parametrize(
    ("status", "data", "verdict"),
    [
        (500, b"", Verdict.RETRY),
        (200, b"not a token", Verdict.RETRY),
        (400, b"", None),
        (404, b"", None),
    ],
)
def test_a_service_without_a_token_is_no_login(
    method: AuthMethod, status: int, data: bytes, verdict: Verdict | None
) -> None:
    """Worth another try, unless the service says that there is no such identity."""
    with pytest.raises(NoLoginError) as caught:
        method.login(MadeUp(reply=ServiceReply(status, {}, data)))
    final = {"azure": 400, "gcp": 404}[method.name]
    usual = Verdict.REFUSED if status == final else Verdict.RETRY
    assert caught.value.failure.verdict is (verdict or usual)


@pytest.mark.parametrize("method", [Jwt("r", FILE), TokenFile(FILE)])
def test_what_is_no_token_is_not_sent(method: AuthMethod) -> None:
    """It could not travel in a header, and may be anything."""
    with pytest.raises(NoLoginError) as caught:
        method.login(MadeUp(file="two words"))
    assert caught.value.failure.verdict is Verdict.RETRY


def test_a_token_from_a_file_is_looked_up_by_itself() -> None:
    """No login is made; what Vault says of it has the form of one."""
    request = TokenFile(FILE).login(MadeUp(file="hvs.x"))
    assert (request.path, request.body) == ("auth/token/lookup-self", None)
    assert request.token == Secret("hvs.x")
    granted = TokenFile(FILE).granted(request, {"data": {"ttl": 60, "accessor": "a"}})
    assert granted["auth"]["client_token"] == "hvs.x"
    assert granted["auth"]["lease_duration"] == 60


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        ({"ttl": 0, "expire_time": "…"}, Verdict.RETRY),
        ({"ttl": 0, "expire_time": None}, Verdict.REFUSED),
        ("", Verdict.RETRY),
    ],
)
def test_a_token_at_its_end_or_without_one_is_no_login(data: Any, verdict: Verdict) -> None:
    """The one has ended when it is used, the other never does."""
    method = TokenFile(FILE)
    with pytest.raises(NoLoginError) as caught:
        method.granted(method.login(MadeUp(file="hvs.x")), {"data": data})
    assert caught.value.failure.verdict is verdict


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (AppRole("gateway"), "gateway"),
        (AppRole(role_id_file=FILE), "of-a-file"),
        (UserPass("Joe", FILE), "joe"),
        (Ldap("JOE", FILE), "joe"),
    ],
)
def test_vault_counts_wrong_tries_for_a_name(method: AuthMethod, name: str) -> None:
    """Of a user in lower case; doctor knows of one that it must not try twice."""
    lockout = method.login(MadeUp()).lockout
    assert lockout is not None
    assert lockout.name == name
    assert method.locked_name in (name, str(FILE))


def test_no_other_login_is_locked() -> None:
    """Doctor and the session ask for the same."""
    for method, *_ in LOGINS:
        assert (method.locked_name is None) == (method.login(MadeUp()).lockout is None)
