"""Where a credential goes on the request, and the text that goes there.

``render`` runs once for each new credential, never for each request: what a
request gets is a ready ``Mutation``. Only where the upstream wants each request
signed, its ``signer`` is asked for the rest of the headers.

The forms of ``inject`` are not here: each is a file of ``config.forms``. They say what they
set, and nothing of gateways; what a gateway can carry it says itself, of kinds of slots.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import fields as keys_of
from typing import Any, ClassVar, Final, cast

from vaultauthz.core.readings import (
    folded_cookie,
    folded_header,
    header_spellings,
    is_cookie,
    long_names,
)
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import Signer
from vaultauthz.core.template import Template

_BASIC: Final = re.compile(r"\s*basic\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class Mutation:
    """What is done to the request; holds the credential in clear.

    ``headers`` overwrite every copy the client sent, ``remove`` names headers
    to drop (never one that is also set), ``query`` is already URL-encoded,
    ``cookies`` are merged into the client's by ``merge_cookies``. ``signer`` makes
    the headers that differ from request to request, in slots of its own. ``tls`` is a
    certificate with its chain and its key, in PEM, and changes no request. ``filled`` are
    the headers that are set, in lower case: also those that the signer fills.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    cookies: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    signer: Signer | None = None
    tls: tuple[str, str] | None = None
    filled: tuple[str, ...] = ()
    long: tuple[str, ...] = ()  # slots and headers to drop whose aliases are too many to list

    def __repr__(self) -> str:
        names = [name for name, _ in self.headers]
        return f"<Mutation sets {names!r}>"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a form signs. ``host`` is the one that the upstream receives, "" for the client's."""

    host: str
    needs_body: bool  # the gateway has to send bodies along


class Injection(ABC):
    """One entry of ``inject``, of whatever form: what it sets, and from which fields.

    A form overrides what it sets; the rest is empty. Names of headers are in lower case.
    """

    __slots__ = ()

    form: ClassVar[str]  # its key in ``inject``
    is_certificate: ClassVar[bool] = False  # the gateway's own, by which no request is changed

    @property
    def headers_written(self) -> tuple[tuple[str, Template], ...]:
        """The headers whose whole text the configuration writes."""
        return ()

    @property
    def header_names(self) -> tuple[str, ...]:
        """The header slots that it fills, or keeps empty; without a cookie's."""
        return tuple(name for name, _ in self.headers_written)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The parameters of the query that it sets."""
        return ()

    @property
    def cookie_names(self) -> tuple[str, ...]:
        """The cookies that it sets."""
        return ()

    @property
    def signature(self) -> Signature | None:
        """Set where headers differ from request to request, as they sign it."""
        return None

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields of the secret that it cannot do without: those of its templates."""
        keys = (getattr(self, key.name) for key in keys_of(cast("Any", self)))
        return tuple(name for key in keys if isinstance(key, Template) for name in key.fields)

    @property
    def used_fields(self) -> tuple[str, ...]:
        """The fields whose end is the credential's, those too that the secret may lack."""
        return self.field_names

    @property
    def user_is_secret(self) -> bool:
        """Whether the user name, as servers read it from ``authorization``, is the credential.

        Or may be: in base64 of somebody else's nobody sees what it is.
        """
        return any(
            name == "authorization" and value.fields and _BASIC.match(value.parts[0][0])
            for name, value in self.headers_written
        )

    @property
    @abstractmethod
    def shown(self) -> str:
        """What it sets, for people: names of fields, and no text that may be a secret."""

    @abstractmethod
    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        """Its part of the mutation; ``remove`` and ``long`` are for ``render`` to say.

        Raises:
            MissingFieldError: the secret lacks a field.
            InjectionError: a value that cannot go where it should.
        """


def header_names(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The header slots that these injections fill, in lower case."""
    return tuple(dict.fromkeys(name for i in injections for name in _header_names(i)))


def _header_names(injection: Injection) -> tuple[str, ...]:
    return (*injection.header_names, *(("cookie",) if injection.cookie_names else ()))


def field_names(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The fields of the secret that these injections want, each once."""
    return tuple(dict.fromkeys(name for i in injections for name in i.field_names))


def used_fields(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The fields whose end is the credential's, those too that the secret may lack."""
    return tuple(name for injection in injections for name in injection.used_fields)


def needs_body(injections: Iterable[Injection]) -> bool:
    """Whether the gateway has to send the bodies of requests along with its checks."""
    return any(i.signature and i.signature.needs_body for i in injections)


def render(
    injections: Iterable[Injection], fields: Mapping[str, Secret], strip: Iterable[str] = ()
) -> Mutation:
    """The mutation that puts ``fields`` where ``injections`` say.

    Raises:
        MissingFieldError: a template names a field that the secret lacks.
        InjectionError: a value that HTTP cannot carry where it should go.
    """
    injections, strip = tuple(injections), tuple(strip)
    parts = [injection.rendered(fields) for injection in injections]
    headers = tuple(pair for part in parts for pair in part.headers)
    cookies = tuple(pair for part in parts for pair in part.cookies)
    filled = dict.fromkeys(name for name, _ in headers)
    filled |= dict.fromkeys(name for part in parts for name in part.filled)
    filled |= {"cookie": None} if cookies else {}
    slots = header_names(injections)
    return Mutation(
        headers=headers,
        query=tuple(pair for part in parts for pair in part.query),
        cookies=cookies,
        remove=tuple(name for name in unwanted(slots, strip) if name not in filled),
        signer=next((part.signer for part in parts if part.signer), None),
        tls=next((part.tls for part in parts if part.tls), None),
        filled=tuple(filled),
        long=long_names((*map(folded_header, slots), *strip)),
    )


def unwanted(slots: Iterable[str], strip: Iterable[str]) -> tuple[str, ...]:
    """The client's headers that never reach the upstream as the client sent them.

    Slots, what ``strip`` names, and their aliases: CGI and WSGI servers read X_Api_Key as
    X-Api-Key, which must not stand beside ours. (A header that is stripped under a name with
    underscores is not the one with hyphens.)
    """
    slots = tuple(slots)
    names = (*map(folded_header, slots), *strip)
    return tuple(
        dict.fromkeys((*slots, *(spelt for name in names for spelt in header_spellings(name))))
    )


def merge_cookies(sent: str, ours: Iterable[tuple[str, str]]) -> str:
    """The client's ``cookie`` header with ours put in, and without what may be read as them."""
    ours = tuple(ours)
    folds = {folded_cookie(name) for name, _ in ours}
    pairs = (pair.strip() for pair in sent.split(";"))
    kept = [pair for pair in pairs if pair and not is_cookie(pair, folds)]
    return "; ".join(kept + [f"{name}={value}" for name, value in ours])
