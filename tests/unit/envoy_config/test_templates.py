from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fast_yaml
from vaultauthz.envoy_config.templates import block, comment, fill, flow, scalar, without_repeats

WORDS = st.text(max_size=12) | st.sampled_from(("on", "No", "123", "1e3", "~", "- a", "a: b", "'"))
VALUES = st.recursive(
    WORDS | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_values_read_back(value: Any) -> None:
    """Whatever is written reads back the same, on one line and on many."""
    assert fast_yaml.load(flow({"a": value})) == {"a": value}
    assert fast_yaml.load(block({"a": [value]}, indent=100)) == {"a": [value]}
    assert "\n" not in flow(value)


@pytest.mark.parametrize("word", ["on", "Off", "y", "null", "123", "1.5", "", "a b", ":x", "*"])
def test_words_that_need_quotes(word: str) -> None:
    """What a reader of YAML may take for something else than text is quoted."""
    assert scalar(word) == f'"{word}"'


def test_places() -> None:
    """A place on a line of its own takes lines; an empty one takes the line away."""
    template = """
    a:
      $lines
      $nothing
      - $item
    b: $word
    """
    filled = fill(template, lines="x: 1\ny: 2", nothing="", item="p: 1\nq: $word", word="w")
    assert filled == "a:\n  x: 1\n  y: 2\n  - p: 1\n    q: $word\nb: w"


def test_comments() -> None:
    """A comment is told once; what has to be replaced, each time."""
    text = "# why\na: 1\n# why\nb: 2   \n# REPLACE c\nc: 3\n# REPLACE c\nd: 4"
    told = "# why\na: 1\nb: 2\n# REPLACE c\nc: 3\n# REPLACE c\nd: 4\n"
    assert without_repeats(text) == told
    assert comment("word " * 40).count("\n# ") == 2


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_text_goes_on_after_a_comment(end: str) -> None:
    """Whatever ends a line, for Python or for a reader of YAML."""
    assert comment(f"a{end}b: 1") == f"# a\\u{ord(end):04x}b: 1"
