"""Writes the tables of keys into these pages; ``--check`` says which differ, and writes nothing.

A table stands between ``<!-- keys: NAME -->`` and ``<!-- end -->``, and comes from the section
that reads those keys. Exit status 1: a page differs, or names a table that there is not.
"""

# ruff: noqa: INP001, T201 - a script that prints, not a package

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vaultauthz.config.callers import RULE
from vaultauthz.config.inject import FORMS
from vaultauthz.config.keys import Section
from vaultauthz.config.listen import LISTEN
from vaultauthz.config.load import AUDIT, CONFIG
from vaultauthz.config.routes import ROUTE
from vaultauthz.config.secret_source import SECRET
from vaultauthz.config.stages import STAGE
from vaultauthz.config.upstreams import UPSTREAM
from vaultauthz.config.vault import VAULT

TABLES: Final[Mapping[str, Section[Any]]] = {
    "the file": CONFIG,
    "vault": VAULT,
    "stages": STAGE,
    "upstreams": UPSTREAM,
    "secret": SECRET,
    **{name: form.reader.section for name, form in FORMS.items() if form.reader.section},
    "callers": RULE,
    "routes": ROUTE,
    "listen": LISTEN,
    "audit": AUDIT,
}
_TABLE: Final = re.compile(r"(<!-- keys: (.+?) -->\n).*?(?=<!-- end -->\n)", re.DOTALL)


def written(page: str) -> str:
    """The text of ``page`` with its tables as they ought to be.

    Raises:
        KeyError: a table of that name is not there.
    """
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]].markdown()}\n", page)


def named(pages: str) -> list[str]:
    """The tables in ``pages``, by name."""
    return [found[2] for found in _TABLE.finditer(pages)]


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
