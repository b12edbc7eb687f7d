"""The JSON Schema says what the readers do, as far as a schema can."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests import fast_yaml
from vaultauthz.config import ConfigError
from vaultauthz.config.auth import methods
from vaultauthz.config.inject import FORMS
from vaultauthz.config.load import schema
from vaultauthz.config.reader import Table, Value

from .conftest import EVERY, VALID, Folder, edited
from .refused_auth import AUTH, STAGES
from .refused_doors import LISTENING, ROUTES
from .refused_gateway import GATEWAYS, SERVICES
from .refused_logins import DURATIONS, SHAPE, VAULT
from .refused_methods import METHODS
from .refused_upstreams import CALLERS, INJECT, SECRETS, UPSTREAMS
from .test_config_any import EXAMPLE, SHARED, VALUES, YAML_TEXT, places
from .test_config_logins import LOGINS

SCHEMA = schema()
REFUSED = [*SHAPE, *VAULT, *STAGES, *METHODS, *SECRETS, *INJECT, *CALLERS, *UPSTREAMS]
REFUSED += [*ROUTES, *LISTENING, *SERVICES, *GATEWAYS]

# What only the readers can know: files, bounds of durations, names that have to be there,
# characters that a place does not take, and two keys that stand far from each other.
BEYOND_A_SCHEMA = (
    "cannot be read", "is not a regular file", "is empty; write the secret", "is a folder",
    "is no program", "out of bounds", "clear text", "no address", "no valid", "goes on after",
    "user name or password", "names no socket", "address of", "is no namespace", "no path in Vault",
    "no mount of Vault's", "has a query", "cannot be printed", "white space at its ends",
    "begins with v1/", "after its mount", "is unknown here", "a stray {", "encloses no field",
    "pseudo header", "cannot be set", "HTTP keeps out", "other cookies", "keep one of them",
    "is set by inject", "is no plain path", "is no stage", "is for per:", "is for inject:", "goes with method: write",
    "no upstream", "say which", "a wildcard", "more than a host",
    "has a port", "not ASCII", "is no host", "same requests", "other machines", "the system takes",
    "has no TLS", "in ASCII", "is no region", "no service account", "is for type", "e-mail",
    "has no place in a path", "cert has no certificate", "there twice", "merge keys",
    "with a blank", "line break or control", "no plain whole number", "may be a word", "the file that we write",
    "is for https://", "wants https://", "would send another host", "is no HOST:PORT",
    "could rotate and revoke",
)  # fmt: skip

jsonschema: Any = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator() -> Any:
    """The schema, ready to compare with."""
    return jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    """It is valid in its own draft, and JSON."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def mappings(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema of a mapping in ``node``."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for inner in node.values():
            yield from mappings(inner)
    elif isinstance(node, (list, tuple)):
        for inner in node:
            yield from mappings(inner)


def test_no_mapping_is_open() -> None:
    """A mapping has its known keys only, or names of the user's with values of one shape."""
    found = list(mappings(SCHEMA))
    assert len(found) > 25
    for mapping in found:
        wanted = False if "properties" in mapping else None
        assert mapping["additionalProperties"] is wanted or (
            wanted is None and isinstance(mapping["additionalProperties"], dict)
        )


def test_every_key_is_described() -> None:
    """An editor has a sentence for each key, which fits on its line."""
    for mapping in mappings(SCHEMA):
        for key, inner in mapping.get("properties", {}).items():
            assert 3 < len(inner.get("description", "")) < 120, key


# Everything that can be there, so that every reader of a mapping is seen at work.
FULL = """\
vault: {address: https://a, tls: {}}
stages:
  prod: {auth: {method: METHOD}}
upstreams:
  a:
    secret: {kv: a/b}
    callers: [{claims: {a: b}}]
    deny: [{group: a}]
    inject: [FORMS]
    to: {}
routes: [{host: a}]
listen: {grpc_tls: {}, admin_tls: {}}
audit: {}
gateway: {tls: {}, jwt: {}, vaultauthz: {}}
"""


