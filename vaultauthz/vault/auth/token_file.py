"""A token that something else keeps fresh, such as Vault Agent's file sink.

We neither renew nor revoke it: it is not ours. Its life is looked up instead.
"""

from __future__ import annotations

import logging
from typing import Any

from hvac.api.auth_methods import Token as Api

from vaultauthz.config.methods import TokenFile
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.vault.answers import is_token
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.errors import NOT_VAULT, Call, Denied, VaultError
from vaultauthz.vault.transport import Answer, Transport

log = logging.getLogger(__name__)

_NO_TOKEN = Failure(Verdict.RETRY, "what the token file holds is no token")
_UNKNOWN = Failure(Verdict.REFUSED, "Vault does not know the token in the file, or not any more")
_NO_LOOKUP = Failure(
    Verdict.REFUSED,
    "the policy of the token in the file does not allow auth/token/lookup-self, which tells its end",
)
_ENDING = Failure(Verdict.RETRY, "the token in the file is at its end")
_ENDLESS = Failure(Verdict.REFUSED, "the token never expires (allow_long_lived: true accepts it)")


def login(transport: Transport, auth: TokenFile) -> Answer:
    """Read the file and look the token up; the answer has the form of a login's."""
    token = read_secret(auth.path, "token")
    if not is_token(token.reveal()):
        raise VaultError(_NO_TOKEN)
    transport.call = Call.LOGIN
    transport.credential = token
    try:
        answer: Answer = Api(transport).lookup_self()
    except VaultError as exc:
        if exc.status == 403 and exc.denied is Denied.POLICY:
            raise exc.meaning(_NO_LOOKUP) from exc
        if exc.status == 403:
            raise exc.meaning(_UNKNOWN) from exc
        raise
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
        "num_uses": data.get("num_uses"),
    }
    return {"request_id": answer.get("request_id", ""), "auth": found}


def _check_endless(data: dict[str, Any], auth: TokenFile) -> None:
    """A TTL of 0 is a token without an end, or one in its last second."""
    if data.get("expire_time") is not None:
        raise VaultError(_ENDING)
    if not auth.allow_long_lived:
        raise VaultError(_ENDLESS)
    log.warning("the token in %s never expires: who reads it has it until it is revoked", auth.path)
