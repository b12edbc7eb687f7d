"""Where a credential goes on the request, and the text that goes there.

``render`` runs once for each new credential, never for each request: what a
request gets is a ready ``Mutation``. Only where the upstream wants each request
signed, its ``signer`` is asked for the rest of the headers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from vaultauthz.core.aliases import folded, listed, long_names
from vaultauthz.core.client_certificate import Tls
from vaultauthz.core.field_value import InjectionError, clean, header_value
from vaultauthz.core.parameters import folded_cookie, is_cookie
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import Hmac, Signer, SigV4
from vaultauthz.core.template import Template

__all__ = [
    "Basic",
    "Bearer",
    "Cookie",
    "Header",
    "Hmac",
    "Injection",
    "InjectionError",
    "Mutation",
    "Query",
    "SigV4",
    "Tls",
    "field_names",
    "header_names",
    "merge_cookies",
    "needs_body",
    "render",
    "unwanted",
]


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


Injection = Header | Bearer | Basic | Query | Cookie | SigV4 | Hmac | Tls


@dataclass(frozen=True, slots=True, repr=False)
class Mutation:
    """What is done to the request; holds the credential in clear.

    ``headers`` overwrite every copy the client sent, ``remove`` names headers
    to drop (never one that is also set), ``query`` is already URL-encoded,
    ``cookies`` are merged into the client's by ``merge_cookies``. ``signer`` makes
    the headers that differ from request to request, in slots of its own. ``tls`` is a
    certificate with its chain and its key, in PEM, and changes no request.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    cookies: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    signer: Signer | None = None
    tls: tuple[str, str] | None = None
    filled: tuple[str, ...] = ()  # the headers that are set, in lower case
    long: tuple[str, ...] = ()  # slots and headers to drop whose aliases are too many to list

    def __repr__(self) -> str:
        names = [name for name, _ in self.headers]
        return f"<Mutation sets {names!r}>"


def header_names(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The header slots that these injections fill, in lower case."""
    return tuple(dict.fromkeys(name for i in injections for name in _header_names(i)))


def _header_names(injection: Injection) -> tuple[str, ...]:
    if isinstance(injection, (SigV4, Hmac)):
        return injection.header_names
    return () if isinstance(injection, (Query, Tls)) else (_header_name(injection),)


def _header_name(injection: Header | Bearer | Basic | Cookie) -> str:
    if isinstance(injection, Header):
        return injection.name
    return "cookie" if isinstance(injection, Cookie) else "authorization"


def field_names(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The fields of the secret that these injections want, each once."""
    return tuple(dict.fromkeys(name for i in injections for name in _field_names(i)))


def _field_names(injection: Injection) -> tuple[str, ...]:
    if isinstance(injection, (SigV4, Hmac, Tls)):
        return injection.field_names
    if isinstance(injection, Basic):
        return injection.username.fields + injection.password.fields
    return (injection.token if isinstance(injection, Bearer) else injection.value).fields


def needs_body(injections: Iterable[Injection]) -> bool:
    """Whether the gateway has to send the bodies of requests along with its checks."""
    return any(isinstance(i, (SigV4, Hmac)) and i.needs_body for i in injections)


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
    signer: Signer | None = None
    tls: tuple[str, str] | None = None
    each: tuple[str, ...] = ()  # the slots that are filled for each request anew
    injections = tuple(injections)
    for injection in injections:
        if isinstance(injection, (SigV4, Hmac)):
            headers += injection.constant(fields)
            signer, each = injection.signer(fields), injection.per_request
        elif isinstance(injection, Tls):
            tls = injection.filled(fields)
        elif isinstance(injection, Query):
            query.append((quote_plus(injection.name), quote_plus(_filled(injection, fields))))
        elif isinstance(injection, Cookie):
            cookies.append((injection.name, _cookie_value(injection, fields)))
        else:
            headers.append((_header_name(injection), _header_value(injection, fields)))
    filled = {name for name, _ in headers} | ({"cookie"} if cookies else set()) | set(each)
    slots, strip = header_names(injections), tuple(strip)
    remove = tuple(name for name in unwanted(slots, strip) if name not in filled)
    long = long_names((*map(folded, slots), *strip))
    return Mutation(
        tuple(headers), tuple(query), tuple(cookies), remove, signer, tls, tuple(filled), long
    )


def unwanted(slots: Iterable[str], strip: Iterable[str]) -> tuple[str, ...]:
    """The client's headers that never reach the upstream as the client sent them.

    Slots, what ``strip`` names, and their aliases: CGI and WSGI servers read X_Api_Key as
    X-Api-Key, which must not stand beside ours. (A header that is stripped under a name with
    underscores is not the one with hyphens.)
    """
    slots = tuple(slots)
    names = (*map(folded, slots), *strip)
    return tuple(dict.fromkeys((*slots, *(spelt for name in names for spelt in listed(name)))))


def _filled(injection: Query | Cookie, fields: Mapping[str, Secret]) -> str:
    kind = type(injection).__name__.lower()
    value = injection.value
    return clean(value.fill(fields), value.at(f"{kind} {injection.name}"))


def _header_value(injection: Header | Bearer | Basic, fields: Mapping[str, Secret]) -> str:
    if isinstance(injection, Header):
        value = injection.value
        return header_value(value.fill(fields), value.at(f"header {injection.name}"))
    if isinstance(injection, Bearer):
        token = injection.token
        return "Bearer " + header_value(token.fill(fields), token.at("bearer token"))
    # In base64 a blank is as good as any other character.
    name, word = injection.username, injection.password
    username = clean(name.fill(fields), name.at("basic username"))
    password = clean(word.fill(fields), word.at("basic password"))
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
    """The client's ``cookie`` header with ours put in, and without what may be read as them."""
    ours = tuple(ours)
    folds = {folded_cookie(name) for name, _ in ours}
    pairs = (pair.strip() for pair in sent.split(";"))
    kept = [pair for pair in pairs if pair and not is_cookie(pair, folds)]
    return "; ".join(kept + [f"{name}={value}" for name, value in ours])
