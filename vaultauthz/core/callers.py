"""Who may use a credential.

A list of rules: one that matches is enough, all keys within one must match,
and a ``deny`` rule wins over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vaultauthz.core.request import Request
from vaultauthz.core.routing import bare_path, path_of, under


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text in which ``*`` stands for any run of characters, ``/`` included."""

    text: str
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """``spiffe://corp/checkout/*`` and the like; every other character is itself."""
        body = ".*".join(re.escape(piece) for piece in text.split("*"))
        return cls(text, re.compile(body, re.DOTALL))

    def matches(self, value: str) -> bool:
        """Whether the whole of ``value`` fits; an empty value never does."""
        return bool(value) and self.regex.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that a verified token must carry.

    ``path`` is the claim's name, split at dots for nested ones. A list claim
    matches when it holds the wanted value; ``scope`` and ``scp`` are lists
    written with spaces (RFC 8693).
    """

    path: tuple[str, ...]
    wanted: str | int | bool

    def met_by(self, claims: Mapping[str, Any]) -> bool:
        """Whether these claims of one token hold it."""
        value = self.found_in(claims)
        if isinstance(value, (list, tuple)):
            return any(self._same(item) for item in value)
        if self.path[-1] in ("scope", "scp") and isinstance(value, str):
            return any(self._same(item) for item in value.split())
        return self._same(value)

    def found_in(self, claims: Mapping[str, Any]) -> Any:
        """The claim's value among these; None when it is not there."""
        value: Any = claims.get(".".join(self.path))  # "https://corp/role" has dots of its own
        if value is not None:
            return value
        value = claims
        for name in self.path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return value

    def _same(self, value: Any) -> bool:
        # A protobuf Struct has only floating-point numbers, and 1 == True in Python.
        if isinstance(value, bool) or isinstance(self.wanted, bool):
            return value is self.wanted
        return bool(value == self.wanted)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``callers`` or ``deny``; ``None`` and ``()`` ask for nothing."""

    principal: Pattern | None = None
    claims: tuple[Claim, ...] = ()
    consumer: Pattern | None = None
    group: str | None = None
    methods: frozenset[str] | None = None
    path_prefix: str | None = None

    def matches(self, request: Request, *, widely: bool = False) -> bool:
        """Whether every key that this rule has fits the request.

        ``widely``, for a rule that denies: another spelling of a path under its
        prefix (``//admin``, ``/admin;x``), which the upstream may take for it, fits too.
        """
        return self.fits(request, path_of(request.path), widely=widely)

    def fits(self, request: Request, path: str, *, widely: bool) -> bool:
        """As ``matches``, for one who knows the request's ``path`` without its query."""
        return (
            (self.principal is None or self.principal.matches(request.principal))
            and (self.consumer is None or self.consumer.matches(request.consumer))
            and (self.group is None or self.group in request.groups)
            and (self.methods is None or request.method in self.methods)
            and (self.path_prefix is None or self.path_fits(path, widely=widely))
            and (not self.claims or self.claims_met(request))
        )

    def path_fits(self, path: str, *, widely: bool) -> bool:
        """Whether the path, which is without its query, is under this rule's prefix."""
        prefix = self.path_prefix or ""
        if path.startswith(prefix) and under(prefix, path):
            return True
        return widely and (bare := bare_path(path)) != path and under(prefix, bare)

    def claims_met(self, request: Request) -> bool:
        """Whether one of the verified tokens has every claim of this rule."""
        return any(all(c.met_by(claims) for c in self.claims) for claims in request.claims)


@dataclass(frozen=True, slots=True)
class Callers:
    """The rules of one upstream; ``allow`` is None for ``callers: any``."""

    allow: tuple[Rule, ...] | None
    deny: tuple[Rule, ...] = ()
    reads_path: bool = field(init=False, repr=False, compare=False)  # whether a rule does

    def __post_init__(self) -> None:
        reads = any(rule.path_prefix is not None for rule in self.rules)
        object.__setattr__(self, "reads_path", reads)

    def permits(self, request: Request) -> bool:
        """Whether this caller may use the credential."""
        path = path_of(request.path)
        # Plain loops: a generator for each check costs as much as the rules themselves.
        for rule in self.deny:
            if rule.fits(request, path, widely=True):
                return False
        if self.allow is None:
            return True
        for rule in self.allow:  # noqa: SIM110 - see above
            if rule.fits(request, path, widely=False):
                return True
        return False

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule, for a gateway's door to see what it must find out."""
        return (self.allow or ()) + self.deny

    @property
    def reads_claims(self) -> bool:
        """Whether a decision may need the claims of a token."""
        return any(rule.claims for rule in self.rules)
