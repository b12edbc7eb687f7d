"""AppRole: a role_id and, unless the role does without, a secret_id."""

from __future__ import annotations

from typing import cast

from hvac.api.auth_methods import AppRole as Api

from vaultauthz.config.methods import AppRole
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth import wrapping
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.auth.lockable import Lockable
from vaultauthz.vault.transport import Answer, Transport


def login(
    transport: Transport, auth: AppRole, memory: dict[str, Secret], lockable: Lockable
) -> Answer:
    """Log in; a 400 is never retried, as five of them lock the role for everyone.

    Nor if it worked before: what is wrong is then the secret_id itself, destroyed or ended.
    """
    # Before the secret_id: a wrapping token must not be used up for a login that cannot be.
    role_id = auth.role_id
    if auth.role_id_file is not None:
        role_id = read_secret(auth.role_id_file, "role_id").reveal()
    secret_id = _secret_id(transport, auth, memory)
    files = [auth.secret_id_file] if auth.secret_id_file else []
    with lockable.trying(transport, (auth.mount, role_id), secret_id, files, again=False):
        answer = Api(transport).login(
            role_id,
            secret_id.reveal() if secret_id else None,
            use_token=False,
            mount_point=auth.mount,
        )
    return cast(Answer, answer)


def _secret_id(transport: Transport, auth: AppRole, memory: dict[str, Secret]) -> Secret | None:
    if auth.secret_id_file is None:
        return auth.secret_id
    if not auth.secret_id_wrapped:
        return read_secret(auth.secret_id_file, "secret_id")
    token = read_secret(auth.secret_id_file, "secret_id")
    return wrapping.secret_id(transport, auth.mount, token, memory)
