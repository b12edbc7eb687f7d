"""Kubernetes: the pod's service account token, read again at each login."""

from __future__ import annotations

from typing import cast

from hvac.api.auth_methods import Kubernetes as Api

from vaultauthz.config.methods import Kubernetes
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: Kubernetes) -> Answer:
    """Log in; a 403 may pass, as the API server can lag behind a new pod."""
    jwt = read_secret(auth.token_file, "service account token")
    transport.call = Call.LOGIN
    try:
        answer = Api(transport).login(
            auth.role, jwt.reveal(), use_token=False, mount_point=auth.mount
        )
    except VaultError as exc:
        if exc.status == 403:
            failure = Failure(Verdict.RETRY, "Vault refused the service account")
            raise exc.meaning(failure) from exc
        raise
    return cast(Answer, answer)
