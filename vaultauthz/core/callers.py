"""Who may use a credential.

A list of rules: one that matches is enough, all keys within one must match,
and a ``deny`` rule wins over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
        return (
            (self.principal is None or self.principal.matches(request.principal))
            and (self.consumer is None or self.consumer.matches(request.consumer))
            and (self.group is None or self.group in request.groups)
            and (self.methods is None or request.method in self.methods)
            and (self.path_prefix is None or self.path_fits(request, widely=widely))
            and (not self.claims or self.claims_met(request))
        )

    def path_fits(self, request: Request, *, widely: bool) -> bool:
        """Whether the path is under this rule's prefix."""
        prefix, path = self.path_prefix or "", path_of(request.path)
        return under(prefix, path) or (widely and under(prefix, bare_path(path)))

    def claims_met(self, request: Request) -> bool:
        """Whether one of the verified tokens has every claim of this rule."""
        return any(all(c.met_by(claims) for c in self.claims) for claims in request.claims)


@dataclass(frozen=True, slots=True)
class Callers:
    """The rules of one upstream; ``allow`` is None for ``callers: any``."""

    allow: tuple[Rule, ...] | None
    deny: tuple[Rule, ...] = ()

    def permits(self, request: Request) -> bool:
        """Whether this caller may use the credential."""
        if self.deny and any(rule.matches(request, widely=True) for rule in self.deny):
            return False
        return self.allow is None or any(rule.matches(request) for rule in self.allow)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule, for a gateway's door to see what it must find out."""
        return (self.allow or ()) + self.deny

    @property
    def reads_claims(self) -> bool:
        """Whether a decision may need the claims of a token."""
        return any(rule.claims for rule in self.rules)

    @property
    def reads_path(self) -> bool:
        """Whether a decision may hang on the request's path."""
        return any(rule.path_prefix is not None for rule in self.rules)
