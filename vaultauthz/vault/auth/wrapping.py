"""A secret_id that comes response-wrapped: a token in its place, which gives it once.

Who intercepts the token either uses it, and ours then finds it used, or puts another
in its place, which tells by the path that it was made by. Both are final: there is
nothing to try again until somebody has looked, and has issued a new secret_id.

Source: Vault's documentation, "Response Wrapping", "Response wrapping token validation".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hvac.api.system_backend import Wrapping as Api

from vaultauthz.core.events import Operation
from vaultauthz.core.grant import NOT_VAULT, Failure, Verdict
from vaultauthz.core.redaction import shown
from vaultauthz.core.secret import Secret, is_token
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.transport import Transport

# Asked with the token in the body: as a header it would be used up by the question.
LOOKUP: Final = "sys/wrapping/lookup"
_PREFIX: Final = "wrapped secret_id "  # of this module's names in a stage's memory
_LONGEST: Final = 4096  # characters of a secret_id
_UUID: Final = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_NO_TOKEN = Failure(Verdict.RETRY, "what the secret_id file holds is no wrapping token")
_USED = Failure(
    Verdict.LOCKED,
    "the wrapping token was used before, or has expired: possible interception;"
    " look at Vault's audit log and issue a new secret_id",
)
_LOST = Failure(
    Verdict.LOCKED,
    "the wrapping token is used up: we used it and the answer was lost, unless Vault's"
    " audit log shows that somebody else did; issue a new secret_id",
)
_NO_SECRET_ID = Failure(
    Verdict.LOCKED, "what the wrapping token gave is no secret_id; issue a new one"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Another ``path`` that made a wrapping token than the one that was ``wanted``."""

    path: str
    wanted: str


def origin(answer: Mapping[str, Any], mount: str) -> Origin | None:
    """What made the token, as ``LOOKUP`` answers; None where our AppRole mount did.

    Raises:
        VaultError: it says no path.
    """
    data = answer.get("data")
    path = data.get("creation_path") if isinstance(data, dict) else None
    if not isinstance(path, str):
        raise VaultError(NOT_VAULT)
    # Vault shows no namespace in front, and a mount with its name could pass for one.
    ours = re.fullmatch(rf"auth/{re.escape(mount)}/role/[^/]+/secret-id", path)
    return None if ours else Origin(path, f"auth/{mount}/role/…/secret-id")


def secret_id(transport: Transport, mount: str, token: Secret, memory: dict[str, Secret]) -> Secret:
    """The secret_id that ``token`` stands for; from ``memory`` if it gave it before.

    Raises:
        VaultError: LOCKED when only a new wrapping token mends it.
    """
    # A bare secret_id is a UUID: told apart here, so that it raises no false alarm.
    if not is_token(token.reveal()) or _UUID.fullmatch(token.reveal()):
        raise VaultError(_NO_TOKEN)
    # A wrapping token is random: there is no way back from its digest.
    name = _PREFIX + hashlib.sha256(token.reveal().encode()).hexdigest()
    if name not in memory:
        found = _taken(transport, mount, token, memory, f"{name} asked for")
        for old in [key for key in memory if key.startswith(_PREFIX)]:
            del memory[old]
        memory[name] = found
    return memory[name]


def _taken(
    transport: Transport, mount: str, token: Secret, memory: dict[str, Secret], asked: str
) -> Secret:
    """What the token gives; ``asked`` in ``memory`` says that it may have given it already."""
    before = asked in memory
    try:
        _check_origin(transport, mount, token)
        memory[asked] = Secret("")  # if no answer comes, the token may be used up all the same
        return _unwrap(transport, token)
    except VaultError as exc:
        if not _says_used(exc):
            raise
        if not before:
            memory.pop(asked, None)
        raise exc.meaning(_LOST if before else _USED) from exc


def _check_origin(transport: Transport, mount: str, token: Secret) -> None:
    """That the token was made by our AppRole mount, and is still good."""
    transport.call, transport.credential = Call.OTHER, None
    transport.operation = Operation.UNWRAP
    # hvac has no method for it.
    other = origin(transport.post(f"/v1/{LOOKUP}", json={"token": token}), mount)
    if other is not None:
        reason = f"the wrapping token was not made by {other.wanted}"
        raise VaultError(
            Failure(Verdict.LOCKED, f"{reason}: possible interception"),
            detail=f"it was made by {shown(other.path, [token.reveal()])!a}",
        )


def _unwrap(transport: Transport, token: Secret) -> Secret:
    # By the token itself: one in the body wants a login besides.
    transport.credential = token
    try:
        answer = Api(transport).unwrap()
    finally:
        transport.credential = None
    data = answer.get("data")
    found = data.get("secret_id") if isinstance(data, dict) else None
    if not isinstance(found, str) or not 0 < len(found) <= _LONGEST:
        raise VaultError(_NO_SECRET_ID)
    return Secret(found)


def _says_used(error: VaultError) -> bool:
    # 400 "wrapping token is not valid or does not exist"; 403 for one that cannot be read.
    return error.status in (400, 403) and error.of_wrapping
