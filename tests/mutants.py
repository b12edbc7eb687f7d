"""Changes of a line that no test and no type would find: ``python -m tests.mutants [FILE …]``.

mutmut changes one thing of a function at a time, in a copy of the tree (``mutants/``), has mypy
look at it, and runs the tests that come by that function. Without a FILE it does so with all
that ``[tool.mutmut]`` in pyproject.toml names. docs/testing.md has the counts, and what is
known of those that live.
"""

# ruff: noqa: T201 - a script that prints

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "mutants"
MUTMUT = Path(sys.executable).with_name("mutmut")
# mutmut's words, and ours.
COLUMNS = {
    "caught by type check": "by a type",
    "killed": "by a test",
    "timeout": "by time",
    "survived": "lives",
    "no tests": "untested",
}


def name_of(file: str) -> str:
    """What mutmut calls the mutants of a file, or of all in a folder."""
    module = ".".join(Path(file).resolve().relative_to(ROOT).with_suffix("").parts)
    return f"{module}.*"


def counted(results: str) -> dict[str, Counter[str]]:
    """How many there are of each kind, by module, in what ``mutmut results`` tells."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for line in results.splitlines():
        mutant, _, status = line.strip().partition(": ")
        if status and status != "not checked":
            found[mutant.rpartition(".")[0]][COLUMNS.get(status, status)] += 1
    return dict(found)


def table(found: dict[str, Counter[str]]) -> str:
    """One line for each module, and one for all of them."""
    total = sum(found.values(), Counter[str]())
    kinds = [*COLUMNS.values(), *sorted(set(total) - set(COLUMNS.values()))]
    rows = [("", "mutants", *kinds)]
    for module, kind in [*sorted(found.items()), ("all", total)]:
        rows.append((module, str(kind.total()), *(str(kind[each]) for each in kinds)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def mutmut(*arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run it where pyproject.toml is, with the mypy of the same environment."""
    path = f"{MUTMUT.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        [MUTMUT, *arguments],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        text=True,
        stdout=stdout,
    )


def main() -> int:
    """Make the mutants, try each, print the counts and the names of those that live."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="files or folders of vaultauthz/")
    parser.add_argument("--jobs", default="2", help="mutants at once (2)")
    arguments = parser.parse_args()
    shutil.rmtree(COPY, ignore_errors=True)  # mutmut keeps tests that are no more
    names = [name_of(file) for file in arguments.files] or ["vaultauthz.*"]
    os.nice(10)
    done = mutmut("run", "--max-children", arguments.jobs, *names)
    if done.returncode:
        return done.returncode
    results = mutmut("results", "--all", "true", stdout=subprocess.PIPE).stdout
    print(table(counted(results)))
    alive = [
        line.strip() for line in results.splitlines() if line.endswith((": survived", "tests"))
    ]
    print("", *alive, "", f"Each as a difference: {MUTMUT.relative_to(ROOT)} show NAME", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
