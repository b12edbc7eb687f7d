"""What the documents name is what there is: rooms, keys of the configuration, metrics."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs import tables
from vaultauthz.config.load import schema
from vaultauthz.core import events
from vaultauthz.observe.metric_table import GROUPS, LISTED
from vaultauthz.observe.record import REQUEST_ALLOWED, REQUEST_DENIED

ROOT = Path(__file__).parents[2]
DOCS = {page.name: page.read_text() for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}

# Secrets of an Envoy's own, in an example.
_OF_ENVOY = {"vaultauthz_client", "vaultauthz_ca"}


def test_the_rooms_are_in_the_order_of_imports() -> None:
    """docs/architecture.md has each of import-linter's layers, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = {
        name.strip().removeprefix("vaultauthz."): depth
        for depth, layer in enumerate(contracts["contracts"][0]["layers"])
        for name in layer.split(":")
    }
    table = DOCS["architecture.md"].split("## The rooms")[1].split("\n\n")[2]
    named = [
        [word.removesuffix("/").removesuffix(".py") for word in re.findall(r"`([^`]+)`", first)]
        for first in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    ]
    assert sorted(room for row in named for room in row) == sorted(layers)
    depths = [[layers[room] for room in row] for row in named]
    assert all(max(above) <= min(below) for above, below in itertools.pairwise(depths))


def test_every_key_is_documented() -> None:
    """As code, in docs/configuration.md or docs/signing.md."""
    text = DOCS["configuration.md"] + DOCS["signing.md"]
    blocks = re.findall(r"```.*?```", text, re.DOTALL)
    words = re.findall(r"`[^`]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    known = set(re.findall(r"\w+", "\n".join([*blocks, *words])))
    assert set(_keys(schema())) - known == set()


def test_every_metric_that_is_named_is_one() -> None:
    """As a query has it, with `_total` where it is a counter's."""
    names = {metric.shown for metric in LISTED}
    for page, text in DOCS.items():
        for name in set(re.findall(r"\bvaultauthz_\w+", text)) - _OF_ENVOY:
            assert name in names, f"{page}: {name}"


def test_the_tables_of_metrics_have_each_metric_and_label_once() -> None:
    """In docs/metrics.md, where each group has its table; labels nobody uses are not explained."""
    page = DOCS["metrics.md"]
    assert tables.named(page, "metrics") == [*GROUPS, "labels"]
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    labels = {label for metric in LISTED for label in metric.labels}
    assert sorted(rows) == sorted([*(metric.shown for metric in LISTED), *labels])


def test_every_event_is_documented() -> None:
    """In the table of docs/configuration.md; after the first of a row the subject may be left out."""
    names = {value for key, value in vars(events).items() if key.isupper()}
    table = DOCS["configuration.md"].split("| event | when |\n|---|---|\n")[1].split("\n\n")[0]
    documented: set[str] = set()
    for row in table.splitlines():
        first, *others = re.findall(r"`([^`]+)`", row.split("|")[1])
        subject = first.partition(".")[0]
        documented |= {first, *(o if "." in o else f"{subject}.{o}" for o in others)}
    assert documented == names | {REQUEST_ALLOWED, REQUEST_DENIED}


def _keys(part: Any) -> Iterator[str]:
    """The keys of each mapping that the schema describes."""
    if isinstance(part, dict):
        properties = part.get("properties", {})
        yield from properties
        for key, value in part.items():
            yield from _keys(list(value.values()) if key == "properties" else value)
    elif isinstance(part, list):
        for one in part:
            yield from _keys(one)


def test_the_tables_of_keys_are_those_of_the_sections() -> None:
    """As ``make docs`` writes them, and each of them stands in a page, some forms' beside them."""
    pages = "".join(DOCS.values())
    others = [name for name in tables.named(pages) if name not in tables.OF_FORMS]
    assert sorted(others) == sorted(tables.TABLES)
    for page, text in DOCS.items():
        assert tables.written(text) == text, f"{page}: make docs"


def test_each_key_has_its_line() -> None:
    """But the two that each auth method has, which the page says once."""
    for name, section in tables.TABLES.items():
        lines = tables.table(section)
        lacking = {key for key in section.keys if f"| `{key}` |" not in lines}
        assert lacking == ({"method", "mount"} & set(section.keys) if "auth: " in name else set())
