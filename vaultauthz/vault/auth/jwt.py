"""JWT: a token that another system signs and Vault checks, from a file or a command."""

from __future__ import annotations

from typing import cast

from hvac.api.auth_methods import JWT as Api  # noqa: N811  hvac's name

from vaultauthz.config.methods import Jwt
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.answers import is_token
from vaultauthz.vault.auth import command
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: Jwt) -> Answer:
    """Log in with the JWT of now."""
    token = _token(auth)
    transport.call = Call.LOGIN
    answer = Api(transport).jwt_login(auth.role, token.reveal(), use_token=False, path=auth.mount)
    return cast(Answer, answer)


def _token(auth: Jwt) -> Secret:
    if auth.token_file is not None:
        token, origin = read_secret(auth.token_file, "JWT"), "the JWT file holds"
    else:
        token, origin = command.output(auth.token_command), "the token command printed"
    if not is_token(token.reveal()):
        raise VaultError(Failure(Verdict.RETRY, f"what {origin} is no JWT"))
    return token
