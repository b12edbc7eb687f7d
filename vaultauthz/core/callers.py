"""Who may use a credential.

A list of rules: one that matches is enough, all keys within one must match,
and a ``deny`` rule wins over all of them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from vaultauthz.core.request import Request
from vaultauthz.core.routing import bare_path, path_of, under

# Numbers of a token reach us as doubles, and from here on several whole ones are the same double
# (RFC 8259, 6): a rule about one of them would be about its neighbours as well, or about none.
INEXACT: Final = 2**53
# What separates the words of a scope: ASCII's spaces. A rule that denies takes all that no word
# may hold (RFC 6749, 3.3) for a separator, so that it errs on the safe side.
SPACE: Final = r"[\t-\r\x1c-\x20]"
NO_WORD: Final = "[^!-~]"
_SPACE: Final = re.compile(SPACE)
_NO_WORD: Final = re.compile(NO_WORD)
# Of ASCII alone, which is all that the names of hosts and URIs have.
_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text in which ``*`` stands for any run of characters, ``/`` included."""

    text: str
    pieces: tuple[str, ...]  # between the stars; one piece where there is none

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """``spiffe://corp/checkout/*`` and the like; every other character is itself."""
        return cls(text, tuple(text.split("*")))

    def matches(self, value: str) -> bool:
        """Whether the whole of ``value`` fits; an empty value never does.

        Each piece is looked for once, after the one before: a regular expression would try
        every way to share a long value out among the stars.
        """
        first, *between = self.pieces
        if not between:
            return value == first != ""
        last = between.pop()
        at, end = len(first), len(value) - len(last)
        if not value or at > end or not (value.startswith(first) and value.endswith(last)):
            return False
        for piece in between:
            found = value.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    def matches_widely(self, value: str) -> bool:
        """``matches``, whatever the case of ASCII letters: for a certificate's name.

        No case makes another host of one (RFC 4343; RFC 3986, 6.2.2.1).
        """
        return self.matches(value) or _in_lower(self).matches(value.translate(_LOWER))


