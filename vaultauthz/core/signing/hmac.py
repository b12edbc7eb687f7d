"""A keyed hash (HMAC, RFC 2104) over parts of the request, in headers of any layout.

The placeholders: what a template may say of the request beside fields of the secret, and its
value as bytes.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import email.utils
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import Outgoing, Pairs, SigningError
from vaultauthz.core.template import Template, clean, edges_fit, value_of

ALGORITHMS: Final = ("sha256", "sha384", "sha512", "sha1")
_URL_SAFE: Final = str.maketrans("-_", "+/")


def _from_base64(text: str) -> bytes:
    plain = text.translate(_URL_SAFE).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


KEY_ENCODINGS: Final[Mapping[str, Callable[[str], bytes]]] = MappingProxyType(
    {"text": str.encode, "base64": _from_base64, "hex": bytes.fromhex}
)
ENCODINGS: Final[Mapping[str, Callable[[bytes], bytes]]] = MappingProxyType(
    {
        "hex": binascii.hexlify,
        "base64": base64.b64encode,
        "base64url": lambda digest: base64.urlsafe_b64encode(digest).rstrip(b"="),
    }
)

SIGNATURE: Final = "signature"
HEADER_PREFIX: Final = "header."  # and a name in lower case


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


def _as_bytes(text: str) -> bytes:
    """The bytes that ``text`` of a request stands for."""
    return text.encode("utf-8", "surrogateescape")


# Of these a header may be made: their values are plain ASCII whatever the client sends.
IN_HEADERS: Final[Mapping[str, Callable[[Moment], bytes]]] = MappingProxyType(
    {
        "timestamp": lambda m: m.timestamp.encode(),
        "nonce": lambda m: m.nonce().encode(),
        "body_sha256": lambda m: hashlib.sha256(m.body()).hexdigest().encode(),
        "body_sha256_base64": lambda m: base64.b64encode(hashlib.sha256(m.body()).digest()),
    }
)
# Of these only what is signed may be made.
_SIGNED_ONLY: Final[Mapping[str, Callable[[Moment], bytes]]] = MappingProxyType(
    {
        "method": lambda m: m.sent.method.encode(),
        "method_lower": lambda m: m.sent.method.lower().encode(),
        "host": lambda m: _as_bytes(m.host),
        "path": lambda m: _as_bytes(m.sent.path),
        "query": lambda m: _as_bytes(m.sent.query),
        "target": lambda m: _as_bytes(m.sent.target),
        "body": Moment.body,
    }
)
PLACEHOLDERS: Final = MappingProxyType({**IN_HEADERS, **_SIGNED_ONLY})


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


def is_placeholder(name: str) -> bool:
    """Whether ``{name}`` stands for a part of the request, and not for a field of the secret."""
    return name in PLACEHOLDERS or name == SIGNATURE or name.startswith(HEADER_PREFIX)


class Filler:
    """A template whose fields of the secret are filled in, and whose placeholders are not."""

    __slots__ = ("_pieces", "placeholders")

    def __init__(self, template: Template, fields: Mapping[str, Secret], place: str = "") -> None:
        self._pieces: list[tuple[bytes, str]] = []  # (literal, "") or (b"", placeholder)
        for text, is_field in template.parts:
            if is_field and is_placeholder(text):
                self._pieces.append((b"", text))
                continue
            literal = value_of(text, fields) if is_field else text
            literal = clean(literal, place) if place else literal
            self._pieces.append((literal.encode("utf-8", "surrogatepass"), ""))
        if place and self._pieces:
            # What stands at an edge must be such as a header can carry there.
            edges_fit(self._pieces[0][0].decode(), self._pieces[-1][0].decode(), place)
        self.placeholders = frozenset(name for _, name in self._pieces if name)

    def fill(self, said: Mapping[str, bytes]) -> bytes:
        """The bytes, with ``said`` in place of the placeholders."""
        return b"".join(said[name] if name else literal for literal, name in self._pieces)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a signature is made and written; ``host`` is "" for the request's own."""

    algorithm: str
    encoding: str
    separator: str
    timestamp: str
    host: str


class HmacSigner:
    """Signs with one credential."""

    __slots__ = ("_after", "_before", "_key", "_layout", "_of_headers", "_parts", "_plain")

    def __init__(
        self,
        layout: Layout,
        key: bytes,
        parts: list[Filler],
        headers: list[tuple[str, Filler]],
    ) -> None:
        self._layout = layout
        self._key = key
        self._parts = parts
        # What says no signature may be signed itself, so it is made first.
        self._before = [(n, f) for n, f in headers if SIGNATURE not in f.placeholders]
        self._after = [(n, f) for n, f in headers if SIGNATURE in f.placeholders]
        wanted = _all_placeholders([*parts, *(filler for _, filler in headers)])
        self._plain = {name: PLACEHOLDERS[name] for name in wanted if name in PLACEHOLDERS}
        self._of_headers = tuple(name for name in wanted if name.startswith(HEADER_PREFIX))

    def __repr__(self) -> str:
        return f"<HmacSigner {self._layout.algorithm}>"

    def sign(self, sent: Outgoing, now: float, nonce: Callable[[], str]) -> Pairs:
        """See ``Signer``."""
        layout = self._layout
        timestamp = TIMESTAMPS[layout.timestamp](now)
        moment = Moment(sent, layout.host or sent.host, timestamp, nonce)
        said = {name: value(moment) for name, value in self._plain.items()}
        set_before = _made(self._before, said)
        ours = dict(set_before)
        for placeholder in self._of_headers:
            name = placeholder.removeprefix(HEADER_PREFIX)
            said[placeholder] = _as_bytes(ours.get(name) or sent.header(name, ", "))
        separator = layout.separator.encode()
        to_sign = separator.join(part.fill(said) for part in self._parts)
        digest = hmac.digest(self._key, to_sign, layout.algorithm)
        said[SIGNATURE] = ENCODINGS[layout.encoding](digest)
        return (*set_before, *_made(self._after, said))


def _made(headers: Iterable[tuple[str, Filler]], said: Mapping[str, bytes]) -> Pairs:
    return tuple((name, filler.fill(said).decode()) for name, filler in headers)


def _all_placeholders(fillers: Iterable[Filler]) -> list[str]:
    return sorted({name for filler in fillers for name in filler.placeholders})
