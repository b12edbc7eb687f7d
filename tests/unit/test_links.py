"""Each link of the documents leads to a file that is there, and to a heading in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("kong_plugin/*.md")])
SOURCES = [
    *(ROOT / "Makefile", ROOT / "docker-compose.yml"),
    *(
        file
        for folder in (
            "vaultauthz",
            "tests",
            "benchmarks",
            "deploy",
            "envoy",
            "kong_plugin",
            "docs",
        )
        for kind in ("*.py", "*.y*ml", "*.md", "Dockerfile")
        for file in ROOT.glob(f"{folder}/**/{kind}")
    ),
]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_each_link_leads_somewhere(page: Path) -> None:
    """Of those into this repository; nothing else is asked for."""
    for target in _links(page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        assert file.is_relative_to(ROOT), f"{target}: not in the repository"
        if anchor:
            assert anchor in _anchors(file), f"{target}: no such heading"


def test_each_page_that_is_named_is_there() -> None:
    """In errors, comments and docstrings, too, where no link is."""
    for source in SOURCES:
        for name in re.findall(r"\bdocs/[\w./-]+\.(?:md|ya?ml)\b", source.read_text()):
            assert (ROOT / name).exists(), f"{source.relative_to(ROOT)}: {name}"


def test_the_readme_lists_each_page() -> None:
    """Who looks for something begins there."""
    readme = (ROOT / "README.md").read_text()
    listed = set(_links(readme[readme.index("\n## More\n") :]))
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= listed


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Who could flood the gRPC address", "who-could-flood-the-grpc-address"),
        ("Who used what? `audit report`", "who-used-what-audit-report"),
        ("approle, response-wrapped", "approle-response-wrapped"),
        ("token_file", "token_file"),
        ("[A link](a.md) in it", "a-link-in-it"),
    ],
)
def test_an_anchor_is_what_github_makes_of_a_heading(heading: str, anchor: str) -> None:
    """Lower case, punctuation dropped, hyphens for blanks; the second of a name gets a number."""
    text = f"# {heading}\n```sh\n# no heading\n```\n## {heading}\n"
    assert list(_named(text)) == [anchor, f"{anchor}-1"]


def _prose(text: str) -> str:
    """Without blocks of code, in which ``#`` begins a comment."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)


def _links(text: str) -> Iterator[str]:
    code_dropped = re.sub(r"`[^`\n]*`", "", _prose(text))
    for target in re.findall(r"\]\(([^)\s]+)\)", code_dropped):
        if not re.match(r"[a-z]+:", target):
            yield target


@cache
def _anchors(page: Path) -> frozenset[str]:
    return frozenset(_named(page.read_text()))


def _named(text: str) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", _prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
        seen[anchor] += 1
