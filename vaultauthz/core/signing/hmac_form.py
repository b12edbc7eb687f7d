"""A keyed hash (HMAC, RFC 2104) over parts of the request, in headers of any layout."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vaultauthz.core.field_value import InjectionError, clean, edges_fit
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import words
from vaultauthz.core.signing.outgoing import Outgoing, Pairs
from vaultauthz.core.template import Template, value_of

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


@dataclass(frozen=True, slots=True)
class Hmac:
    """``sign`` is joined by ``separator`` and signed; one of ``headers`` carries ``{signature}``.

    In both, the words of ``words`` stand for parts of the request and any other name for a
    field of the secret. Header names are in lower case; ``host`` is "" where the client's
    goes on.
    """

    key: Template
    sign: tuple[Template, ...]
    headers: tuple[tuple[str, Template], ...]
    algorithm: str = "sha256"
    key_encoding: str = "text"
    encoding: str = "hex"
    separator: str = "\n"
    timestamp: str = "unix"
    host: str = ""

    @property
    def header_names(self) -> tuple[str, ...]:
        """The header slots that it fills."""
        return tuple(name for name, _ in self.headers)

    @property
    def per_request(self) -> tuple[str, ...]:
        """Those that the signer fills: all of them."""
        return self.header_names

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields of the secret that it cannot do without."""
        return (*self.key.fields, *(name for name in self._named if not is_word(name)))

    @property
    def needs_body(self) -> bool:
        """Whether the gateway has to send bodies along."""
        return any(name.partition("_")[0] == "body" and is_word(name) for name in self._named)

    @property
    def _named(self) -> list[str]:
        templates = (*self.sign, *(value for _, value in self.headers))
        return [name for template in templates for name in template.fields]

    def constant(self, fields: Mapping[str, Secret]) -> Pairs:
        """No header: each may say something of the request."""
        return ()

    def signer(self, fields: Mapping[str, Secret]) -> HmacSigner:
        """What signs with this credential.

        Raises:
            MissingFieldError: the secret lacks a field.
            InjectionError: a field is blank, the key is not encoded as ``key_encoding``
                says, or a header cannot carry a field.
        """
        text = self.key.fill(fields)
        try:
            key = KEY_ENCODINGS[self.key_encoding](text)
        except ValueError:
            raise InjectionError(f"the value for hmac key is not {self.key_encoding}") from None
        if not key:
            raise InjectionError("the value for hmac key is empty")
        headers = [
            (name, Filler(value, fields, f"hmac header {name}")) for name, value in self.headers
        ]
        return HmacSigner(self, key, [Filler(part, fields) for part in self.sign], headers)


def is_word(name: str) -> bool:
    """Whether ``{name}`` stands for a part of the request, and not for a field of the secret."""
    return name in words.ALL or name == words.SIGNATURE or name.startswith(words.HEADER)


class Filler:
    """A template whose fields of the secret are filled in, and whose words are not."""

    __slots__ = ("_pieces", "words")

    def __init__(self, template: Template, fields: Mapping[str, Secret], place: str = "") -> None:
        self._pieces: list[tuple[bytes, str]] = []  # (literal, "") or (b"", word)
        for text, is_field in template.parts:
            if is_field and is_word(text):
                self._pieces.append((b"", text))
                continue
            literal = value_of(text, fields) if is_field else text
            literal = clean(literal, place) if place else literal
            self._pieces.append((literal.encode("utf-8", "surrogatepass"), ""))
        if place and self._pieces:
            # What stands at an edge must be such as a header can carry there.
            edges_fit(self._pieces[0][0].decode(), self._pieces[-1][0].decode(), place)
        self.words = frozenset(word for _, word in self._pieces if word)

    def fill(self, said: Mapping[str, bytes]) -> bytes:
        """The bytes, with ``said`` in place of the words."""
        return b"".join(said[word] if word else literal for literal, word in self._pieces)


class HmacSigner:
    """Signs with one credential."""

    __slots__ = ("_after", "_before", "_form", "_key", "_of_headers", "_parts", "_plain")

    def __init__(
        self,
        form: Hmac,
        key: bytes,
        parts: list[Filler],
        headers: list[tuple[str, Filler]],
    ) -> None:
        self._form = form
        self._key = key
        self._parts = parts
        # What says no signature may be signed itself, so it is made first.
        self._before = [(n, f) for n, f in headers if words.SIGNATURE not in f.words]
        self._after = [(n, f) for n, f in headers if words.SIGNATURE in f.words]
        wanted = _all_words([*parts, *(filler for _, filler in headers)])
        self._plain = {word: words.ALL[word] for word in wanted if word in words.ALL}
        self._of_headers = tuple(word for word in wanted if word.startswith(words.HEADER))

    def __repr__(self) -> str:
        return f"<HmacSigner {self._form.algorithm}>"

    def sign(self, sent: Outgoing, now: float, nonce: Callable[[], str]) -> Pairs:
        """See ``Signer``."""
        form = self._form
        timestamp = words.TIMESTAMPS[form.timestamp](now)
        moment = words.Moment(sent, form.host or sent.host, timestamp, nonce)
        said = {word: value(moment) for word, value in self._plain.items()}
        set_before = _made(self._before, said)
        ours = dict(set_before)
        for word in self._of_headers:
            name = word.removeprefix(words.HEADER)
            said[word] = words.as_bytes(ours.get(name) or sent.header(name, ", "))
        separator = form.separator.encode()
        to_sign = separator.join(part.fill(said) for part in self._parts)
        digest = hmac.digest(self._key, to_sign, form.algorithm)
        said[words.SIGNATURE] = ENCODINGS[form.encoding](digest)
        return (*set_before, *_made(self._after, said))


def _made(headers: Iterable[tuple[str, Filler]], said: Mapping[str, bytes]) -> Pairs:
    return tuple((name, filler.fill(said).decode()) for name, filler in headers)


def _all_words(fillers: Iterable[Filler]) -> list[str]:
    return sorted({word for filler in fillers for word in filler.words})
