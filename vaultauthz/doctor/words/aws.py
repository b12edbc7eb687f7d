"""AWS: ``builtin/credential/aws/path_login.go`` of Vault 1.21.4, and what STS and IAM answer it."""

from __future__ import annotations

from typing import Final

from vaultauthz.doctor.words.said import BOTH, CONFIG, ROLE, ROLES, Said

_CLOCK: Final = "set this machine's clock (NTP): AWS allows five minutes, fifteen at most"

ROWS: Final = (
    Said(
        ('missing header "x-vault-aws-iam-server-id"',),
        "Vault has an iam_server_id_header_value, so it wants the header X-Vault-AWS-IAM-Server-ID, "
        "and the configuration has no server_id",
        "write Vault's iam_server_id_header_value into server_id",
        CONFIG,
    ),
    Said(
        (
            "x-vault-aws-iam-server-id header: expected",
            "error validating x-vault-aws-iam-server-id",
        ),
        "server_id is not Vault's iam_server_id_header_value",
        "write Vault's iam_server_id_header_value into server_id",
        CONFIG,
    ),
    # A role's missing is told with its name quoted or not: 1.21 and before.
    Said(
        ("entry for role … not found",),
        "there is no such role",
        "correct role, or write it in Vault",
        ROLES,
    ),
    Said(
        ("auth method iam not allowed",),
        "the role is for auth_type=ec2; vaultauthz logs in by iam",
        "delete the role and write it anew with auth_type=iam: the type of one cannot be changed",
    ),
    Said(
        ("iam principal … does not belong to the role", "does not belong to the role"),
        "bound_iam_principal_arn of the role is another principal's; or, with "
        "resolve_aws_unique_ids, the principal was deleted and made anew since the role was written",
        "write the principal of this machine into bound_iam_principal_arn (of an assumed role "
        "arn:aws:iam::ACCOUNT:role/NAME, without its path); a principal that was made anew: write "
        "the role again",
    ),
    Said(
        ("error looking up full arn", "iam:getrole", "iam:getuser", "unable to resolve arn"),
        "the role has Vault ask IAM who this principal is, and Vault's own AWS credentials are "
        "missing or lack iam:GetRole (iam:GetUser for a user)",
        "give them to Vault, or delete the role and write it anew with "
        "resolve_aws_unique_ids=false and an ARN without `*` (it cannot be turned off in a role)",
        BOTH,
    ),
    Said(
        ("as a valid ec2 instance", "error validating instance"),
        "the role infers the EC2 instance (inferred_entity_type), and this is none that Vault can "
        "find, or Vault's own AWS credentials lack ec2:DescribeInstances",
        "leave inferred_entity_type out where no instance logs in; else compare "
        "inferred_aws_region and the role's bound_* with the instance",
        BOTH,
    ),
    Said(
        ("throttling", "rate exceeded", "slowdown", "requestlimitexceeded", "too many requests"),
        "STS (or IAM) throttles the account in whose name Vault is asked",
        "wait; if it comes again, let Vault ask the STS of the region "
        "(use_sts_region_from_client=true, and region here), and bind roles to ARNs without `*`, "
        "which take no call to IAM",
        CONFIG,
    ),
    Said(
        ("valid region", "credential should be scoped"),
        "the request is signed for another STS endpoint than Vault asks",
        "set region here as Vault's sts_region is, or leave it out where Vault has no sts_endpoint",
        CONFIG,
    ),
    Said(
        ("signature expired", "requestexpired", "signature not yet current", "request has expired"),
        "AWS finds the request too old or not yet valid: this machine's clock is wrong",
        _CLOCK,
        (),
    ),
    Said(
        ("expiredtoken", "security token included in the request is expired"),
        "the AWS credentials that signed the request have ended",
        "have whatever provides them here (environment, profile, pod identity) give fresh ones",
        (),
    ),
    Said(
        ("invalidclienttokenid", "security token included in the request is invalid"),
        "AWS does not know the credentials that signed the request: deleted, inactive, or of another "
        "partition (China, GovCloud)",
        "give this machine credentials that are good; in another partition Vault needs its "
        "sts_endpoint and sts_region",
        CONFIG,
    ),
    Said(
        ("signaturedoesnotmatch",),
        "the secret key that signed is not the access key's, or region and Vault's sts_endpoint differ",
        "check the AWS credentials of this machine, and region with Vault's sts_region",
        CONFIG,
    ),
    Said(
        ("from sts … accessdenied", "accessdenied … sts"),
        "AWS denies sts:GetCallerIdentity to this machine's principal",
        "look for an explicit deny (service control policy, VPC endpoint policy)",
        (),
    ),
    Said(
        ("error making request", "giving up after"),
        "Vault cannot reach STS, or STS answers it with 429 or 5xx only: it throttles or is down",
        "let Vault out to https://sts.amazonaws.com, or to its sts_endpoint",
        CONFIG,
    ),
    Said(
        ("body of getcalleridentity is invalid",),
        "what answers Vault at its STS endpoint is not STS",
        "correct sts_endpoint in Vault",
        CONFIG,
    ),
    Said(
        ("region missing from authorization", "unable to get regional sts endpoint"),
        "Vault takes the STS endpoint from the request (use_sts_region_from_client), and knows none "
        "for its region",
        "correct region",
        CONFIG,
    ),
    Said(
        ("invalid request header", "allowed_sts_header_values"),
        "Vault does not let a header of the signed request pass",
        "add it to allowed_sts_header_values",
        (*CONFIG, *ROLE),
    ),
)
