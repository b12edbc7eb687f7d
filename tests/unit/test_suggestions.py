"""What an error tells to install or to run is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from vaultauthz.config.auth.methods import METHODS

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_what_a_login_needs_is_the_extra() -> None:
    """The error names the package itself: ours is in no registry."""
    needed = {name: [method.library] for name, method in METHODS.items() if method.library}
    assert needed == {"aws": EXTRAS["aws"], "gcp": EXTRAS["gcp"]}


def test_nobody_is_told_to_get_us_from_a_registry() -> None:
    """Somebody else could be found there by that name; extras are installed from the checkout."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("vaultauthz/**/*.py")]
    told = [
        line for file in files for line in file.read_text().splitlines() if "pip install" in line
    ]
    assert told
    for line in told:
        assert not re.search(r"pip install[^`]*\bvaultauthz\b", line), line
        for extra in re.findall(r"'\.\[(\w+)\]'", line):
            assert extra in EXTRAS


def test_what_is_to_be_made_can_be() -> None:
    """Each `make WORD` in an error is a target."""
    made = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for file in ROOT.glob("vaultauthz/**/*.py"):
        for word in re.findall(r"run make ([a-z-]+)", file.read_text()):
            assert word in made, file
