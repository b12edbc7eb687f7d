"""What the cloud logins share: a bounded exchange with a cloud's own service, and quiet libraries."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import requests
import urllib3
from requests.utils import get_environ_proxies

from vaultauthz.config.auth import ServiceReply
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.vault.errors import VaultError

_TIMEOUT: Final = 5.0  # seconds, for one exchange
_LIMIT: Final = 1 << 20  # bytes of one answer


def exchange(
    who: str,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = _TIMEOUT,
) -> ServiceReply:
    """Ask ``who``, the service's name in errors; ``timeout`` is for all of it, in seconds.

    Redirects are not followed, and plain HTTP takes no proxy from the environment: each
    would show a machine's identity to somebody else. For HTTPS a proxy only passes it on.

    Raises:
        VaultError: there was no answer, or one of more than 1 MiB; worth another try.
    """
    quiet("urllib3")  # it warns of a header that is none, with its text
    until = time.monotonic() + timeout
    limit: Any = urllib3.Timeout(total=timeout)
    try:
        with requests.Session() as session:
            session.trust_env = False  # ~/.netrc would replace our Authorization header
            if url.startswith("https://"):
                session.proxies = get_environ_proxies(url)
            with session.request(
                method,
                url,
                headers={"Accept-Encoding": "identity", **(headers or {})},
                params=params,
                data=body,
                allow_redirects=False,
                timeout=limit,
                stream=True,
            ) as response:
                return ServiceReply(
                    response.status_code, response.headers, _body(who, response, until)
                )
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as exc:
        raise failed(f"{who} did not answer in time") from exc
    # requests' own are OSErrors; a ValueError is a text that HTTP cannot carry.
    except (OSError, urllib3.exceptions.HTTPError, ValueError) as exc:
        raise failed(f"{who} cannot be reached", type(exc).__name__) from exc


def _body(who: str, response: requests.Response, until: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := response.raw.read1(65536):
        chunks.append(chunk)
        size += len(chunk)
        if size > _LIMIT:
            raise failed(f"the answer of {who} is larger than 1 MiB")
        if time.monotonic() > until:
            raise failed(f"{who} did not answer in time")
    return b"".join(chunks)


def failed(reason: str, detail: str = "", verdict: Verdict = Verdict.RETRY) -> VaultError:
    """The error to raise; nothing of what a service answered belongs into its texts."""
    return VaultError(Failure(verdict, reason), detail=detail)


def quiet(library: str) -> None:
    """Keep the log lines of ``library`` to itself.

    At debug they show session tokens and signatures, and a warning may quote what a
    credential program wrote. A level that the program has given it is left alone.
    """
    logger = logging.getLogger(library)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
