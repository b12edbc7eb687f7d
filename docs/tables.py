"""Writes the tables of keys and metrics into these pages; ``--check`` says which differ, and writes nothing.

A table stands between ``<!-- keys: NAME -->`` and ``<!-- end -->``, and comes from the section
that reads those keys. ``<!-- metrics: GROUP -->`` and ``<!-- metrics: labels -->`` come from the table
of metrics. Exit status 1: a page differs, or names a table that there is not.
"""

# ruff: noqa: INP001, T201 - a script that prints, not a package

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.methods import METHODS
from vaultauthz.config.callers import RULE
from vaultauthz.config.gateway import GATEWAY
from vaultauthz.config.inject import FORMS
from vaultauthz.config.keys import NOTHING, Key, Section
from vaultauthz.config.listen import LISTEN
from vaultauthz.config.load import AUDIT, CONFIG
from vaultauthz.config.routes import ROUTE
from vaultauthz.config.secret_source import SECRET
from vaultauthz.config.stages import STAGE
from vaultauthz.config.upstreams import UPSTREAM
from vaultauthz.config.vault import VAULT
from vaultauthz.observe.metric_table import GROUPS, LABELS, LISTED, MetricInfo

TABLES: Final[Mapping[str, Section[Any]]] = {
    "the file": CONFIG,
    "vault": VAULT,
    "stages": STAGE,
    **{f"auth: {name}": method.keys for name, method in METHODS.items()},
    "upstreams": UPSTREAM,
    "secret": SECRET,
    "callers": RULE,
    "routes": ROUTE,
    "listen": LISTEN,
    "audit": AUDIT,
    "gateway": GATEWAY,
}
_CODE: Final = re.compile(r"\$?[\w]+[._][\w.]+|\$[A-Z]+")  # a variable, or another key
# These may stand in a page: of a form with a name and a value the example says all.
OF_FORMS: Final = {name: form.reader.section for name, form in FORMS.items() if form.reader.section}
METRIC_TABLES: Final = (*GROUPS, "labels")
_OF_EACH: Final = ("method", "mount")  # auth method, which the page says once
_TABLE: Final = re.compile(r"(<!-- (keys|metrics): (.+?) -->\n).*?(?=<!-- end -->\n)", re.DOTALL)


def table(section: Section[Any]) -> str:
    """A line for each key, those of a section in it below its own."""
    return "\n".join(("| key | default | |", "|---|---|---|", *_rows(section)))


def _rows(section: Section[Any], within: str = "") -> Iterator[str]:
    for key in section.keys.values():
        if key.name in _OF_EACH and issubclass(section.make, AuthMethod):
            continue
        others = [f"`{other}`" for other in _alternatives(section, key) if other != key.name]
        usual = f"required, or {', '.join(others)}" if others else _usual(key)
        yield f"| `{within}{key.name}` | {usual} | {_described(key)} |"
        if key.reader.section:
            yield from _rows(key.reader.section, f"{within}{key.name}.")


def _alternatives(section: Section[Any], key: Key) -> list[str]:
    """The keys of which one has to be there, ``key`` among them; [] where it is none."""
    for condition in section.conditions:
        found = [name for one in condition.schema.get("oneOf", ()) for name in one["required"]]
        if key.name in found:
            return found
    return []


def _usual(key: Key) -> str:
    if key.otherwise:
        return f"`{key.otherwise}`" if _CODE.fullmatch(key.otherwise) else key.otherwise
    if key.required:
        return "required"
    if key.written is None:
        return "none" if key.default in NOTHING else ""
    bare = isinstance(key.written, str) and key.written.isprintable()
    return f"`{key.written if bare else json.dumps(key.written)}`"


def _described(key: Key) -> str:
    schema = key.reader.schema
    text = key.text or schema.get("description", "")
    words = schema.get("enum", ())
    named = all(re.search(rf"\b{word}\b", text) for word in words)
    bounds = key.reader.bounds or ("" if named else ", ".join(f"`{word}`" for word in words))
    if "minimum" in schema:
        bounds = f"{schema['minimum']} to {schema['maximum']}"
    if bounds:
        text = f"{text.removesuffix('.')} ({bounds})."
    return " ".join(filter(None, (text, key.more)))


def written(page: str) -> str:
    """The text of ``page`` with its tables as they ought to be.

    Raises:
        KeyError: a table of that name is not there.
    """
    return _TABLE.sub(lambda found: f"{found[1]}{_named(found[2], found[3])}\n", page)


def _named(kind: str, name: str) -> str:
    return metric_table(name) if kind == "metrics" else table(_section(name))


def _section(name: str) -> Section[Any]:
    return TABLES[name] if name in TABLES else OF_FORMS[name]


def named(pages: str, kind: str = "keys") -> list[str]:
    """The tables of a kind in ``pages``, by name."""
    return [found[3] for found in _TABLE.finditer(pages) if found[2] == kind]


def metric_table(name: str) -> str:
    """A line for each metric of a group, or for each label.

    Raises:
        KeyError: there is no such group.
    """
    if name == "labels":
        labels = (f"| `{label}` | {text} |" for label, text in LABELS.items())
        return "\n".join(("| label | values |", "|---|---|", *labels))
    if name not in GROUPS:
        raise KeyError(name)
    rows = (_metric(metric) for metric in LISTED if metric.group == name)
    return "\n".join(("| metric | type | labels | series | |", "|---|---|---|---|---|", *rows))


def _metric(metric: MetricInfo) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    each = next((name for name in ("upstream", "stage") if name in metric.labels), "")
    series = f"{metric.times} per {each}" if each else str(metric.times)
    return f"| `{metric.shown}` | {metric.type} | {labels} | {series} | {metric.help} |"


def main() -> int:
    """Go through the pages of this folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    differ = []
    for page in sorted(Path(__file__).parent.glob("*.md")):
        text = page.read_text()
        if written(text) != text:
            differ.append(page.name)
            if not check:
                page.write_text(written(text))
    print(f"{'differ: make docs' if check else 'written'}: {', '.join(differ) or 'none'}")
    return int(check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
