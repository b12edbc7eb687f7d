"""User name and password: of Vault's own users, or of a directory (LDAP)."""

from __future__ import annotations

from typing import cast

from hvac.api.auth_methods import Ldap as LdapApi
from hvac.api.auth_methods import Userpass as UserPassApi

from vaultauthz.config.methods import Ldap, UserPass
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.errors import Call
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: UserPass | Ldap) -> Answer:
    """Log in; a 400 is never retried, as some of them lock the user."""
    password = read_secret(auth.password_file, "password")
    transport.call = Call.LOGIN_LOCKABLE
    api = UserPassApi(transport) if isinstance(auth, UserPass) else LdapApi(transport)
    answer = api.login(auth.username, password.reveal(), use_token=False, mount_point=auth.mount)
    return cast(Answer, answer)
