"""``sigv4`` and ``hmac`` of ``inject``: what is computed for each request."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Final

from vaultauthz.config import names, templates
from vaultauthz.config.document import Scalar
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.report import Refused
from vaultauthz.core.signing import Hmac, SigV4
from vaultauthz.core.signing.canonical import OBJECT_STORES
from vaultauthz.core.signing.hmac_form import ALGORITHMS, ENCODINGS, KEY_ENCODINGS, is_word
from vaultauthz.core.signing.words import ALL, HEADER, OURS, SIGNATURE, TIMESTAMPS
from vaultauthz.core.template import Template

SIGV4_KEYS: Final = (
    *("access_key", "body", "host", "region"),
    *("secret_key", "service", "session_token"),
)
HMAC_KEYS: Final = (
    *("algorithm", "encoding", "headers", "host", "key", "key_encoding"),
    *("separator", "sign", "timestamp"),
)
BODIES: Final = ("signed", "unsigned")
ACCESS_KEY: Final = "{access_key}"
SECRET_KEY: Final = "{secret_key}"

_LATTICE: Final = "vpc-lattice-svcs"
# The services of which botocore's descriptions have an operation with an unsigned body.
_TAKE_UNSIGNED: Final = {*OBJECT_STORES, _LATTICE, "ebs", "lex", "mediastore", "omics"}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.\-]*\Z")  # "auto" is a region of S3's imitators
_HOST: Final = re.compile(
    r"(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9_.\-]*[a-z0-9])?)(?::[0-9]{1,5})?\Z"
)
_SEPARATOR: Final = re.compile(r"[\n -~]{0,16}\Z")
_ALMOST: Final = 0.85  # how much of a word has to be there to be a mistyped one


def read_sigv4(value: Value) -> SigV4:
    """AWS Signature Version 4; the keys' fields default to those of Vault's aws engine."""
    table = value.table(SIGV4_KEYS, secretive=True)
    service = table.require(
        "service", _service, "", "add the service's name in signatures, as in execute-api or s3"
    )
    return SigV4(
        region=table.require("region", _region, "", "add the region, as in eu-central-1"),
        service=service,
        access_key=table.get("access_key", templates.parse, Template.parse(ACCESS_KEY)),
        secret_key=table.get("secret_key", templates.read, Template.parse(SECRET_KEY)),
        session_token=table.get("session_token", templates.read, None),
        body=table.get("body", partial(_body, service=service), usual_body(service)),
        host=table.get("host", read_host, ""),
    )


def _service(value: Value) -> str:
    text = value.text()
    if not _NAME.match(text):
        raise value.wrong(f"{quoted(text)} is no service's name; write it as in execute-api or s3")
    return text


def _region(value: Value) -> str:
    text = value.text()
    if not _NAME.match(text):
        raise value.wrong(f"{quoted(text)} is no region; write it as in eu-central-1")
    return text


def usual_body(service: str) -> str:
    """What ``body`` is by default: signed, but for services that carry large ones or want it so."""
    return "unsigned" if service in OBJECT_STORES or service == _LATTICE else "signed"


def _body(value: Value, *, service: str) -> str:
    body = value.choice(BODIES)
    if body == "signed" and service == _LATTICE:
        raise value.wrong(f"{_LATTICE} takes unsigned bodies only; remove it")
    if body == "unsigned" and service and service not in _TAKE_UNSIGNED:
        value.warn(f"{service} is not known to take unsigned bodies: it answers them 403")
    return body


def read_host(value: Value) -> str:
    """The host that the upstream receives, perhaps with a port."""
    text = value.text().lower()
    if not _HOST.match(text):
        raise value.wrong(f"{quoted(text)} is no host; write it as the upstream gets it, name:port")
    return text


def read_hmac(value: Value) -> Hmac:
    """A keyed hash over parts of the request."""
    table = value.table(HMAC_KEYS, secretive=True)
    headers = table.require("headers", _headers, (), "add the headers that carry the signature")
    unsignable = [name for name, template in headers if SIGNATURE in template.fields]
    return Hmac(
        key=templates.required(table, "key"),
        sign=table.require(
            "sign", partial(_sign, unsignable=unsignable), (), 'add what is signed: ["{method}", …]'
        ),
        headers=headers,
        algorithm=_word(table, "algorithm", ALGORITHMS),
        key_encoding=_word(table, "key_encoding", KEY_ENCODINGS),
        encoding=_word(table, "encoding", ENCODINGS),
        separator=table.get("separator", _separator, "\n"),
        timestamp=_word(table, "timestamp", TIMESTAMPS),
        host=table.get("host", read_host, ""),
    )


def _word(table: Table, name: str, words: Collection[str]) -> str:
    """One of ``words``, the first by default."""
    allowed = tuple(words)
    return table.get(name, partial(Value.choice, allowed=allowed), allowed[0])


def _separator(value: Value) -> str:
    node = value.node
    if not isinstance(node, Scalar) or node.kind == "nothing" or not _SEPARATOR.match(node.text):
        raise value.wrong('wants up to 16 characters in quotes, as in "\\n", "." or ""')
    return node.text


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
    name = names.header_to_set(replace(value, node=Scalar(value.line, spelled)))
    template = templates.in_header(value, templates.parse)
    for field in template.fields:
        if field in (*OURS, SIGNATURE):
            continue
        if is_word(field):
            raise value.wrong(f"{{{field}}} can be signed, but not go into a header; remove it")
        _refuse_almost(value, field, (*OURS, SIGNATURE))
    return name, template


def _sign(value: Value, *, unsignable: Collection[str]) -> tuple[Template, ...]:
    parts = value.each(partial(_part, unsignable=unsignable))
    if not value.items() or not any(is_word(f) for part in parts for f in part.fields):
        raise value.wrong("signs nothing of the request; add {method}, {target} or another part")
    return parts


def _part(value: Value, *, unsignable: Collection[str]) -> Template:
    template = templates.parse(value)
    for field in template.fields:
        if field == SIGNATURE:
            raise value.wrong("{signature} cannot sign itself; remove it")
        if field.startswith(HEADER):
            _check_header(value, field, unsignable)
        elif not is_word(field):
            _refuse_almost(value, field, (*ALL, "header.NAME"))
    return Template(
        tuple((_lower(text) if field else text, field) for text, field in template.parts)
    )


def _lower(field: str) -> str:
    return field.lower() if field.startswith(HEADER) else field


def _check_header(value: Value, field: str, unsignable: Collection[str]) -> None:
    try:
        name = names.header_to_set(replace(value, node=Scalar(value.line, field[len(HEADER) :])))
    except Refused:
        text = "may reach the upstream as another; for the host there is {host}"
        raise value.wrong(f"{{{field}}} {text}") from None
    if name in unsignable:
        raise value.wrong(f"{{{field}}} carries the signature, which cannot sign itself; remove it")


def _refuse_almost(value: Value, field: str, words: Collection[str]) -> None:
    """A mistyped word would be taken for a field of the secret, and be missed at the first fetch."""
    close = difflib.get_close_matches(field.lower(), words, n=1, cutoff=_ALMOST)
    if close:
        raise value.wrong(f"{{{field}}} is no part of a request; did you mean {{{close[0]}}}?")
