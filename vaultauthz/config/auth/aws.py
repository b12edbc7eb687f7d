"""AWS: a ``sts:GetCallerIdentity`` that we sign and Vault sends, to learn who signed it.

Source of Vault's words: ``builtin/credential/aws/path_login.go`` of 1.21.4, and what STS and
IAM answer it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from vaultauthz.config.auth import (
    LIST_ROLES,
    READ_BOTH,
    READ_CONFIG,
    READ_ROLE,
    ROLE,
    LoginRequest,
    Refusal,
    RefusedLogin,
    RoleMethod,
    Surroundings,
    keys_of,
    not_this_identity,
)
from vaultauthz.config.keys import Key
from vaultauthz.config.kinds import TEXT
from vaultauthz.config.reader import Value, quoted

# It ends up in the address of the STS endpoint.
_REGION: Final = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}\Z")


@dataclass(frozen=True, slots=True)
class Aws(RoleMethod):
    """An AWS identity by a signed ``sts:GetCallerIdentity``; by the standard credential chain.

    ``region`` is the STS endpoint's, "" for the global one, which Vault asks by default;
    ``server_id`` goes into the signed header ``X-Vault-AWS-IAM-Server-ID``.
    """

    name: ClassVar[str] = "aws"
    first: ClassVar[str] = "role: gateway"
    library: ClassVar[str] = "botocore>=1.35"
    settings: ClassVar[str] = "config/client"

    role: str
    region: str = ""
    server_id: str = ""
    mount: str = "aws"

    def login(self, here: Surroundings) -> LoginRequest:
        """As whom the standard credential chain finds, looked for anew each time."""
        made = here.signed(self)
        body = {"role": self.role, **made.body}
        return LoginRequest(f"{self.at}/login", body, hidden=made.hidden)

    refusals: ClassVar = (
        Refusal(
            ('missing header "x-vault-aws-iam-server-id"',),
            "Vault has an iam_server_id_header_value, so it wants the header X-Vault-AWS-IAM-Server-ID, "
            "and the configuration has no server_id",
            "write Vault's iam_server_id_header_value into server_id",
            READ_CONFIG,
        ),
        Refusal(
            (
                "x-vault-aws-iam-server-id header: expected",
                "error validating x-vault-aws-iam-server-id",
            ),
            "server_id is not Vault's iam_server_id_header_value",
            "write Vault's iam_server_id_header_value into server_id",
            READ_CONFIG,
        ),
        # A role's missing is told with its name quoted or not: 1.21 and before.
        Refusal(
            ("entry for role … not found",),
            "there is no such role",
            "correct role, or write it in Vault",
            LIST_ROLES,
        ),
        Refusal(
            ("auth method iam not allowed",),
            "the role is for auth_type=ec2; vaultauthz logs in by iam",
            "delete the role and write it anew with auth_type=iam: the type of one cannot be changed",
        ),
        Refusal(
            ("iam principal … does not belong to the role", "does not belong to the role"),
            "bound_iam_principal_arn of the role is another principal's; or, with "
            "resolve_aws_unique_ids, the principal was deleted and made anew since the role was written",
            "write the principal of this machine into bound_iam_principal_arn (of an assumed role "
            "arn:aws:iam::ACCOUNT:role/NAME, without its path); a principal that was made anew: write "
            "the role again",
        ),
        Refusal(
            ("error looking up full arn", "iam:getrole", "iam:getuser", "unable to resolve arn"),
            "the role has Vault ask IAM who this principal is, and Vault's own AWS credentials are "
            "missing or lack iam:GetRole (iam:GetUser for a user)",
            "give them to Vault, or delete the role and write it anew with "
            "resolve_aws_unique_ids=false and an ARN without `*` (it cannot be turned off in a role)",
            READ_BOTH,
        ),
        Refusal(
            ("as a valid ec2 instance", "error validating instance"),
            "the role infers the EC2 instance (inferred_entity_type), and this is none that Vault can "
            "find, or Vault's own AWS credentials lack ec2:DescribeInstances",
            "leave inferred_entity_type out where no instance logs in; else compare "
            "inferred_aws_region and the role's bound_* with the instance",
            READ_BOTH,
        ),
        Refusal(
            (
                "throttling",
                "rate exceeded",
                "slowdown",
                "requestlimitexceeded",
                "too many requests",
            ),
            "STS (or IAM) throttles the account in whose name Vault is asked",
            "wait; if it comes again, let Vault ask the STS of the region "
            "(use_sts_region_from_client=true, and region here), and bind roles to ARNs without `*`, "
            "which take no call to IAM",
            READ_CONFIG,
        ),
        Refusal(
            ("valid region", "credential should be scoped"),
            "the request is signed for another STS endpoint than Vault asks",
            "set region here as Vault's sts_region is, or leave it out where Vault has no sts_endpoint",
            READ_CONFIG,
        ),
        Refusal(
            (
                "signature expired",
                "requestexpired",
                "signature not yet current",
                "request has expired",
            ),
            "AWS finds the request too old or not yet valid: this machine's clock is wrong",
            "set this machine's clock (NTP): AWS allows five minutes, fifteen at most",
            (),
        ),
        Refusal(
            ("expiredtoken", "security token included in the request is expired"),
            "the AWS credentials that signed the request have ended",
            "have whatever provides them here (environment, profile, pod identity) give fresh ones",
            (),
        ),
        Refusal(
            ("invalidclienttokenid", "security token included in the request is invalid"),
            "AWS does not know the credentials that signed the request: deleted, inactive, or of another "
            "partition (China, GovCloud)",
            "give this machine credentials that are good; in another partition Vault needs its "
            "sts_endpoint and sts_region",
            READ_CONFIG,
        ),
        Refusal(
            ("signaturedoesnotmatch",),
            "the secret key that signed is not the access key's, or region and Vault's sts_endpoint differ",
            "check the AWS credentials of this machine, and region with Vault's sts_region",
            READ_CONFIG,
        ),
        Refusal(
            ("from sts … accessdenied", "accessdenied … sts"),
            "AWS denies sts:GetCallerIdentity to this machine's principal",
            "look for an explicit deny (service control policy, VPC endpoint policy)",
            (),
        ),
        Refusal(
            ("error making request", "giving up after"),
            "Vault cannot reach STS, or STS answers it with 429 or 5xx only: it throttles or is down",
            "let Vault out to https://sts.amazonaws.com, or to its sts_endpoint",
            READ_CONFIG,
        ),
        Refusal(
            ("body of getcalleridentity is invalid",),
            "what answers Vault at its STS endpoint is not STS",
            "correct sts_endpoint in Vault",
            READ_CONFIG,
        ),
        Refusal(
            ("region missing from authorization", "unable to get regional sts endpoint"),
            "Vault takes the STS endpoint from the request (use_sts_region_from_client), and knows none "
            "for its region",
            "correct region",
            READ_CONFIG,
        ),
        Refusal(
            ("invalid request header", "allowed_sts_header_values"),
            "Vault does not let a header of the signed request pass",
            "add it to allowed_sts_header_values",
            (*READ_CONFIG, *READ_ROLE),
        ),
    )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        return not_this_identity(self)


def _region(value: Value) -> str:
    text = value.text()
    if not _REGION.match(text):
        raise value.wrong(f"{quoted(text)} is no region; write it as in eu-central-1")
    return text


def _header_text(value: Value) -> str:
    text = value.text()
    if not text.isascii():
        raise value.wrong("is sent as a header; write it in ASCII, as Vault has it configured")
    return text


Aws.keys = keys_of(
    Aws,
    ROLE,
    Key(
        "region",
        TEXT.by(_region),
        "Of the STS endpoint, as in eu-central-1.",
        "Vault's `sts_endpoint` has to agree.",
        otherwise="the global one",
    ),
    Key(
        "server_id",
        TEXT.by(_header_text),
        "The value of X-Vault-AWS-IAM-Server-ID that Vault wants.",
    ),
)
