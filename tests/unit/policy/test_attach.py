from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.policy.configured import APPROLE, TOKEN_FILE, config
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.azure import Azure
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.policy import hcl
from vaultauthz.policy.stage import header as policy_header
from vaultauthz.policy.stage import policy_name

FILE = Path("/file")
ALONE = "token_policies=vaultauthz-prod token_no_default_policy=true"
COMMANDS: list[tuple[AuthMethod, str]] = [
    (APPROLE, f"bao write auth/approle/role/ROLE {ALONE}"),
    (AppRole("x", mount="team/approle"), f"bao write auth/team/approle/role/ROLE {ALONE}"),
    (Kubernetes("gateway"), f"bao write auth/kubernetes/role/gateway {ALONE}"),
    (Jwt("gateway", FILE), f"bao write auth/jwt/role/gateway role_type=jwt {ALONE}"),
    (Cert(FILE, FILE), f"bao write auth/cert/certs/ROLE {ALONE}"),
    (Cert(FILE, FILE, "gateway"), f"bao write auth/cert/certs/gateway {ALONE}"),
    (UserPass("joe", FILE), f"bao write auth/userpass/users/joe {ALONE}"),
    (Ldap("joe", FILE), "bao write auth/ldap/users/joe policies=vaultauthz-prod"),
    (Ldap("joe", FILE), "bao write auth/ldap/config token_no_default_policy=true"),
    (Aws("gateway"), f"bao write auth/aws/role/gateway {ALONE}"),
    (Gcp("gateway"), f"bao write auth/gcp/role/gateway {ALONE}"),
    (Azure("gateway"), f"bao write auth/azure/role/gateway {ALONE}"),
    (TOKEN_FILE, "bao token create -policy=vaultauthz-prod -no-default-policy"),
]


def header(auth: AuthMethod, namespace: str = "") -> list[str]:
    """The header's lines, without what they are indented by."""
    return [line.strip() for line in policy_header(config({}, {"prod": auth}, namespace), "prod")]


@pytest.mark.parametrize(("auth", "command"), COMMANDS)
def test_each_method_is_told_how_to_attach(auth: AuthMethod, command: str) -> None:
    """The command names mount and role, and leaves `default` out."""
    assert command in header(auth)


def test_the_header_says_how_to_write_it_and_to_see_our_ids() -> None:
    """A pipeline for this stage, and the line for Vault's audit log."""
    lines = header(APPROLE)
    assert (
        "vaultauthz policy --stage prod | bao policy write vaultauthz-prod -"
    ) in lines  # fmt: skip
    assert "bao write sys/config/auditing/request-headers/X-Correlation-Id hmac=false" in lines


def test_commands_are_for_the_stages_namespace() -> None:
    """Each that writes there names it, the stage's own before the server's."""
    lines = header(APPROLE, "platform")
    assert f"bao write -namespace=platform auth/approle/role/ROLE {ALONE}" in lines
    assert any("bao policy write -namespace=platform vaultauthz-prod -" in line for line in lines)
    own = config({}, {"prod": APPROLE}, "platform")
    stage = replace(own.stages["prod"], namespace="team")
    lines = policy_header(replace(own, stages={"prod": stage}), "prod")
    assert any("-namespace=team vaultauthz-prod" in line for line in lines)


def test_a_name_cannot_leave_its_comment_or_its_word() -> None:
    """A role with a newline or a quote in it stays a comment, and a word for the shell."""
    lines = policy_header(config({}, {"prod": Kubernetes("x'\npath $(id)")}), "prod")
    text = "".join(map(hcl.comment, lines))
    assert all(line.startswith("#") for line in text.splitlines())
    assert """'auth/kubernetes/role/x'"'"'?path $(id)'""" in text


def test_policies_are_named_as_vault_names_them() -> None:
    """In lower case."""
    assert policy_name("Prod.EU_1") == "vaultauthz-prod.eu_1"
