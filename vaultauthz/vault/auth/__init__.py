"""Logging in, one file for each auth method.

Each has ``login(transport, values) -> Answer``: Vault's answer with its ``auth``.
"""

from __future__ import annotations

from vaultauthz.config.values import AppRole, Auth, Kubernetes
from vaultauthz.vault.auth import approle, kubernetes, token_file
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: Auth) -> Answer:
    """Log in by the method that ``auth`` is the configuration of.

    Raises:
        VaultError: the login did not work, or a file it needs cannot be read.
    """
    if isinstance(auth, AppRole):
        return approle.login(transport, auth)
    if isinstance(auth, Kubernetes):
        return kubernetes.login(transport, auth)
    return token_file.login(transport, auth)
