"""User name and password, of a directory that Vault asks (LDAP).

Sources: ``builtin/credential/ldap/backend.go`` of Vault 1.21.4, and OpenBao 2.7's answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vaultauthz.config.auth import READ_CONFIG, Attachment, Refusal
from vaultauthz.config.auth.userpass import UserPass, password_keys


@dataclass(frozen=True, slots=True)
class Ldap(UserPass):
    """A user of a directory, its password in a file."""

    name: ClassVar[str] = "ldap"
    keeper: ClassVar[str] = "the directory"

    mount: str = "ldap"

    def role_path(self, name: str = "") -> str:
        # The lives of its tokens are the method's, not the user's.
        return self.config_path

    def attached(self, policy: str) -> Attachment:
        user = f"{self.at}/users/{self.username}"
        return Attachment(
            "Give it to the user, and no `default` beside it (for all of this mount):",
            (
                (("write",), (user, f"policies={policy}")),
                (("write",), (self.config_path, "token_no_default_policy=true")),
            ),
        )

    refusals: ClassVar = (
        Refusal(
            ("not configured",),
            "the method has no directory",
            "write url, userdn and userattr",
            READ_CONFIG,
        ),
        Refusal(
            ("failed to connect", "error connecting to host", "network error"),
            "Vault cannot reach the directory",
            "look at url, certificate and the network between Vault and the directory",
            READ_CONFIG,
        ),
        Refusal(
            ("failed to bind as user", "invalid credentials", "result code 49"),
            "user name or password is not as the directory has it; Vault says the same when its own "
            "bind account (binddn, bindpass) is refused and when the directory hangs",
            "try the password at the directory before it is written anew; some more wrong tries "
            "lock the user. If it is right, look at binddn and bindpass",
            READ_CONFIG,
        ),
        Refusal(
            ("result code 32", "no such object", "invalid dn"),
            "the directory has no userdn (or groupdn) as Vault's",
            "correct userdn and userattr",
            READ_CONFIG,
        ),
    )


Ldap.keys = password_keys(Ldap)
