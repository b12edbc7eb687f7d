"""The aws login at HashiCorp's own plugin, which OpenBao lacks: what it answers, and what doctor says.

STS and IAM are played: what they answer is set. Run where $VAULTAUTHZ_TEST_VAULT names a Vault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import hvac
import pytest

from tests.contract.cloud_http import Asked, CloudService, Told
from vaultauthz.config.auth.aws import Aws

from .auth_bao import AuthBao
from .refused import reason

pytestmark = [pytest.mark.integration, pytest.mark.hashicorp]

ARN: Final = "arn:aws:iam::123456789012:role/gateway"
SERVER: Final = "vault.internal"
WHO: Final = """\
<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:sts::123456789012:assumed-role/gateway/i-0</Arn><UserId>AROAEXAMPLE:i-0</UserId>
<Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"""


def error(code: str, message: str) -> str:
    """As AWS's query services say what is wrong."""
    told = f"<Code>{code}</Code><Message>{message}</Message>"
    return f"<ErrorResponse><Error><Type>Sender</Type>{told}</Error></ErrorResponse>"


class Amazon(CloudService):
    """STS and IAM at one address; IAM denies, as to a Vault that may not ask it."""

    def __init__(self) -> None:
        super().__init__(self._answered)
        self.sts = (200, WHO)

    def _answered(self, asked: Asked) -> Told:
        denied = error("AccessDenied", "not authorized to perform: iam:GetRole")
        status, text = (403, denied) if b"GetRole" in asked.body else self.sts
        return Told(status, text, {"Content-Type": "text/xml"})


@pytest.fixture(scope="module")
def amazon(vault: AuthBao) -> Iterator[Amazon]:
    """What Vault's mount `aws` asks."""
    vault.enable_auth("aws")
    with Amazon() as amazon:
        configure(vault, amazon.address)
        yield amazon


def configure(vault: AuthBao, there: str) -> None:
    """The method, and a role for each case."""
    vault.write(
        "auth/aws/config/client",
        iam_server_id_header_value=SERVER,
        sts_endpoint=there,
        iam_endpoint=there,
        access_key="AKIAEXAMPLE",
        secret_key="x",
        max_retries=0,
    )
    usual = {"auth_type": "iam", "resolve_aws_unique_ids": False, "bound_iam_principal_arn": ARN}
    vault.write("auth/aws/role/gateway", **usual)
    vault.write("auth/aws/role/other", **{**usual, "bound_iam_principal_arn": f"{ARN}-2"})
    vault.write("auth/aws/role/elsewhere", **usual, token_bound_cidrs="10.1.2.0/24")
    wild = ARN.replace("gateway", "*")
    vault.write("auth/aws/role/wild", auth_type="iam", bound_iam_principal_arn=wild)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AWS identity."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def test_it_logs_in(vault: AuthBao, amazon: Amazon) -> None:
    """As docs/auth.md has it: no AWS credentials in Vault are asked for."""
    amazon.sts = (200, WHO)
    assert vault.session(Aws("gateway", server_id=SERVER)).login().lease_id


def test_a_role_that_is_to_be_resolved(vault: AuthBao, amazon: Amazon) -> None:
    """Cannot be written without iam:GetRole, nor be told later not to be resolved."""
    amazon.sts = (200, WHO)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="unable to resolve ARN"):
        vault.write("auth/aws/role/resolved", auth_type="iam", bound_iam_principal_arn=ARN)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="from true to false is not allowed"):
        vault.write("auth/aws/role/wild", resolve_aws_unique_ids=False)


def told_of(vault: AuthBao, **auth: str) -> str:
    """What doctor says of the login with these keys beside, or without them where they are empty."""
    given = {"method": "aws", "role": "gateway", "server_id": SERVER, **auth}
    return reason(vault, {key: value for key, value in given.items() if value})


@pytest.mark.parametrize(
    ("auth", "named"),
    [
        ({"server_id": ""}, "the configuration has no server_id"),
        ({"server_id": "vault.other"}, "server_id is not Vault's"),
        ({"role": "nobody"}, "there is no such role"),
        ({"role": "other"}, "bound_iam_principal_arn"),
        ({"role": "wild"}, "iam:GetRole"),
        ({"role": "elsewhere"}, "token_bound_cidrs"),
        ({"mount": "aws-2"}, "no auth method answers at auth/aws-2"),
    ],
    ids=str,
)
def test_what_vault_refuses(
    vault: AuthBao, amazon: Amazon, auth: dict[str, str], named: str
) -> None:
    """By its own words, also where they repeat what we have sent and are hidden."""
    amazon.sts = (200, WHO)
    assert named in told_of(vault, **auth)


@pytest.mark.parametrize(
    ("status", "text", "named"),
    [
        (
            403,
            error("SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2"),
            "clock",
        ),
        (
            403,
            error("SignatureDoesNotMatch", "Credential should be scoped to a valid region."),
            "region",
        ),
        (403, error("SignatureDoesNotMatch", "The request signature we calculated"), "secret key"),
        (
            403,
            error("ExpiredToken", "The security token included in the request is expired"),
            "fresh",
        ),
        (403, error("InvalidClientTokenId", "The security token is invalid"), "does not know"),
        (400, error("Throttling", "Rate exceeded"), "throttles"),
        (503, error("Unavailable", "x"), "429 or 5xx"),
    ],
)
def test_what_sts_refuses(
    vault: AuthBao, amazon: Amazon, status: int, text: str, named: str
) -> None:
    """As Vault hands it on."""
    amazon.sts = (status, text)
    assert named in told_of(vault)
