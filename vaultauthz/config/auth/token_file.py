"""A token that something else keeps fresh, such as Vault Agent's file sink.

We neither renew nor revoke it: it is not ours. Its life is looked up instead.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from vaultauthz.config import files
from vaultauthz.config.auth import (
    Attachment,
    AuthMethod,
    LoginFile,
    LoginRequest,
    NoLoginError,
    Refusal,
    RefusedLogin,
    Surroundings,
    keys_of,
    no_login,
)
from vaultauthz.config.keys import Key
from vaultauthz.config.kinds import FLAG, file
from vaultauthz.core.grant import NOT_VAULT, Failure, Verdict
from vaultauthz.core.secret import is_token

log = logging.getLogger(__name__)

_UNKNOWN: Final = Failure(
    Verdict.REFUSED, "Vault does not know the token in the file, or not any more"
)
_NO_LOOKUP: Final = Failure(
    Verdict.REFUSED,
    "the policy of the token in the file does not allow auth/token/lookup-self, which tells its end",
)
_ENDLESS: Final = "the token never expires (allow_long_lived: true accepts it)"


@dataclass(frozen=True, slots=True)
class TokenFile(AuthMethod):
    """A token that something else keeps fresh, such as Vault Agent's sink."""

    name: ClassVar[str] = "token_file"
    first: ClassVar[str] = "path: token"
    mount: ClassVar[str] = ""
    owns_token: ClassVar[bool] = False

    path: Path
    allow_long_lived: bool = False

    def login(self, here: Surroundings) -> LoginRequest:
        """None is made: the token in the file is looked up."""
        token = here.text(self.path, "token")
        if not is_token(token.reveal()):
            raise no_login("what the token file holds is no token")
        return LoginRequest("auth/token/lookup-self", token=token)

    def denial(self, *, by_policy: bool) -> Failure | None:
        return _NO_LOOKUP if by_policy else _UNKNOWN

    def granted(self, request: LoginRequest, answer: dict[str, Any]) -> dict[str, Any]:
        data = answer.get("data")
        if not isinstance(data, dict) or request.token is None:
            raise NoLoginError(NOT_VAULT)
        ttl = data.get("ttl")
        if ttl == 0:
            self._check_endless(data)
        found = {
            "client_token": request.token.reveal(),
            "accessor": data.get("accessor", ""),
            "lease_duration": ttl,
            "renewable": False,
            "num_uses": data.get("num_uses"),
            "policies": data.get("policies"),
            "identity_policies": data.get("identity_policies"),
        }
        return {"request_id": answer.get("request_id", ""), "auth": found}

    def _check_endless(self, data: dict[str, Any]) -> None:
        """A TTL of 0 is a token without an end, or one in its last second."""
        if data.get("expire_time") is not None:
            raise no_login("the token in the file is at its end")
        if not self.allow_long_lived:
            raise no_login(_ENDLESS, Verdict.REFUSED)
        log.warning(
            "the token in %s never expires: who reads it has it until it is revoked", self.path
        )

    @property
    def files(self) -> tuple[LoginFile, ...]:
        return (LoginFile("path", self.path, private=True, watched=True),)

    @property
    def takes_endless(self) -> bool:
        return self.allow_long_lived

    def role_path(self, name: str = "") -> str:
        return ""

    def attached(self, policy: str) -> Attachment:
        return Attachment(
            "Give it to whatever makes the token in the file: the role that its agent logs in by, or",
            ((("token", "create"), (f"-policy={policy}", "-no-default-policy")),),
        )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        means = "the token in the file cannot be used"
        if refused.status == 403:
            means = (
                "the token in the file has expired or was revoked, or its policies lack "
                "auth/token/lookup-self"
            )
        elif refused.reason == _ENDLESS:
            means = "whoever reads the file has this token, perhaps the root token, for good"
        mend = "have whatever writes the file log in again (of Vault Agent: look at its log)"
        return Refusal((), means, mend, ())


TokenFile.keys = keys_of(
    TokenFile,
    Key(
        "path",
        file(files.awaited_private),
        "Holds a token that something else keeps fresh.",
        "It may come later, is read again when it changes, and neither renewed nor revoked by us.",
        missing="add path: FILE",
    ),
    Key("allow_long_lived", FLAG, "Accept a token that never ends."),
    mounted=False,
)
