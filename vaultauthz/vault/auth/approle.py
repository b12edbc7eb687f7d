"""AppRole: a role_id and, unless the role does without, a secret_id."""

from __future__ import annotations

from typing import cast

from hvac.api.auth_methods import AppRole as Api

from vaultauthz.config.methods import AppRole
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.errors import Call
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: AppRole, memory: dict[str, Secret]) -> Answer:  # noqa: ARG001
    """Log in; a 400 is never retried, as five of them lock the role for everyone."""
    secret_id = auth.secret_id
    if auth.secret_id_file is not None:
        secret_id = read_secret(auth.secret_id_file, "secret_id")
    transport.call = Call.LOGIN_LOCKABLE
    answer = Api(transport).login(
        auth.role_id,
        secret_id.reveal() if secret_id else None,
        use_token=False,
        mount_point=auth.mount,
    )
    return cast(Answer, answer)
