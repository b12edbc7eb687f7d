"""User name and password: of Vault's own users, or of a directory (LDAP)."""

from __future__ import annotations

from typing import cast

from vaultauthz.config.methods import Ldap, UserPass
from vaultauthz.vault import paths
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.auth.lockable import Lockable
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: UserPass | Ldap, lockable: Lockable) -> Answer:
    """Log in; what was refused is tried again only if it worked before, as tries lock the user.

    A directory that hangs, or that Vault's own account is refused by, is a wrong password, too.
    """
    password = read_secret(auth.password_file, "password")
    # Vault counts for a name in lower case, whatever way it is written.
    who = (auth.mount, auth.username.lower())
    with lockable.trying(transport, who, password, [auth.password_file], by_others=True):
        # hvac escapes a name for LDAP, and does not for userpass.
        answer = transport.login(
            url=paths.url(f"auth/{auth.mount}/login/{auth.username}"),
            use_token=False,
            json={"password": password.reveal()},
        )
    return cast(Answer, answer)
