"""Whatever the text: a configuration or a ConfigError, and never a secret in it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import fast_yaml
from vaultauthz.config import Config, ConfigError, document, parse

from .conftest import EVERY, SECRET, VALID, Folder

EXAMPLE = Path(__file__).with_name("example.yaml").read_text()
LINE = re.compile(r"c\.yaml(:[0-9]+)?: \S[^\n]*\Z")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["any", "prod", "pay", "5s", "/v1", "{stage}", "{x", "https://a", "unix:///a"]),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["name", "value", "kv"]), inner)
    ),
    max_leaves=8,
)
YAML_TEXT = st.text(alphabet="ab:-{}[]\"'\n\t #&*!|>%@?,<=0x~\\", max_size=80)


def outcome(folder: Folder, text: str) -> str:
    """Reads ``text``; its problems and warnings, which have to be well formed."""
    try:
        found: tuple[str, ...] = folder.parse(text).warnings
    except ConfigError as exc:
        found = exc.problems
        assert found
    for line in found:
        assert LINE.match(line), line
    return "\n".join(found)


@SHARED
@given(st.text() | YAML_TEXT)
def test_any_text(folder: Folder, text: str) -> None:
    """Any text at all is refused in order, or loads."""
    outcome(folder, text)


@SHARED
@given(st.binary())
def test_any_bytes_in_both_parsers(data: bytes) -> None:
    """The tree builder knows a document or a DocumentError, whichever parser runs."""
    for loader in (yaml.SafeLoader, document.LOADER):
        with contextlib.suppress(document.DocumentError):
            document.read(data.decode("latin-1"), loader)


@SHARED
@given(st.data())
def test_a_mistyped_character(folder: Folder, data: st.DataObject) -> None:
    """One character more, less or changed anywhere is refused in order, or loads."""
    text = data.draw(st.sampled_from([VALID, EXAMPLE, EVERY]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 8, len(text))))
    outcome(folder, text[:start] + data.draw(YAML_TEXT | st.text(max_size=5)) + text[end:])


@SHARED
@given(st.data())
def test_a_wrong_value(folder: Folder, data: st.DataObject) -> None:
    """Any value anywhere in a valid configuration is refused in order, or loads."""
    tree = fast_yaml.load(data.draw(st.sampled_from([VALID, EXAMPLE, EVERY])))
    parent, key = data.draw(st.sampled_from(list(places(tree))))
    parent[key] = data.draw(VALUES)
    outcome(folder, fast_yaml.dump(tree))


@SHARED
@given(st.data())
def test_a_wrong_key(folder: Folder, data: st.DataObject) -> None:
    """Any key anywhere in a valid configuration is refused in order, or loads."""
    tree = fast_yaml.load(data.draw(st.sampled_from([VALID, EXAMPLE, EVERY])))
    mappings = [(parent, key) for parent, key in places(tree) if isinstance(parent, dict)]
    parent, key = data.draw(st.sampled_from(mappings))
    parent[data.draw(SCALARS)] = parent.pop(key)
    outcome(folder, fast_yaml.dump(tree))


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of ``tree`` with each of its keys or positions."""
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from places(tree[key])


@SHARED
@given(before=YAML_TEXT, after=YAML_TEXT)
def test_secret_id_is_never_shown(folder: Folder, before: str, after: str) -> None:
    """However a secret id is mangled, no message repeats it."""
    before, after = before.replace("\n", ""), after.replace("\n", "")
    text = VALID.replace("secret_id_file: secret_id", f"secret_id: {before}{SECRET}{after}")
    assert SECRET not in outcome(folder, text)


@SHARED
@given(before=YAML_TEXT, after=YAML_TEXT)
def test_password_is_never_shown(folder: Folder, before: str, after: str) -> None:
    """A password that was written where a template belongs is not repeated."""
    before, after = before.replace("\n", ""), after.replace("\n", "")
    text = VALID.replace('"{password}"', f"{before}{SECRET}{after}")
    assert SECRET not in outcome(folder, text)


@pytest.mark.parametrize("text", [VALID, EXAMPLE, EVERY])
def test_the_starting_points_are_sound(folder: Folder, text: str) -> None:
    """The configurations that are mutated above load, so that mutations reach deep."""
    for name in ("c.pem", "k.pem"):
        folder.write(name, "anything")
    text = text.replace("/run/secrets/", f"{folder.path}/")
    assert isinstance(parse(text, "c.yaml", folder.path, {}), Config)
