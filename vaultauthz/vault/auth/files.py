"""Reading what a login needs from a file, anew at each login."""

from __future__ import annotations

from pathlib import Path

from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.errors import VaultError

_LIMIT = 64 * 1024


def read_secret(path: Path, what: str) -> Secret:
    """The file's text without surrounding white space.

    Raises:
        VaultError: it cannot be read or is empty; worth another try, as an
            agent may be about to write it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT).decode().strip()
    except (OSError, UnicodeDecodeError) as exc:
        problem = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise _unread(what, f"{path}: {problem}") from exc
    if not text:
        raise _unread(what, f"{path} is empty")
    return Secret(text)


def _unread(what: str, detail: str) -> VaultError:
    return VaultError(Failure(Verdict.RETRY, f"the {what} file cannot be read"), detail=detail)
