"""Google Cloud: a token of the instance, or one that a service account signs.

Sources of what Vault checks, and says: ``plugin/path_login.go`` and ``authorizer_gce.go`` of
vault-plugin-auth-gcp 0.22.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from vaultauthz.config.auth import (
    LIST_ROLES,
    READ_BOTH,
    READ_CONFIG,
    ROLE,
    LoginFile,
    LoginRequest,
    Refusal,
    RefusedLogin,
    RoleMethod,
    Surroundings,
    keys_of,
    no_login,
    not_this_identity,
    token_in,
)
from vaultauthz.config.keys import Condition, Key
from vaultauthz.config.kinds import PRIVATE, TEXT, choice
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret

_TYPE: Final = choice("gce", "iam")
# It ends up in the address of Google's IAM.
_EMAIL: Final = re.compile(r"[A-Za-z0-9_.+\-]+@[A-Za-z0-9_.\-]+\.[A-Za-z]+\Z")
_WHO: Final = "Google's metadata server"
# Its number, not its name: off Google Cloud, resolving the name can take longer than any timeout.
_HOST: Final = "169.254.169.254"
_PATH: Final = "/computeMetadata/v1/instance/service-accounts/default/identity"


@dataclass(frozen=True, slots=True)
class Gcp(RoleMethod):
    """A Google identity: of the instance (``gce``) or a service account (``iam``).

    With ``iam``, ``credentials_file`` is a service account's key; without it the
    standard application default credentials sign for ``service_account``.
    """

    name: ClassVar[str] = "gcp"
    first: ClassVar[str] = "role: gateway"
    library: ClassVar[str] = "google-auth[requests]>=2.38"

    role: str
    type: str = "gce"  # gce | iam
    service_account: str = ""
    credentials_file: Path | None = None
    mount: str = "gcp"

    def login(self, here: Surroundings) -> LoginRequest:
        """With a new token; only ``iam`` needs the extra ``gcp``."""
        iam = self.type == "iam"
        made = here.signed(self).body if iam else {"jwt": self._of_instance(here)}
        return LoginRequest(f"{self.at}/login", {"role": self.role, **made})

    def _of_instance(self, here: Surroundings) -> Secret:
        host = here.environ.get("GCE_METADATA_HOST") or _HOST  # google-auth's variable
        reply = here.asked(
            _WHO,
            f"http://{host}{_PATH}",
            {"Metadata-Flavor": "Google"},
            # Vault wants the audience to end in vault/ROLE, and the instance in full.
            {"audience": f"http://vault/{self.role}", "format": "full"},
        )
        if reply.status == 404:
            raise no_login("the instance has no service account", Verdict.REFUSED)
        if reply.status != 200:
            raise no_login(f"{_WHO} answered {reply.status}")
        return token_in(_WHO, reply.data.decode("latin-1").strip())

    @property
    def files(self) -> tuple[LoginFile, ...]:
        path = self.credentials_file
        return (LoginFile("credentials_file", path, private=True),) if path else ()

    refusals: ClassVar = (
        Refusal(
            ("is not authorized for role", "not in bound service accounts"),
            "bound_service_accounts of the role does not have this service account",
            "add the account's e-mail to bound_service_accounts",
        ),
        Refusal(
            ("not in bound projects",),
            "bound_projects of the role does not have this project",
            "add the project's ID (not its number) to bound_projects",
        ),
        Refusal(
            ("jwts expire within",),
            "the token lives for 5 minutes, and max_jwt_exp of the role is less",
            "raise max_jwt_exp to 10m or more",
        ),
        Refusal(
            ("jwt must expire in", "jwt is expired", "does not have proper 'exp'"),
            "Vault finds the token expired, or too long from its end: a clock is wrong",
            "set the clocks (NTP) of Vault's machine and of this one",
            (),
        ),
        Refusal(
            ("claim 'aud' must end in",),
            "the token's audience is not `vault/` and the role's name",
            "correct role: the token is made for the role that the configuration names",
            LIST_ROLES,
        ),
        Refusal(
            ("got gce token but iam role",),
            "the role is of type iam, and the configuration logs in by gce",
            "set type: iam here, or use a role of type gce",
        ),
        Refusal(
            ("claims with gce metadata", "could not get gce metadata"),
            "the role is of type gce, and the token is not an instance's",
            "use a role of type iam with type: iam; a GKE pod with workload identity has no instance "
            "identity of its own",
        ),
        Refusal(
            ("not in bound zones", "not in bound regions"),
            "bound_zones or bound_regions of the role are others than this instance's",
            "compare bound_zones and bound_regions",
        ),
        Refusal(
            ("missing bound label",),
            "the instance has not the labels that bound_labels of the role names",
            "label the instance, or correct bound_labels",
        ),
        Refusal(
            ("instance group", "list instances in"),
            "the instance is in none of the role's bound_instance_groups, or Vault may not list them",
            "compare bound_instance_groups; Vault's own credentials need compute.instanceGroups.list",
            READ_BOTH,
        ),
        Refusal(
            ("attempting to find instance",),
            "Vault cannot look the instance up",
            "give Vault's own credentials compute.instances.get in the instance's project",
            READ_BOTH,
        ),
        Refusal(
            ("could not find service account", "iam.serviceaccounts.get"),
            "Vault cannot look the service account up",
            "give Vault's own credentials iam.serviceAccounts.get on it",
            READ_BOTH,
        ),
        Refusal(
            ("unable to get public key",),
            "Vault has not the key that signed: it cannot reach Google, the key was deleted, or the "
            "role is of type gce and an account signed",
            "let Vault out to www.googleapis.com; give its own credentials "
            "iam.serviceAccountKeys.get; compare the role's type with ours",
            READ_BOTH,
        ),
        Refusal(
            (
                "default credentials",
                "failed to create iam client",
                "failed to create compute client",
            ),
            "Vault has no Google credentials of its own",
            "write credentials to the method, or run Vault with an identity of Google's",
            READ_CONFIG,
        ),
        Refusal(
            ("role … not found", "role is required"),
            "there is no such role",
            "correct role, or write it in Vault",
            LIST_ROLES,
        ),
    )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        return not_this_identity(self)


def _email(value: Value) -> str:
    text = value.text()
    if not _EMAIL.match(text):
        raise value.wrong(f"{quoted(text)} is no service account; write its e-mail address")
    return text


def _by_type(table: Table) -> None:
    # "" when it is refused: what goes with it is not told to be wrong, then.
    usual = "" if "type" in table else "gce"
    kind = table.get("type", _TYPE.read, usual)
    for key in ("credentials_file", "service_account"):
        if key in table and kind == "gce":
            text = "is for type: iam; remove it, or set type"
            table.place.report.refused(table.entries[key].wrong(text))
    if kind == "iam" and not {"credentials_file", "service_account"} & set(table.entries):
        table.missing("service_account", "add its e-mail address, or credentials_file: FILE")


Gcp.keys = keys_of(
    Gcp,
    ROLE,
    Key("type", _TYPE, "The instance's identity (gce), or a service account's (iam)."),
    Key(
        "service_account",
        TEXT.by(_email),
        "With iam: the e-mail address to sign for.",
        "The application default credentials sign for it. Needed unless there is `credentials_file`.",
    ),
    Key("credentials_file", PRIVATE, "With iam: the service account's key, in JSON."),
    conditions=(Condition({}, _by_type),),
)
