"""Writes the lock: the .txt files beside this script, from the ranges in pyproject.toml.

    python requirements/lock.py           the newest of everything that the ranges allow
    python requirements/lock.py --keep    what is locked stays, where the ranges still allow it

Each file holds what its group adds to the one before it, so that nothing stands twice; it
names that one with `-r`. All come from one resolution, for every Python and platform that
pyproject.toml allows. docs/dependencies.md says what this protects from.
"""

# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "pyproject.toml"
GROUPS = ("runtime", "compose", "demo", "test", "check", "mutants")  # each holds the one before it
EXTRAS = ("aws", "gcp")  # in the first of them, by themselves: what an image may be built with
UV = "uv>=0.8"  # makes the lock, and is locked itself
EDITABLES = "editables>=0.5"  # what hatchling asks for besides, for `pip install -e`
HEADER = "# Written by `make lock` from the ranges in pyproject.toml; not by hand.\n"


def compiled(folder: Path, name: str, *what: str, oldest: str, kept: str) -> str:
    """The requirements of one group, as uv pins them; what is ``kept`` stays at its version."""
    output = folder / f"{name}.txt"
    output.write_text(re.sub(r"^-r .*\n", "", kept, flags=re.MULTILINE))
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", *what, "--universal"]
    command += ["--python-version", oldest, "--generate-hashes", "--output-file", output.name]
    command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return output.read_text()


def resolved(folder: Path, project: dict[str, Any], kept: str) -> dict[str, str]:
    """Every group's requirements; of what several need, all have the same version."""
    oldest = str(project["project"]["requires-python"]).removeprefix(">=").partition(",")[0]
    (folder / "build.in").write_text("\n".join([*project["build-system"]["requires"], EDITABLES]))
    (folder / "uv.in").write_text(UV)
    shutil.copy(PROJECT, folder)
    texts = {}
    # The largest first, which binds the others.
    for name in (*reversed(GROUPS), *EXTRAS, "build", "uv"):
        what = _extra(name) if name in (*GROUPS, *EXTRAS) else [f"{name}.in"]
        texts[name] = compiled(folder, name, *what, oldest=oldest, kept=kept)
        kept = texts[name] + kept if name == GROUPS[-1] else kept
    return texts


def _extra(group: str) -> list[str]:
    return ["pyproject.toml", *([] if group == GROUPS[0] else ["--extra", group])]


def blocks(text: str) -> dict[str, str]:
    """Each requirement with its hashes, and what uv says on why it is there."""
    found = re.findall(r"^\S[^\n]*==.*?(?=^\S[^\n]*==|\Z)", text, re.MULTILINE | re.DOTALL)
    return {re.sub(r"^ +#.*\n", "", block, flags=re.MULTILINE): block for block in found}


def layered(texts: dict[str, str]) -> dict[str, str]:
    """The contents of the files: of each group, what the ones before do not have."""
    files = {name: HEADER + texts[name] for name in texts if name not in (*GROUPS, *EXTRAS)}
    before: set[str] = set()
    for number, name in enumerate(GROUPS):
        files[name] = _on_top(texts[name], before, GROUPS[number - 1] if number else "")
        before |= blocks(texts[name]).keys()
    first = set(blocks(texts[GROUPS[0]]))
    return files | {name: _on_top(texts[name], first, GROUPS[0]) for name in EXTRAS}


def _on_top(text: str, before: set[str], below: str) -> str:
    """A file with what those ``before`` do not have; it names the one ``below``."""
    mine = blocks(text)
    lines = [HEADER, *([f"-r {below}.txt\n"] if below else [])]
    return "".join([*lines, *(mine[key] for key in mine if key not in before)])


def main() -> None:
    """Resolve everything, then write every file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="what is locked stays")
    arguments = parser.parse_args()
    locked = sorted(HERE.glob("*.txt")) if arguments.keep else []
    kept = "".join(path.read_text() for path in locked)
    with tempfile.TemporaryDirectory() as folder:
        texts = resolved(Path(folder), tomllib.loads(PROJECT.read_text()), kept)
    for name, text in layered(texts).items():
        (HERE / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    main()
