"""``hmac``: a keyed hash over parts of each request, in headers of any layout."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Final

from vaultauthz.config import kinds, templates
from vaultauthz.config.document import Scalar
from vaultauthz.config.keys import Key, Reader, Section
from vaultauthz.config.kinds import TEXT, choice, many
from vaultauthz.config.problems import Refused
from vaultauthz.config.reader import Value, quoted
from vaultauthz.core.injection import Injection, Mutation, Signature
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing.hmac import (
    ALGORITHMS,
    ENCODINGS,
    HEADER_PREFIX,
    IN_HEADERS,
    KEY_ENCODINGS,
    PLACEHOLDERS,
    SIGNATURE,
    TIMESTAMPS,
    Filler,
    HmacSigner,
    Layout,
    is_placeholder,
)
from vaultauthz.core.template import InjectionError, Template

_LONGEST_SEPARATOR: Final = 16
_ALMOST: Final = 0.85  # how much of a placeholder has to be there to be a mistyped one


@dataclass(frozen=True, slots=True)
class Hmac(Injection):
    """``sign`` is joined by ``separator`` and signed; one of ``headers`` carries ``{signature}``.

    In both, the placeholders of ``core.signing.hmac`` stand for parts of the request and any
    other name for a field of the secret. Header names are in lower case; ``host`` is "" where
    the client's goes on.
    """

    form: ClassVar = "hmac"
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
    def headers_written(self) -> tuple[tuple[str, Template], ...]:
        return self.headers

    @property
    def signature(self) -> Signature:
        said = (n for n in self._named() if n.partition("_")[0] == "body" and is_placeholder(n))
        return Signature(self.host, needs_body=any(said))

    @property
    def field_names(self) -> tuple[str, ...]:
        return (*self.key.fields, *(n for n in self._named() if not is_placeholder(n)))

    def _named(self) -> Iterator[str]:
        for template in (*self.sign, *(value for _, value in self.headers)):
            yield from template.fields

    @property
    def shown(self) -> str:
        names = ", ".join(f"header {name}" for name in self.header_names)
        return f"HMAC signature ({self.algorithm}): {names}"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        """The signer makes every header: each may say something of the request."""
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
        layout = Layout(self.algorithm, self.encoding, self.separator, self.timestamp, self.host)
        signer = HmacSigner(layout, key, [Filler(part, fields) for part in self.sign], headers)
        return Mutation(signer=signer, filled=self.header_names)


def _separator(value: Value) -> str:
    node = value.node
    if not isinstance(node, Scalar) or node.kind == "nothing" or not _fits(node.text):
        raise value.wrong('wants up to 16 characters in quotes, as in "\\n", "." or ""')
    return node.text


def _fits(text: str) -> bool:
    return len(text) <= _LONGEST_SEPARATOR and all(c == "\n" or " " <= c <= "~" for c in text)


def _headers(value: Value) -> tuple[tuple[str, Template], ...]:
    read = value.each_entry(_header)
    if value.entries() and not any(SIGNATURE in template.fields for _, template in read.values()):
        raise value.wrong("none of them carries {signature}; add it")
    found: dict[str, Template] = {}
    for spelled, (name, template) in read.items():
        if name in found:
            raise value.wrong(f"has {quoted(spelled)} twice, in other letters; keep one")
        found[name] = template
    return tuple(found.items())


def _header(spelled: str, value: Value) -> tuple[str, Template]:
    name = kinds.header_to_set(replace(value, node=Scalar(value.line, spelled)))
    template = templates.in_header(value, templates.parse)
    for field in template.fields:
        if field in (*IN_HEADERS, SIGNATURE):
            continue
        if is_placeholder(field):
            raise value.wrong(f"{{{field}}} can be signed, but not go into a header; remove it")
        _refuse_almost(value, field, (*IN_HEADERS, SIGNATURE))
    return name, template


def _sign(value: Value, *, unsignable: Collection[str]) -> tuple[Template, ...]:
    parts = value.each(partial(_part, unsignable=unsignable))
    if not value.items() or not any(is_placeholder(f) for part in parts for f in part.fields):
        raise value.wrong("signs nothing of the request; add {method}, {target} or another part")
    return parts


def _part(value: Value, *, unsignable: Collection[str]) -> Template:
    template = templates.parse(value)
    for field in template.fields:
        if field == SIGNATURE:
            raise value.wrong("{signature} cannot sign itself; remove it")
        if field.startswith(HEADER_PREFIX):
            _check_header(value, field, unsignable)
        elif not is_placeholder(field):
            _refuse_almost(value, field, (*PLACEHOLDERS, "header.NAME"))
    return Template(
        tuple((_lower(text) if field else text, field) for text, field in template.parts)
    )


def _lower(field: str) -> str:
    return field.lower() if field.startswith(HEADER_PREFIX) else field


def _check_header(value: Value, field: str, unsignable: Collection[str]) -> None:
    spelled = Scalar(value.line, field.removeprefix(HEADER_PREFIX))
    try:
        name = kinds.header_to_set(replace(value, node=spelled))
    except Refused:
        text = "may reach the upstream as another; for the host there is {host}"
        raise value.wrong(f"{{{field}}} {text}") from None
    if name in unsignable:
        raise value.wrong(f"{{{field}}} carries the signature, which cannot sign itself; remove it")


def _refuse_almost(value: Value, field: str, known: Collection[str]) -> None:
    """A mistyped one would be taken for a field of the secret, and be missed at the first fetch."""
    close = difflib.get_close_matches(field.lower(), known, n=1, cutoff=_ALMOST)
    if close:
        raise value.wrong(f"{{{field}}} is no part of a request; did you mean {{{close[0]}}}?")


def _read(value: Value) -> Hmac:
    table = _KEYS.open(value)
    headers = _KEYS.get(table, "headers")
    unsignable = [name for name, template in headers if SIGNATURE in template.fields]
    return _KEYS.build(table, {"headers": headers}, sign=partial(_sign, unsignable=unsignable))


_PARTS: Final = "Words and fields in braces."
_KEYS: Final = Section(
    Hmac,
    "A keyed hash over parts of each request.",
    Key("key", templates.WITH_FIELD, '"{FIELD}" of the secret.', missing=templates.FIELD_HINT),
    Key(
        "key_encoding",
        choice(*KEY_ENCODINGS),
        "How the key is written in the secret.",
        "Base64 in either alphabet.",
    ),
    Key("algorithm", choice(*ALGORITHMS), "The hash."),
    Key(
        "sign",
        many(TEXT.about(_PARTS), partial(_sign, unsignable=()), least=1),
        "What is signed, in order.",
        missing='add what is signed: ["{method}", …]',
    ),
    Key(
        "separator",
        Reader(_separator, {"type": "string", "maxLength": _LONGEST_SEPARATOR}),
        "Between the parts of sign.",
        '`""` for none.',
    ),
    Key("encoding", choice(*ENCODINGS), "How {signature} is written."),
    Key("timestamp", choice(*TIMESTAMPS), "How {timestamp} is written."),
    Key(
        "headers",
        Reader(
            _headers,
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": TEXT.about(_PARTS),
            },
            stand_in=(),
        ),
        "Each header that is set; one has {signature} in it.",
        missing="add the headers that carry the signature",
    ),
    kinds.UPSTREAM_HOST,
    secretive=True,
)
FORM: Final = Key(Hmac.form, _KEYS.reader().by(_read))
