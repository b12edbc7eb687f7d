"""The command: its arguments as a request, its explanation as lines or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from vaultauthz.config.values import Config
from vaultauthz.core.request import Request
from vaultauthz.explain.explanation import Explanation, explain
from vaultauthz.explain.rules import Judged, Key
from vaultauthz.terminal import Told

_WHY: Final = {
    "no_upstream": "no upstream claims it",
    "caller_denied": "the caller may not use the credential",
    "bad_request": "servers differ in how they read its path, and the path decides",
}


class UsageError(Exception):
    """The arguments describe no request; the message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's arguments as they were given; "" and () for those that were not."""

    url: str
    method: str = "GET"
    upstream: str = ""
    stage: str = ""
    principal: str = ""
    claims: tuple[str, ...] = ()  # each a token's claims as a JSON object
    consumer: str = ""
    groups: tuple[str, ...] = ()

    def request(self) -> Request:
        """As a gateway would describe it.

        Raises:
            UsageError: the URL or the claims cannot be read.
        """
        host, path = _split(self.url)
        return Request(
            "explain",
            self.method.upper(),
            host,
            path,
            self.upstream,
            self.stage,
            self.principal,
            self.consumer,
            self.groups,
            tuple(_claims(text) for text in self.claims),
        )


def _split(url: str) -> tuple[str, str]:
    if url.startswith("/"):
        return "", url
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
    except ValueError as exc:
        raise UsageError(f"{url!r} is no URL: {exc}") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.netloc, target


def _claims(text: str) -> Mapping[str, Any]:
    try:
        claims = json.loads(text)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise UsageError('--claims wants a JSON object, as in \'{"sub": "ann", "scope": "pay"}\'')
    return claims


def run(config: Config, asked: Asked, told: Told) -> int:
    """Explain one request; status 1 when it would be denied.

    Raises:
        UsageError: the arguments describe no request.
    """
    request = asked.request()
    explanation = explain(config, request)
    if told.as_json:
        told.json(asdict(explanation))
    else:
        told.lines(f"{request.method} {request.host}{request.path}", "")
        told.lines(*_lines(explanation))
    return 0 if explanation.allowed else 1


def _lines(told: Explanation) -> Iterator[str]:
    where = f"{told.upstream} in stage {told.stage}" if told.upstream else "none"
    yield f"upstream  {where} ({told.found_by})"
    if told.secret or told.rules:
        yield from _caller(told)
    if told.allowed and told.secret:
        yield f"secret    {told.secret}"
        yield from _listed("sets", told.sets)
        yield from _listed("drops", [f"the client's {name}" for name in told.drops])
    yield ""
    if told.allowed:
        yield (
            "ALLOWED as soon as there is a credential" if told.upstream else "ALLOWED, nothing set"
        )
    else:
        yield f"DENIED with {told.status} {told.reason}: {_WHY.get(told.reason, told.reason)}"


def _caller(told: Explanation) -> Iterator[str]:
    """Which rule decided, and what each of the others lacked."""
    lines = [f"{rule.place}: {_verdict(rule)}" for rule in told.rules]
    if told.any_caller:
        lines.append("callers: any, whoever it is")
    if told.nobody:
        lines.append("per: caller, and nobody is authenticated: there is no lease for nobody")
    yield from _listed("caller", lines)


def _verdict(rule: Judged) -> str:
    failed = [key for key in rule.keys if not key.fits]
    if failed:
        return "does not fit: " + ", ".join(_lack(key) for key in failed)
    word = "fits and denies" if rule.place.startswith("deny") else "fits"
    return f"{word}: " + ", ".join(f"{key.name} {key.found!r} is {key.wanted}" for key in rule.keys)


def _lack(key: Key) -> str:
    has = repr(key.found) if key.found else "nothing"
    return f"{key.name} wants {key.wanted}, the request has {has}"


def _listed(name: str, lines: list[str] | tuple[str, ...]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{name if number == 0 else '':<10}{line}"
