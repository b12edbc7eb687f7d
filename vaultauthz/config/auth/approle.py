"""AppRole: a role_id and, unless the role does without, a secret_id.

Vault says one thing of a wrong, an expired and a used secret_id, on purpose. Sources:
``builtin/credential/approle/path_login.go`` of Vault 1.21.4, and OpenBao 2.7's answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Self, cast

from vaultauthz.config import files
from vaultauthz.config.auth import (
    READ_ROLE,
    ROLE_NAME,
    AuthMethod,
    Lockout,
    LoginFile,
    LoginRequest,
    Refusal,
    RefusedLogin,
    Surroundings,
    VaultAsConfigured,
    keys_of,
)
from vaultauthz.config.keys import Condition, Key, not_both, one_of_two
from vaultauthz.config.kinds import FLAG, PRIVATE, READABLE, TEXT
from vaultauthz.config.reader import Table, Value
from vaultauthz.core.secret import Secret

_SHORT: Final = 16  # characters; a shorter role_id is a name that somebody chose


@dataclass(frozen=True, slots=True)
class AppRole(AuthMethod):
    """Each id comes from its file at each login, or is given as a value.

    A role without ``bind_secret_id`` has no secret_id at all. ``secret_id_wrapped``:
    the file holds a response-wrapping token, which gives the secret_id once.
    """

    name: ClassVar[str] = "approle"
    first: ClassVar[str] = "role_id_file: role_id, secret_id_file: secret_id"
    bound_at_login: ClassVar[bool] = False

    role_id: str = ""
    secret_id: Secret | None = None
    secret_id_file: Path | None = None
    mount: str = "approle"
    role_id_file: Path | None = None
    secret_id_wrapped: bool = False

    @classmethod
    def read(cls, table: Table, vault: VaultAsConfigured) -> Self:
        wrapped = partial(_only_with_file, table=table)
        file = partial(_secret_id_file, table=table)
        return cast(Self, cls.keys.build(table, secret_id_wrapped=wrapped, secret_id_file=file))

    def login(self, here: Surroundings) -> LoginRequest:
        """A 400 is never retried, as five of them lock the role for everyone.

        Nor if it worked before: what is wrong is then the secret_id itself, destroyed or ended.
        """
        # Before the secret_id: a wrapping token must not be used up for a login that cannot be.
        role_id = self.role_id
        if self.role_id_file is not None:
            role_id = here.text(self.role_id_file, "role_id").reveal()
        secret_id = self._secret_id(here)
        body: dict[str, str | Secret] = {
            "role_id": role_id if len(role_id) < _SHORT else Secret(role_id)
        }
        if secret_id is not None:
            body["secret_id"] = secret_id
        read = (self.secret_id_file,) if self.secret_id_file else ()
        return LoginRequest(
            f"{self.at}/login", body, lockout=Lockout(role_id, secret_id, read, again=False)
        )

    def _secret_id(self, here: Surroundings) -> Secret | None:
        if self.secret_id_file is None:
            return self.secret_id
        found = here.text(self.secret_id_file, "secret_id")
        return here.unwrapped(self.mount, found) if self.secret_id_wrapped else found

    @property
    def files(self) -> tuple[LoginFile, ...]:
        ids = ("role_id_file", self.role_id_file, False)
        found = (ids, ("secret_id_file", self.secret_id_file, True))
        return tuple(
            LoginFile(key, path, private, watched=True) for key, path, private in found if path
        )

    @property
    def locked_name(self) -> str | None:
        return self.role_id or str(self.role_id_file)

    @property
    def wrapped_in(self) -> Path | None:
        return self.secret_id_file if self.secret_id_wrapped else None

    def role_path(self, name: str = "") -> str:
        return f"{self.at}/role/{name or ROLE_NAME}"

    refusals: ClassVar = (
        Refusal(
            ("cidr restrictions on the secret id",),
            "the secret_id was issued for other addresses (cidr_list) than Vault sees us come from",
            "issue one for this address, which may be a proxy's or a gateway's (NAT); ROLE is the "
            "role's name",
            (("write", "-f {role}/secret-id"),),
        ),
        Refusal(
            ("cidr restrictions on the role",),
            "secret_id_bound_cidrs of the role are others than the address that Vault sees us come "
            "from",
            "add this address, which may be a proxy's or a gateway's (NAT); ROLE is the role's name",
            (*READ_ROLE, ("write", "{role} secret_id_bound_cidrs=…")),
        ),
        Refusal(
            ("subset relationship",),
            "secret_id_bound_cidrs of the role were changed, and the secret_id was issued for "
            "addresses (cidr_list) beyond them",
            "issue a new secret_id; ROLE is the role's name",
            (("write", "-f {role}/secret-id"),),
        ),
    )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        return Refusal(
            (),
            "role_id is unknown, or secret_id is wrong, expired, used up, or bound to other "
            "addresses (CIDR)",
            f"put a new secret_id into {self.secret_id_file or 'the configuration'}, and compare "
            "role_id (ROLE: the role's name)",
            (("write", "-f {role}/secret-id"), ("read", "{role}/role-id")),
        )


def _inline(value: Value) -> Secret:
    secret = Secret(value.text())
    value.warn("a secret stands in the configuration; use secret_id_file")
    return secret


def _only_with_file(value: Value, *, table: Table) -> bool:
    if "secret_id_file" not in table:
        raise value.wrong("is about secret_id_file; add that, or remove this")
    return value.flag()


def _secret_id_file(value: Value, *, table: Table) -> Path:
    # What wraps secret_ids delivers a new one at each start, perhaps after ours.
    wrapped = AppRole.keys.get(table, "secret_id_wrapped")
    return files.awaited_private(value) if wrapped else files.private(value)


AppRole.keys = keys_of(
    AppRole,
    Key(
        "secret_id_wrapped",
        FLAG,
        "The file holds a response-wrapping token, which gives the secret_id once.",
        "It need not be there when vaultauthz starts.",
    ),
    Key("role_id", TEXT, "The role's id."),
    Key("role_id_file", READABLE, "Holds the role's id; read at each login."),
    Key(
        "secret_id",
        TEXT.by(_inline),
        "Better a file: a secret does not belong here.",
        "It is taken with a warning.",
    ),
    Key(
        "secret_id_file",
        PRIVATE,
        "Holds the secret_id; read at each login.",
        "Not for a role without `bind_secret_id`.",
    ),
    conditions=(
        not_both("role_id", "role_id_file", "keep one"),
        not_both("secret_id", "secret_id_file", "keep the file"),
        one_of_two("role_id", "role_id_file", "add the role's id, or role_id_file: FILE"),
        Condition({"dependentRequired": {"secret_id_wrapped": ["secret_id_file"]}}),
    ),
)
