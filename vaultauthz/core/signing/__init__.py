"""Signatures that are computed for each request: the request that is signed, and what signs it.

Everything here is a function of the request, the credential, the time and a nonce; the
last two are passed in. What the configuration says of a signature is a form of ``inject``
(``config.forms``), which makes of it and of one credential a signer of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from vaultauthz.core.request import Request

Pairs = tuple[tuple[str, str], ...]


class SigningError(ValueError):
    """This request cannot be signed. The text is for our log, and quotes nothing of it."""


class Signer(Protocol):
    """Signs requests with one credential; holds it in clear."""

    def sign(self, sent: Outgoing, now: float, nonce: Callable[[], str]) -> Pairs:
        """The headers to set on ``sent``; ``now`` is in seconds since 1970.

        Raises:
            SigningError: something that has to be signed is not known.
        """


@dataclass(slots=True)
class Outgoing:
    """``headers`` by lower-case name; text stands for bytes as ``os.fsdecode`` has it.

    ``body`` is None where the gateway did not send it along. Not frozen, though only
    its maker changes it: see ``Request``.
    """

    method: str
    host: str
    path: str
    query: str  # without the question mark; "" also where there is none
    headers: dict[str, list[str]]
    body: bytes | None

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def header(self, name: str, separator: str = ",") -> str:
        """The values of a header, joined; "" where there is none."""
        return separator.join(self.headers.get(name, ()))


def outgoing(
    request: Request, headers: Iterable[tuple[str, str]], remove: Iterable[str]
) -> Outgoing:
    """``request`` after ``headers`` were set on it and those in ``remove`` dropped.

    Raises:
        SigningError: the gateway has not told us its headers.
    """
    if request.message is None:
        raise SigningError("the gateway does not tell us its headers")
    message = request.message()
    known: dict[str, list[str]] = {}
    for name, value in message.headers:
        known.setdefault(name, []).append(value)
    for name in remove:
        known.pop(name, None)
    for name, value in headers:
        known[name] = [value]
    path, _, query = (message.target or request.path).partition("?")
    return Outgoing(request.method, request.host, path, query, known, message.body)
