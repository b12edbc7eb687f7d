"""The command: its arguments as a request, its explanation as lines or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from vaultauthz.config.values import Config
from vaultauthz.core.aliases import among
from vaultauthz.core.request import Request
from vaultauthz.explain.claims import UsageError, read_claims
from vaultauthz.explain.explanation import Explanation, explain
from vaultauthz.explain.rules import Judged, Key
from vaultauthz.terminal import Told

__all__ = ["Asked", "UsageError", "run"]

_WHY: Final = {
    "no_upstream": "no upstream claims it",
    "caller_denied": "the caller may not use the credential",
    "bad_request": "servers differ in how they read its path or method, and that decides; or it "
    "has no path, and the credential goes into the query",
}


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
        yield from _listed("drops", [_dropped(name) for name in told.drops])
    yield ""
    if told.allowed:
        yield (
            "ALLOWED as soon as there is a credential" if told.upstream else "ALLOWED, nothing set"
        )
    else:
        yield f"DENIED with {told.status} {told.reason}: {_WHY.get(told.reason, told.reason)}"


def _dropped(name: str) -> str:
    return f"the client's {name}" + (", also with underscores for hyphens" if "-" in name else "")


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
