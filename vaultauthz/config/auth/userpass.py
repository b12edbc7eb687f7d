"""User name and password, of Vault's own users."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from vaultauthz.config.auth import (
    NOBODY,
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
from vaultauthz.config.keys import Key, Section
from vaultauthz.config.kinds import PRIVATE, TEXT
from vaultauthz.config.reader import Table, Value


@dataclass(frozen=True, slots=True)
class UserPass(AuthMethod):
    """A user of Vault's own, its password in a file."""

    name: ClassVar[str] = "userpass"
    first: ClassVar[str] = "username: gateway, password_file: password"
    roles: ClassVar[str] = "users"
    keeper: ClassVar[str] = "Vault"  # of the passwords

    username: str
    password_file: Path
    mount: str = "userpass"

    @classmethod
    def read(cls, table: Table, vault: VaultAsConfigured) -> Self:
        # Where the password itself stands, that is told, and not that its file is missing, too.
        here = "password" in table.place.entries()
        usual = {"password_file": PRIVATE.stand_in} if here else {}
        return cast(Self, cls.keys.build(table, usual=usual))

    def login(self, here: Surroundings) -> LoginRequest:
        """What was refused is tried again only if it worked before, as tries lock the user.

        A directory that hangs, or that Vault's own account is refused by, is a wrong password,
        too.
        """
        password = here.text(self.password_file, "password")
        lockout = Lockout(self.locked_name, password, (self.password_file,), by_others=True)
        path = f"{self.at}/login/{self.username}"
        return LoginRequest(path, {"password": password}, lockout=lockout)

    def of_nobody(self) -> LoginRequest:
        # The name is in the path, so that a login would be a try: to read it is none.
        return LoginRequest(f"{self.at}/login/{NOBODY}")

    @property
    def files(self) -> tuple[LoginFile, ...]:
        return (LoginFile("password_file", self.password_file, private=True, watched=True),)

    @property
    def locked_name(self) -> str:
        # Vault counts for a name in lower case, whatever way it is written.
        return self.username.lower()

    def role_path(self, name: str = "") -> str:
        return f"{self.at}/users/{self.username}"

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        return Refusal(
            (),
            f"user name or password is not as {self.keeper} has it",
            "put the right password into password_file; some more wrong tries lock the user",
        )


def _username(value: Value) -> str:
    name = value.text()
    if "/" in name or name in (".", ".."):
        raise value.wrong("has no place in a path of Vault; leave out /")
    return name


def password_keys(method: type[UserPass]) -> Section[Any]:
    """The table of a method that takes a user's name and password."""
    return keys_of(
        method,
        Key("username", TEXT.by(_username), "The user's name.", missing="add the user's name"),
        Key(
            "password_file",
            PRIVATE,
            "Holds the password; read at each login.",
            missing="add the file that holds the password",
        ),
        refused={"password": "does not belong in this file; use password_file"},
    )


UserPass.keys = password_keys(UserPass)
