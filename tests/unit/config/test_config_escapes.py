r"""A configuration as JSON libraries write it: ``\ud83d\ude00`` for a character."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.config.conftest import VALID, Folder
from tests.unit.config.test_config_file import LOADERS
from vaultauthz.config.document import DocumentError, Node, Pairs, Scalar, read

HALF = "half a character"
TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\ufffe\uffff")
)


def value(node: Node | None) -> str:
    assert isinstance(node, Pairs)
    ((_, found),) = node.pairs
    assert isinstance(found, Scalar)
    return found.text


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r'{"a": "\ud83d\ude00"}', "😀"),
        (r'{"a": "x\uD83D\uDE00\ud83d\ude01\\"}', "x😀😁\\"),
        (r'a: "\ud83d\ude00"  # \ud83d', "😀"),
        (r'a: "\\ud83d\\ude00"', r"\ud83d\ude00"),
        (r"a: '\ud83d\ude00'", r"\ud83d\ude00"),
        (r"a: \ud83d\ude00", r"\ud83d\ude00"),
        (r'{"a": "https:\/\/x"}', "https://x"),
    ],
)
def test_pairs(loader: Any, text: str, wanted: str) -> None:
    """Two escapes in double quotes are one character; elsewhere, or escaped themselves, they are none."""
    assert value(read(text, loader)) == wanted


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "text", [r'"\ud83d"', r'"\ude00\ud83d"', r'"\ud83dx\ude00"', r'"\ud83d\u0041"', r'"\\\ud83d"']
)
def test_halves(loader: Any, text: str) -> None:
    """One without the other is no character; the line is told and the way out."""
    with pytest.raises(DocumentError, match=HALF) as refused:
        read(f"{{\n'a': {text}}}", loader)
    assert refused.value.line == 2


def test_elsewhere_beside_pairs() -> None:
    """What the C parser cannot tell apart is refused, never changed."""
    with pytest.raises(DocumentError, match=HALF) as refused:
        read("a: \"\\ud83d\\ude00\"\nb: '\\ud83d\\ude00'", yaml.CSafeLoader)
    assert refused.value.line == 2


def test_later_mistakes(folder: Folder) -> None:
    """They are told as in any other file, with their line."""
    config = VALID.replace("secret/geo", '"secret/\\ud83d\\ude00"').replace(
        "callers: any", "callers: all"
    )
    (problem,) = folder.problems(config)
    assert problem.startswith("c.yaml:12: upstreams.pay.callers: ")


@pytest.mark.parametrize("loader", LOADERS)
@given(text=TEXTS)
def test_any_text_as_json(loader: Any, text: str) -> None:
    """Whatever json.dumps writes is read as it was."""
    assert value(read(json.dumps({"a": text}), loader)) == text