@lru_cache(maxsize=1024)  # of rules, whose number no client has a part in
def _in_lower(pattern: Pattern) -> Pattern:
    return Pattern.parse(pattern.text.translate(_LOWER))


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that a verified token must carry.

    ``path`` is the claim's name, split at dots, each of which leads into an object or is one
    of a name: URLs have them, clients, and Kubernetes (``kubernetes.io``). Where a token has
    several values by that, all of them have to fit; ``widely`` one is enough. A list claim
    matches when it holds the wanted value; ``scope`` and ``scp`` are lists written with
    spaces (RFC 8693).

    A number that doubles do not tell from its neighbours is met by none of them, and
    ``widely`` by all; and ``widely`` a list's text may have several words of a scope.
    """

    path: tuple[str, ...]
    wanted: str | int | bool

    def met_by(self, claims: Mapping[str, Any], *, widely: bool = False) -> bool:
        """Whether these claims of one token hold it; ``widely``, for a rule that denies."""
        found = self._found(claims)
        if widely:
            return any(self._met(value, widely=True) for value in found)
        return bool(found) and all(self._met(value, widely=False) for value in found)

    def shown_in(self, claims: Mapping[str, Any], *, widely: bool = False) -> Any:
        """The value that ``met_by`` goes by, for people; None when there is none."""
        found = self._found(claims)
        decides = (value for value in found if self._met(value, widely=widely) is widely)
        return next(decides, found[0] if found else None)

    def _found(self, claims: Mapping[str, Any]) -> list[Any]:
        """Every value that may be meant; null is none."""
        if len(self.path) == 1:  # as most have it: it costs them as little as it can
            value = claims.get(self.path[0])
            return [] if value is None else [value]
        return [value for value in _all_found(self.path, claims) if value is not None]

    def _met(self, value: Any, *, widely: bool) -> bool:
        if isinstance(value, (list, tuple)):
            if any(self._same(item, widely=widely) for item in value):
                return True
            return widely and any(self._in_scope(item, widely=True) for item in value)
        if self.is_scope and isinstance(value, str):
            return self._in_scope(value, widely=widely)
        return self._same(value, widely=widely)

    def _in_scope(self, value: Any, *, widely: bool) -> bool:
        if not (self.is_scope and isinstance(value, str)):
            return False
        return self._is_word_of(value, _NO_WORD if widely else _SPACE)

    @property
    def double(self) -> float | None:
        """The number that is wanted as a token has it, where its neighbours are the same one."""
        inexact = isinstance(self.wanted, int) and abs(self.wanted) >= INEXACT
        return float(self.wanted) if inexact else None

    @property
    def is_scope(self) -> bool:
        """Whether text in it is a list of words."""
        return self.path[-1] in ("scope", "scp")

    @property
    def word(self) -> str | None:
        """What has to be among the words of a scope; None where no word can be it."""
        wanted = self.wanted
        return wanted if isinstance(wanted, str) and wanted.split() == [wanted] else None

    def _is_word_of(self, scope: str, separator: re.Pattern[str]) -> bool:
        word, at = self.word, -1
        if word is None:
            return False
        while (at := scope.find(word, at + 1)) >= 0:
            end = at + len(word)
            if (at == 0 or separator.match(scope, at - 1)) and (
                end == len(scope) or separator.match(scope, end)
            ):
                return True
        return False

    def _same(self, value: Any, *, widely: bool) -> bool:
        # A protobuf Struct has only doubles, and 1 == True in Python.
        if isinstance(value, bool) or isinstance(self.wanted, bool):
            return value is self.wanted
        if self.double is not None:
            return widely and value == self.double
        return bool(value == self.wanted)


def _all_found(path: tuple[str, ...], claims: Any) -> Iterator[Any]:
    """Every value that may be meant: each dot is one of a name, or leads into an object."""
    if not isinstance(claims, Mapping):
        return
    for length in range(len(path), 0, -1):
        value = claims.get(".".join(path[:length]))
        if length == len(path):
            yield value
        elif value is not None:
            yield from _all_found(path[length:], value)


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
        prefix (``//admin``, ``/Admin;x``), which the upstream may take for it, fits too,
        and so does a principal in another letter case.
        """
        return self.fits_caller(request, widely=widely) and (
            self.path_prefix is None or self.path_fits(path_of(request.path), widely=widely)
        )

    def fits_caller(self, request: Request, *, widely: bool = False) -> bool:
        """Whether every key but the path fits the request."""
        return (
            (self.principal is None or self._is_principal(request.principal, widely=widely))
            and (self.consumer is None or self.consumer.matches(request.consumer))
            and (self.group is None or self.group in request.groups)
            and (self.methods is None or request.method in self.methods)
            and (not self.claims or self.claims_met(request, widely=widely))
        )

    def _is_principal(self, name: str, *, widely: bool) -> bool:
        pattern = self.principal
        if pattern is None:
            return True
        return pattern.matches_widely(name) if widely else pattern.matches(name)

    def path_fits(self, path: str, *, widely: bool) -> bool:
        """Whether the path, which is without its query, is under this rule's prefix."""
        prefix = self.path_prefix or ""
        if path.startswith(prefix) and under(prefix, path):
            return True
        return widely and under(prefix.lower(), bare_path(path).lower())

    def claims_met(self, request: Request, *, widely: bool = False) -> bool:
        """Whether one of the verified tokens has every claim of this rule."""
        return any(
            all(claim.met_by(token, widely=widely) for claim in self.claims)
            for token in request.claims
        )


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
    reads_method: bool = field(init=False, repr=False, compare=False)
    _methods: frozenset[str] = field(init=False, repr=False, compare=False)  # that rules name
    # By principal and method ("" for one that no rule names), of requests that bring nothing
    # else that rules read: they come again and again, and then only rules about paths are left.
    _known: dict[tuple[str, str], _Left] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        reads = any(rule.path_prefix is not None for rule in self.rules)
        object.__setattr__(self, "reads_path", reads)
        reads = any(rule.methods is not None for rule in self.rules)
        object.__setattr__(self, "reads_method", reads)
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
        deny = tuple(rule for rule in self.deny if rule.fits_caller(request, widely=True))
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
