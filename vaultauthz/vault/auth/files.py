"""Reading what a login needs from a file, anew at each login."""

from __future__ import annotations

import os
from pathlib import Path

from vaultauthz.core.file_text import NoTextError, text_of
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.errors import VaultError

_LIMIT = 64 * 1024


def read_secret(path: Path, what: str) -> Secret:
    """The file's text without a byte order mark and white space around it.

    Raises:
        VaultError: it cannot be read, is empty or too large; worth another try,
            as an agent may be about to write it.
    """
    try:
        data = _read(path)
    except OSError as exc:
        raise _unread(what, f"{path}: {exc.strerror}") from None
    if len(data) > _LIMIT:
        raise _unread(what, f"{path} is larger than {_LIMIT // 1024} KiB")
    try:
        text = text_of(data)
    except NoTextError as exc:
        raise _unread(what, f"{path} {exc}") from None
    if not text:
        raise _unread(what, f"{path} is empty")
    return Secret(text)


def _read(path: Path) -> bytes:
    # A pipe that nobody writes to must not hold the login up for ever.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(number, "rb") as file:
        return file.read(_LIMIT + 1) or b""


def _unread(what: str, detail: str) -> VaultError:
    return VaultError(Failure(Verdict.RETRY, f"the {what} file cannot be read"), detail=detail)
