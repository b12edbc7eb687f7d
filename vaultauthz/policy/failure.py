"""Why a call to Vault failed, for an operator."""

from __future__ import annotations

from vaultauthz.core.grant import Verdict
from vaultauthz.vault.errors import VaultError


def told(error: VaultError) -> str:
    """Our reason, and Vault's own words."""
    if error.failure.verdict is Verdict.TOKEN_DEAD:
        return "the token is not valid, or not any more"
    reason = error.failure.reason
    return f"{reason} ({error.detail})" if error.detail else reason
