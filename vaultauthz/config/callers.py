"""``callers`` and ``deny`` of an upstream: who may use its credential."""

from __future__ import annotations

import re
from typing import Final

from vaultauthz.config import kinds
from vaultauthz.config.document import Items, Pairs, Scalar
from vaultauthz.config.keys import Condition, Key, Reader, Section
from vaultauthz.config.kinds import TEXT, many
from vaultauthz.config.reader import Value
from vaultauthz.core.callers import INEXACT, Claim, Pattern, Rule
from vaultauthz.core.routing import ambiguous

_ANY: Final = "any"
HINT: Final = "say who may use this credential: callers: any, or a list of rules"
# YAML 1.1 also reads 010, 0x1f, 1_000 and 12:30 as numbers, and not as the ones they look like.
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,30})\Z")


def _pattern(value: Value) -> Pattern:
    return Pattern.parse(value.text())


def _read_claims(value: Value) -> tuple[Claim, ...]:
    claims = value.each_entry(lambda name, item: Claim(tuple(name.split(".")), _wanted(item)))
    if not value.entries():
        raise value.wrong("is empty; add NAME: VALUE, or remove it")
    return tuple(claims.values())


def _wanted(value: Value) -> str | int | bool:
    node = value.node
    if isinstance(node, Scalar) and node.kind == "a boolean":
        if node.text.lower() in ("true", "false"):
            return node.text.lower() == "true"
        raise value.wrong("may be a word or a boolean; write true or false, or put it in quotes")
    if isinstance(node, Scalar) and node.kind == "a number":
        if _WHOLE.match(node.text):
            return _noted_if_inexact(value, int(node.text))
        raise value.wrong("is no plain whole number; put it in quotes to mean the text")
    if isinstance(node, Pairs):
        text = "wants a value, found a mapping; write nested names with dots, as in realm.roles"
        raise value.wrong(text)
    return value.text()


def _noted_if_inexact(value: Value, number: int) -> int:
    if abs(number) >= INEXACT:
        value.warn(
            f"is beyond what a token's numbers can tell apart ({1 - INEXACT} to {INEXACT - 1}: they "
            "reach us as doubles): deny takes its neighbours for it, callers take nobody; have the "
            "issuer send text, and put it in quotes here"
        )
    return number


def _methods(value: Value) -> frozenset[str]:
    methods = value.each(lambda item: kinds.token(item).upper())
    if not value.items():
        raise value.wrong("is an empty list, so that nothing matches; name a method or remove it")
    return frozenset(methods)


def _path_prefix(value: Value) -> str:
    """A path to which requests are compared; ``/v1`` is ``/v1`` and what is below it."""
    text = value.text()
    if not text.startswith("/"):
        raise value.wrong("does not begin with /; add it")
    if "?" in text or "#" in text or ambiguous(text):
        raise value.wrong("is no plain path; leave out ?, #, \\ and the segments . and ..")
    return text


PATH_PREFIX: Final = Reader(_path_prefix, {**TEXT.schema, "pattern": "^/"})
_CLAIMS: Final = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}
RULE: Final = Section(
    Rule,
    "All keys have to match.",
    Key(
        "principal",
        TEXT.by(_pattern),
        "The client certificate's URI or DNS name; * is any text.",
        "Slashes included. In `deny` letter case does not matter: `Bob.Corp` is `bob.corp`.",
    ),
    Key(
        "claims",
        Reader(_read_claims, _CLAIMS),
        "Claims of one verified JWT; nested names with dots.",
        "As in `{scope: pay}`. A list claim, or a `scope` with spaces, must hold the value. Text, "
        'numbers and booleans are told apart: `1` is not `"1"` and not `true`.',
    ),
    Key("consumer", TEXT.by(_pattern), "Kong's authenticated consumer; * is any text."),
    Key("group", TEXT, "A group of Kong's consumer."),
    Key("methods", many(TEXT.about("An HTTP method."), _methods, least=1), "HTTP methods."),
    Key(
        "path_prefix",
        PATH_PREFIX,
        "The path or what is below it.",
        "`/v1` is not a prefix of `/v10`.",
    ),
    conditions=(Condition({"minProperties": 1}),),
)


def _read_rule(value: Value) -> Rule:
    if not value.entries():
        raise value.wrong(f"is empty and would match everybody; add one of {', '.join(RULE.names)}")
    return RULE.read(value)


def _read_rules(value: Value) -> tuple[Rule, ...]:
    return value.each(_read_rule)


def _read_callers(value: Value) -> tuple[Rule, ...] | None:
    """The rules, None for ``any``."""
    if isinstance(value.node, Scalar) and value.node.text == _ANY:
        return None
    if not isinstance(value.node, Items):
        raise value.wrong(f"wants any or a list of rules, found {_found(value)}; {HINT}")
    rules = _read_rules(value)
    if not value.items():
        raise value.wrong(f"is an empty list, so that nobody may; {HINT}")
    return rules


def _found(value: Value) -> str:
    return "other text" if value.node.kind == "text" else value.node.kind


RULES: Final = many(RULE.schema(), _read_rules)
_LISTED: Final = many(RULE.schema(), _read_rules, least=1)
CALLERS: Final = Reader(
    _read_callers,
    {"anyOf": [{"const": _ANY}, _LISTED.about("Alternatives; one of them has to match.")]},
    stand_in=None,
)
