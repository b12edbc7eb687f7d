"""Where a credential goes on the request, and the text that goes there.

``render`` runs once for each new credential, never for each request: what a
request gets is a ready ``Mutation``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template

# What RFC 9110 keeps out of a field value, tab excepted: a CR or LF would let a
# secret's writer add headers of their own. And what UTF-8 has no bytes for.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class InjectionError(ValueError):
    """The secret cannot be put on a request. Names the place, never the value."""


@dataclass(frozen=True, slots=True)
class Header:
    """``name: value``. The name is kept in lower case, as HTTP/2 has it."""

    name: str
    value: Template


@dataclass(frozen=True, slots=True)
class Bearer:
    """``authorization: Bearer <token>`` (RFC 6750)."""

    token: Template


@dataclass(frozen=True, slots=True)
class Basic:
    """``authorization: Basic base64(username:password)`` (RFC 7617, UTF-8)."""

    username: Template
    password: Template


@dataclass(frozen=True, slots=True)
class Query:
    """``?name=value``, URL-encoded; replaces every copy the client sent."""

    name: str
    value: Template


@dataclass(frozen=True, slots=True)
class Cookie:
    """``cookie: name=value`` beside the client's other cookies."""

    name: str
    value: Template


Injection = Header | Bearer | Basic | Query | Cookie


@dataclass(frozen=True, slots=True, repr=False)
class Mutation:
    """What is done to the request; holds the credential in clear.

    ``headers`` overwrite every copy the client sent, ``remove`` names headers
    to drop (never one that is also set), ``query`` is already URL-encoded,
    ``cookies`` are merged into the client's by ``merge_cookies``.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    cookies: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = [name for name, _ in self.headers]
        return f"<Mutation sets {names!r}>"


def header_names(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The header slots that these injections fill, in lower case."""
    return tuple(dict.fromkeys(_header_name(i) for i in injections if not isinstance(i, Query)))


def _header_name(injection: Header | Bearer | Basic | Cookie) -> str:
    if isinstance(injection, Header):
        return injection.name
    return "cookie" if isinstance(injection, Cookie) else "authorization"


def field_names(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The fields of the secret that these injections want, each once."""
    names: list[str] = []
    for injection in injections:
        if isinstance(injection, Basic):
            names += injection.username.fields + injection.password.fields
        elif isinstance(injection, Bearer):
            names += injection.token.fields
        else:
            names += injection.value.fields
    return tuple(dict.fromkeys(names))


def render(
    injections: Iterable[Injection], fields: Mapping[str, Secret], strip: Iterable[str] = ()
) -> Mutation:
    """The mutation that puts ``fields`` where ``injections`` say.

    Raises:
        MissingFieldError: a template names a field that the secret lacks.
        InjectionError: a value that HTTP cannot carry where it should go.
    """
    headers: list[tuple[str, str]] = []
    query: list[tuple[str, str]] = []
    cookies: list[tuple[str, str]] = []
    for injection in injections:
        if isinstance(injection, Query):
            query.append((quote_plus(injection.name), quote_plus(_filled(injection, fields))))
        elif isinstance(injection, Cookie):
            cookies.append((injection.name, _cookie_value(injection, fields)))
        else:
            headers.append((_header_name(injection), _header_value(injection, fields)))
    taken = {name for name, _ in headers} | ({"cookie"} if cookies else set())
    # CGI and WSGI servers read X_Api_Key as X-Api-Key: the client's must not stand beside ours.
    unwanted = [*(name.lower() for name in strip), *(name.replace("-", "_") for name in taken)]
    remove = tuple(name for name in dict.fromkeys(unwanted) if name not in taken)
    return Mutation(tuple(headers), tuple(query), tuple(cookies), remove)


def _filled(injection: Header | Query | Cookie, fields: Mapping[str, Secret]) -> str:
    kind = type(injection).__name__.lower()
    return _clean(injection.value.fill(fields), f"{kind} {injection.name}")


def _clean(value: str, place: str) -> str:
    bad = _CONTROL.search(value)
    if bad:
        end = " (at its very end: a stray newline?)" if bad.end() == len(value) else ""
        raise InjectionError(
            f"the value for {place} holds the control character "
            f"0x{ord(bad.group()):02x}{end}, which a request cannot carry"
        )
    return value


def _header_value(injection: Header | Bearer | Basic, fields: Mapping[str, Secret]) -> str:
    if isinstance(injection, Header):
        return _filled(injection, fields)
    if isinstance(injection, Bearer):
        return "Bearer " + _clean(injection.token.fill(fields), "bearer token")
    username = _clean(injection.username.fill(fields), "basic username")
    password = _clean(injection.password.fill(fields), "basic password")
    if ":" in username:
        raise InjectionError("the value for basic username holds a colon, which ends the name")
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _cookie_value(injection: Cookie, fields: Mapping[str, Secret]) -> str:
    value = _filled(injection, fields)
    if re.search(r'[\s",;\\]', value) or not value.isascii():
        raise InjectionError(
            f"the value for cookie {injection.name} holds a character that RFC 6265 keeps out"
        )
    return value


def merge_cookies(sent: str, ours: Iterable[tuple[str, str]]) -> str:
    """The client's ``cookie`` header with ours put in and its copies of them dropped."""
    ours = tuple(ours)
    names = {name for name, _ in ours}
    kept = [
        pair.strip()
        for pair in sent.split(";")
        if pair.strip() and pair.split("=", 1)[0].strip() not in names
    ]
    return "; ".join(kept + [f"{name}={value}" for name, value in ours])
