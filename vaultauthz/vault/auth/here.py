"""What this machine has for a login: the text of a file, and what a command prints.

A command is run without a shell, bounded in time and output. Nothing that it prints, nor its
arguments, is ever told: either may be a secret.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from vaultauthz.core.file_text import NoTextError, text_of
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.errors import VaultError

_FILE_LIMIT: Final = 64 * 1024  # bytes
_TIMEOUT: Final = 10.0  # seconds, from the start to its end
_OUTPUT_LIMIT: Final = 64 * 1024  # bytes of output


def read_secret(path: Path, what: str) -> Secret:
    """The file's text without a byte order mark and white space around it.

    Raises:
        VaultError: it cannot be read, is empty or too large; worth another try,
            as an agent may be about to write it.
    """
    try:
        data = _data(path)
    except OSError as exc:
        raise _unread(what, f"{path}: {exc.strerror}") from None
    if len(data) > _FILE_LIMIT:
        raise _unread(what, f"{path} is larger than {_FILE_LIMIT // 1024} KiB")
    try:
        text = text_of(data)
    except NoTextError as exc:
        raise _unread(what, f"{path} {exc}") from None
    if not text:
        raise _unread(what, f"{path} is empty")
    return Secret(text)


def _data(path: Path) -> bytes:
    # A pipe that nobody writes to must not hold the login up for ever.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(number, "rb") as file:
        return file.read(_FILE_LIMIT + 1) or b""


def _unread(what: str, detail: str) -> VaultError:
    return VaultError(Failure(Verdict.RETRY, f"the {what} file cannot be read"), detail=detail)


def printed(argv: tuple[str, ...], timeout: float = _TIMEOUT) -> Secret:
    """What the command prints, without surrounding white space.

    It has our environment, no input and a session of its own, so that whatever it
    starts can be ended with it.

    Raises:
        VaultError: it cannot be run, fails, prints nothing or too much, or takes too
            long; worth another try, as it may depend on the network.
    """
    name = Path(argv[0]).name
    until = time.monotonic() + timeout
    try:
        child = subprocess.Popen(  # noqa: S603  the operator's command, and no shell
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as exc:
        raise _failed(name, f"cannot be run: {_problem(exc)}") from exc
    with child:
        try:
            text = _read(child, name, until)
            status = child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired as exc:
            raise _failed(name, f"did not end within {timeout:g} s") from exc
        finally:
            _end(child)
    if status != 0:
        raise _failed(name, _ending(status))
    return _as_secret(text, name)


def _read(child: subprocess.Popen[bytes], name: str, until: float) -> bytes:
    """All that it prints, until it and what it started have closed their output."""
    chunks: list[bytes] = []
    size = 0
    assert child.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            chunk = os.read(child.stdout.fileno(), _OUTPUT_LIMIT)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
            size += len(chunk)
            if size > _OUTPUT_LIMIT:
                raise _failed(name, f"printed more than {_OUTPUT_LIMIT // 1024} KiB")
    raise subprocess.TimeoutExpired(name, 0.0)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill it with all that it started, unless it has ended by itself."""
    # Once it has been waited for, its number may be another's.
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _as_secret(text: bytes, name: str) -> Secret:
    try:
        decoded = text_of(text)
    except NoTextError as exc:
        raise _failed(name, f"printed what {exc}") from None
    if not decoded:
        raise _failed(name, "printed nothing")
    return Secret(decoded)


def _ending(status: int) -> str:
    if status > 0:
        return f"failed with exit status {status}"
    return f"was ended by signal {-status}"


def _problem(exc: OSError | ValueError) -> str:
    return exc.strerror or "an error" if isinstance(exc, OSError) else "a NUL in its arguments"


def _failed(name: str, what: str) -> VaultError:
    return VaultError(Failure(Verdict.RETRY, f"the token command {name} {what}"))
