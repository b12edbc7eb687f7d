"""``vaultauthz explain``: what would become of one request, and which rule says so.

The command's arguments become a request, its explanation lines or JSON. A token's claims are given as
JSON and read as they arrive with a request: what Envoy makes of a token goes through
google.protobuf.Struct. All its numbers are doubles, its texts are Unicode, and it has no place for
what is neither.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from vaultauthz.config.values import Config
from vaultauthz.core.readings import among
from vaultauthz.core.request import Request
from vaultauthz.explain.explanation import Explanation, JudgedKey, JudgedRule, explain
from vaultauthz.terminal import Output

_WHY: Final = {
    "no_upstream": "no upstream claims it",
    "caller_denied": "the caller may not use the credential",
    "bad_request": "servers differ in how they read its path or method, and that decides; or it "
    "has no path, and the credential goes into the query",
}
_CLAIMS_FORM: Final = 'a JSON object, as in \'{"sub": "ann", "scope": "pay"}\''


@dataclass(frozen=True, slots=True)
class DescribedRequest:
    """The command's arguments as they were given; "" and () for those that were not."""

    url: str
    method: str = "GET"
    upstream: str = ""
    stage: str = ""
    principal: str = ""
    claims: tuple[str, ...] = ()  # each a token's claims as a JSON object
    consumer: str = ""
    groups: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()  # each as NAME: VALUE

    def request(self) -> Request:
        """As a gateway would describe it.

        Raises:
            UsageError: the URL, a header or the claims cannot be read.
        """
        host, path = _split(self.url)
        if self.method.upper() == "CONNECT" and path == "/":
            path = ""  # as gateways tell it: a tunnel is to a host
        return Request(
            "explain",
            self.method,
            host,
            path,
            self.upstream,
            self.stage,
            self.principal,
            self.consumer,
            self.groups,
            tuple(read_claims(text) for text in self.claims),
            headers=partial(among, [_header(text) for text in self.headers]),
        )


def _split(url: str) -> tuple[str, str]:
    if url.startswith("/") or url == "*":
        return "", url
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
    except ValueError as exc:
        raise UsageError(f"{url!r} is no URL: {exc}") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.netloc, target


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError("--header wants NAME: VALUE, as in 'X-HTTP-Method-Override: DELETE'")
    return name.strip().lower(), value.strip()


def run(config: Config, described: DescribedRequest, out: Output) -> int:
    """Explain one request; status 1 when it would be denied.

    Raises:
        UsageError: the arguments describe no request.
    """
    request = described.request()
    explanation = explain(config, request)
    if out.as_json:
        out.json(asdict(explanation))
    else:
        out.lines(f"{request.method} {request.host}{request.path}", "")
        out.lines(*_lines(explanation))
    return 0 if explanation.allowed else 1


def _lines(explanation: Explanation) -> Iterator[str]:
    where = (
        f"{explanation.upstream} in stage {explanation.stage}" if explanation.upstream else "none"
    )
    yield f"upstream  {where} ({explanation.found_by})"
    if explanation.secret or explanation.rules:
        yield from _caller(explanation)
    if explanation.allowed and explanation.secret:
        yield f"secret    {explanation.secret}"
        yield from _listed("sets", explanation.sets)
        yield from _listed("drops", [_dropped(name) for name in explanation.drops])
    yield ""
    if explanation.allowed:
        yield (
            "ALLOWED as soon as there is a credential"
            if explanation.upstream
            else "ALLOWED, nothing set"
        )
    else:
        why = _WHY.get(explanation.reason, explanation.reason)
        yield f"DENIED with {explanation.status} {explanation.reason}: {why}"


def _dropped(name: str) -> str:
    return f"the client's {name}" + (", also with underscores for hyphens" if "-" in name else "")


def _caller(explanation: Explanation) -> Iterator[str]:
    """Which rule decided, and what each of the others lacked."""
    lines = [f"{rule.place}: {_verdict(rule)}" for rule in explanation.rules]
    if explanation.any_caller:
        lines.append("callers: any, whoever it is")
    if explanation.nobody:
        lines.append("per: caller, and nobody is authenticated: there is no lease for nobody")
    yield from _listed("caller", lines)


def _verdict(rule: JudgedRule) -> str:
    failed = [key for key in rule.keys if not key.fits]
    if failed:
        return "does not fit: " + ", ".join(_lack(key) for key in failed)
    word = "fits and denies" if rule.place.startswith("deny") else "fits"
    return f"{word}: " + ", ".join(f"{key.name} {key.found!r} is {key.wanted}" for key in rule.keys)


def _lack(key: JudgedKey) -> str:
    has = repr(key.found) if key.found else "nothing"
    return f"{key.name} wants {key.wanted}, the request has {has}"


def _listed(name: str, lines: list[str] | tuple[str, ...]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{name if number == 0 else '':<10}{line}"


class UsageError(Exception):
    """The arguments describe no request; the message says what is wrong with them."""


def read_claims(text: str) -> Mapping[str, Any]:
    """The claims of one token.

    Raises:
        UsageError: it is no JSON object, or one that no token brings to a check.
    """
    try:
        claims = json.loads(
            text,
            parse_int=_double,
            parse_float=_double,
            parse_constant=_no_json,
            object_pairs_hook=_object,
        )
        _unicode(claims)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise UsageError(f"--claims wants {_CLAIMS_FORM}")
    return claims


def _double(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise UsageError(f"--claims: {digits[:40]} is beyond any number that a token can have")
    return number


def _no_json(word: str) -> NoReturn:
    raise UsageError(f"--claims: {word} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    claims = dict(pairs)
    if len(claims) < len(pairs):
        raise UsageError("--claims: a name stands there twice, and tokens differ in which counts")
    return claims


def _unicode(value: Any) -> None:
    """Raise UnicodeEncodeError for half a surrogate pair, which UTF-8 has no bytes for."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _unicode(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _unicode(name)
            _unicode(item)
