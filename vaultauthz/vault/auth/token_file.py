"""A token that something else keeps fresh, such as Vault Agent's file sink.

We neither renew nor revoke it: it is not ours. Its life is looked up instead.
"""

from __future__ import annotations

from typing import Any

from hvac.api.auth_methods import Token as Api

from vaultauthz.config.methods import TokenFile
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.vault.answers import is_token
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.errors import NOT_VAULT, Call, VaultError
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: TokenFile) -> Answer:
    """Read the file and look the token up; the answer has the form of a login's."""
    token = read_secret(auth.path, "token")
    if not is_token(token.reveal()):
        raise VaultError(Failure(Verdict.RETRY, "what the token file holds is no token"))
    transport.call = Call.LOGIN
    transport.credential = token
    answer: Answer = Api(transport).lookup_self()
    data = answer.get("data")
    if not isinstance(data, dict):
        raise VaultError(NOT_VAULT)
    ttl = data.get("ttl")
    if ttl == 0:
        _check_endless(data, auth)
    found = {
        "client_token": token.reveal(),
        "accessor": data.get("accessor", ""),
        "lease_duration": ttl,
        "renewable": False,
    }
    return {"request_id": answer.get("request_id", ""), "auth": found}


def _check_endless(data: dict[str, Any], auth: TokenFile) -> None:
    """A TTL of 0 is a token without an end, or one in its last second."""
    if data.get("expire_time") is not None:
        raise VaultError(Failure(Verdict.RETRY, "the token in the file is at its end"))
    if not auth.allow_long_lived:
        failure = Failure(
            Verdict.REFUSED, "the token never expires (allow_long_lived: true accepts it)"
        )
        raise VaultError(failure)
