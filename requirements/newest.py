"""Runs the unit tests with the newest of everything that pyproject.toml allows.

    python requirements/newest.py         in .venv-newest, made anew; status 0 whatever comes of it

It is a forecast for `make lock`, and for who installs without the lock: one line says what
came of it, and .venv-newest/report.txt holds the rest. One line, so that the tests' own
closing line stays the only one in a log.
"""

# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import re
import subprocess
import venv
from pathlib import Path

from packaging.markers import Marker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = ROOT / ".venv-newest"
REPORT = FOLDER / "report.txt"
LONGEST = 300.0  # seconds for each of the two steps
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]


def main() -> None:
    """Make the environment, run the tests, say one line."""
    venv.create(FOLDER, clear=True, with_pip=True)
    if trouble := ran([*PIP, "install", "--quiet", "-e", ".[test]"]):
        say(f"pip, asked for the newest of everything, {trouble}")
        return
    trouble = ran(["-m", "pytest", "tests/unit", "-n", "auto", "-q", "-p", "no:cacheprovider"])
    came = f"the unit tests, with the newest of everything: {trouble.upper() or 'green'}"
    say(f"{came} ({difference()})")


def say(what: str) -> None:
    """The line."""
    print(f"newest: {what}; see {REPORT.relative_to(ROOT)}", flush=True)


def ran(arguments: list[str]) -> str:
    """What became of this in the new environment, "" where it ended well; the report has its words."""
    command = [str(FOLDER / "bin" / "python"), *arguments]
    with REPORT.open("a") as report:
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=report, stderr=report, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return f"is not done after {LONGEST:.0f} s"
    return "fails" if done.returncode else ""


def difference() -> str:
    """What is newer there than the lock has it."""
    command = [str(FOLDER / "bin" / "python"), *PIP, "list", "--format=freeze"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    had = locked()
    pairs = dict(line.split("==") for line in listed.split() if "==" in line)
    newer = [
        f"{name} {version}, locked {had[normal(name)]}"
        for name, version in pairs.items()
        if had.get(normal(name), version) != version
    ]
    return "; ".join(newer) or "which the lock has"


def locked() -> dict[str, str]:
    """The versions that the lock has for this Python and platform."""
    text = "".join(path.read_text() for path in HERE.glob("*.txt"))
    pins = re.findall(r"^(\S+?)(?:\[\S+\])?==(\S+)(?: ; (.*?))? \\$", text, re.MULTILINE)
    return {name: version for name, version, when in pins if not when or Marker(when).evaluate()}


def normal(name: str) -> str:
    """A package's name as the lock spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