def seen_by_readers(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The known keys of each mapping that a reader asks for, by where it stands."""
    found: dict[str, set[str]] = {}
    read = Value.table

    def spy(value: Value, known: Any, *rest: Any, **named: Any) -> Table:
        place = re.sub(r"\[[0-9]+\]", "[]", value.key)
        found[place.replace("prod.auth", method)] = set(known)
        return read(value, known, *rest, **named)

    monkeypatch.setattr(Value, "table", spy)
    forms = ", ".join(f"{{{form}: {{token: a}}}}" for form in FORMS)
    for method in methods.METHODS:
        with pytest.raises(ConfigError):
            folder.parse(FULL.replace("METHOD", method).replace("FORMS", forms))
    return found


def at(node: Mapping[str, Any], place: str) -> Iterator[set[str]]:
    """The keys that the schema has for the mapping at ``place``."""
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from at(branch, place)
    first, _, rest = place.partition(".")
    name, index, _ = first.partition("[")
    if not place:
        if "properties" in node:
            yield set(node["properties"])
        return
    inner = node.get("properties", {}).get(name) or node.get("additionalProperties")
    if isinstance(inner, dict):
        yield from at(items(inner) if index else inner, rest)


def items(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a list at ``node`` is made of."""
    lists = [branch for branch in (node, *node.get("anyOf", ())) if "items" in branch]
    inner: Mapping[str, Any] = lists[0]["items"]
    return inner


def test_readers_and_schema_know_the_same_keys(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mapping that is read has the same keys in the schema, and there is no other there."""
    seen = seen_by_readers(folder, monkeypatch)
    methods = SCHEMA["properties"]["stages"]["additionalProperties"]["properties"]["auth"]["oneOf"]
    described = {branch["properties"]["method"]["const"]: branch for branch in methods}
    for place, known in seen.items():
        name = place.removeprefix("stages.")
        branch = described.get(name) if name != place else None
        found = [set(branch["properties"])] if branch else list(at(SCHEMA, place))
        assert found == [known], place
    assert len(seen) == sum("properties" in mapping for mapping in mappings(SCHEMA))


@pytest.mark.parametrize("text", [VALID, EXAMPLE, EVERY], ids=["valid", "example", "every"])
def test_good_ones(validator: Any, text: str) -> None:
    """The contract's example is valid, and one of every login."""
    validator.validate(fast_yaml.load(text))


@pytest.mark.parametrize("keys", [keys for keys, _ in LOGINS])
def test_good_logins(validator: Any, keys: str) -> None:
    """Every login that loads is valid."""
    validator.validate(fast_yaml.load(edited(AUTH, f"{{method: {keys}}}")))


@pytest.mark.parametrize(("old", "new", "wanted"), REFUSED)
def test_refused(validator: Any, old: str, new: str, wanted: tuple[str, ...]) -> None:
    """What the readers refuse is not valid, unless it is about what a schema cannot say."""
    try:
        tree = fast_yaml.load(edited(old, new))
    except yaml.YAMLError:
        return
    beyond = [line for line in wanted if any(word in line for word in BEYOND_A_SCHEMA)]
    assert beyond or not validator.is_valid(tree)


@pytest.mark.parametrize("text", [text for text, why in DURATIONS if "out of bounds" not in why])
def test_refused_durations(validator: Any, text: str) -> None:
    """A duration without its unit, or in another form, is not valid."""
    added = edited("https://vault.test:8200", f"https://vault.test:8200\n  timeout: {text}")
    assert not validator.is_valid(fast_yaml.load(added))


class _Written(yaml.SafeLoader):
    """Takes dates for text, as the readers and YAML 1.2 do."""


_Written.yaml_implicit_resolvers = {
    sign: [(tag, form) for tag, form in known if not tag.endswith("timestamp")]
    for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@SHARED
@given(st.data())
def test_what_loads_is_valid(validator: Any, folder: Folder, data: st.DataObject) -> None:
    """Whatever value stands anywhere: the schema does not refuse what the readers take."""
    for name in ("c.pem", "k.pem"):
        folder.write(name, "anything")
    start = data.draw(st.sampled_from([VALID, EXAMPLE.replace("/run/secrets/", ""), EVERY]))
    tree = fast_yaml.load(start)
    parent, key = data.draw(st.sampled_from(list(places(tree))))
    parent[key] = data.draw(VALUES | YAML_TEXT | st.sampled_from(["1h", "9", 7, 0.5, True]))
    text = fast_yaml.dump(tree)
    try:
        folder.parse(text)
    except ConfigError:
        return
    validator.validate(yaml.load(text, _Written))
