"""What an ``hmac`` template may say of the request: the words, and their values as bytes."""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vaultauthz.core.signing.outgoing import Outgoing, SigningError

SIGNATURE: Final = "signature"
HEADER: Final = "header."  # and a name in lower case


@dataclass(frozen=True, slots=True)
class Moment:
    """One request at one time. ``host`` is the one that the upstream receives."""

    sent: Outgoing
    host: str
    timestamp: str
    nonce: Callable[[], str]

    def body(self) -> bytes:
        """The whole body.

        Raises:
            SigningError: the gateway did not send it.
        """
        if self.sent.body is None:
            raise SigningError("the gateway did not send us its whole body")
        return self.sent.body


def as_bytes(text: str) -> bytes:
    """The bytes that ``text`` of a request stands for."""
    return text.encode("utf-8", "surrogateescape")


# Of these a header may be made: their values are plain ASCII whatever the client sends.
OURS: Final[Mapping[str, Callable[[Moment], bytes]]] = MappingProxyType(
    {
        "timestamp": lambda m: m.timestamp.encode(),
        "nonce": lambda m: m.nonce().encode(),
        "body_sha256": lambda m: hashlib.sha256(m.body()).hexdigest().encode(),
        "body_sha256_base64": lambda m: base64.b64encode(hashlib.sha256(m.body()).digest()),
    }
)
# Of these only what is signed may be made.
OF_REQUEST: Final[Mapping[str, Callable[[Moment], bytes]]] = MappingProxyType(
    {
        "method": lambda m: m.sent.method.encode(),
        "method_lower": lambda m: m.sent.method.lower().encode(),
        "host": lambda m: as_bytes(m.host),
        "path": lambda m: as_bytes(m.sent.path),
        "query": lambda m: as_bytes(m.sent.query),
        "target": lambda m: as_bytes(m.sent.target),
        "body": Moment.body,
    }
)
ALL: Final = MappingProxyType({**OURS, **OF_REQUEST})


def _utc(now: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(now, dt.UTC)


TIMESTAMPS: Final[Mapping[str, Callable[[float], str]]] = MappingProxyType(
    {
        "unix": lambda now: str(int(now)),
        "unix_ms": lambda now: str(int(now * 1000)),
        "rfc3339": lambda now: _utc(now).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "rfc3339_ms": lambda now: f"{_utc(now):%Y-%m-%dT%H:%M:%S}.{int(now * 1000) % 1000:03d}Z",
        "http": lambda now: email.utils.format_datetime(_utc(now), usegmt=True),
    }
)
