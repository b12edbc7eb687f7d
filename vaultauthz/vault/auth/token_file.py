"""A token that something else keeps fresh, such as Vault Agent's file sink.

We neither renew nor revoke it: it is not ours. Its life is looked up instead.
"""

from __future__ import annotations

from hvac.api.auth_methods import Token as Api

from vaultauthz.config.values import TokenFile
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: TokenFile) -> Answer:
    """Read the file and look the token up; the answer has the form of a login's."""
    token = read_secret(auth.path, "token")
    transport.call = Call.LOGIN
    transport.credential = token
    answer: Answer = Api(transport).lookup_self()
    data = answer.get("data") or {}
    ttl = data.get("ttl", 0)
    if not ttl and not auth.allow_long_lived:
        failure = Failure(
            Verdict.REFUSED, "the token never expires (allow_long_lived: true accepts it)"
        )
        raise VaultError(failure)
    found = {
        "client_token": token.reveal(),
        "accessor": data.get("accessor", ""),
        "lease_duration": ttl,
        "renewable": False,
    }
    return {"request_id": answer.get("request_id", ""), "auth": found}
