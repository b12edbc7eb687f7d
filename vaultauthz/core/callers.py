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
        return self.fits_caller(request) and (
            self.path_prefix is None or self.path_fits(path_of(request.path), widely=widely)
        )

    def fits_caller(self, request: Request) -> bool:
        """Whether every key but the path fits the request."""
        return (
            (self.principal is None or self.principal.matches(request.principal))
            and (self.consumer is None or self.consumer.matches(request.consumer))
            and (self.group is None or self.group in request.groups)
            and (self.methods is None or request.method in self.methods)
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
class _Left:
    """What rules still ask once all but the path of a request is known.

    Rules about paths are left in ``deny`` and ``allow``; ``allow`` is None where any path is
    allowed that is not denied.
    """

    deny: tuple[Rule, ...]
    allow: tuple[Rule, ...] | None

    def permits(self, path: str) -> bool:
        """Whether the path, which is without its query, may be had."""
        # Plain loops: a generator for each check costs as much as the rules themselves.
        for rule in self.deny:
            if rule.path_fits(path, widely=True):
                return False
        if self.allow is None:
            return True
        for rule in self.allow:  # noqa: SIM110 - see above
            if rule.path_fits(path, widely=False):
                return True
        return False


_NOTHING = _Left((), ())
_KNOWN = 1024  # callers of one upstream that are remembered


@dataclass(frozen=True, slots=True)
class Callers:
    """The rules of one upstream; ``allow`` is None for ``callers: any``."""

    allow: tuple[Rule, ...] | None
    deny: tuple[Rule, ...] = ()
    reads_path: bool = field(init=False, repr=False, compare=False)  # whether a rule does
    _methods: frozenset[str] = field(init=False, repr=False, compare=False)  # that rules name
    # By principal and method ("" for one that no rule names), of requests that bring nothing
    # else that rules read: they come again and again, and then only rules about paths are left.
    _known: dict[tuple[str, str], _Left] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        reads = any(rule.path_prefix is not None for rule in self.rules)
        object.__setattr__(self, "reads_path", reads)
        methods = frozenset().union(*(rule.methods or () for rule in self.rules))
        object.__setattr__(self, "_methods", methods)

    def permits(self, request: Request) -> bool:
        """Whether this caller may use the credential. Safe for threads."""
        if request.claims or request.groups or request.consumer:
            left = self._left(request)
        else:
            method = request.method
            # A client may make methods up, and has no part in how much is remembered.
            known = (request.principal, method if method in self._methods else "")
            left = self._known.get(known) or self._remembered(known, request)
        return left.permits(path_of(request.path))

    def _remembered(self, known: tuple[str, str], request: Request) -> _Left:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        left = self._known[known] = self._left(request)
        return left

    def _left(self, request: Request) -> _Left:
        deny = tuple(rule for rule in self.deny if rule.fits_caller(request))
        if any(rule.path_prefix is None for rule in deny):
            return _NOTHING
        if self.allow is None:
            return _Left(deny, None)
        allow = tuple(rule for rule in self.allow if rule.fits_caller(request))
        return _Left(deny, None if any(rule.path_prefix is None for rule in allow) else allow)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule, for a gateway's door to see what it must find out."""
        return (self.allow or ()) + self.deny

    @property
    def reads_claims(self) -> bool:
        """Whether a decision may need the claims of a token."""
        return any(rule.claims for rule in self.rules)
