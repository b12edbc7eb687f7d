"""The commands of docs/deploy.md and docs/operations.md: each `vaultauthz …` is one of our command line's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vaultauthz.cli import _parser

ROOT = Path(__file__).parents[3]
PAGES = ("deploy.md", "operations.md")


def commands(text: str) -> list[str]:
    """In blocks, and as code in a sentence where more than the command's name is said; what stands before it is cut."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    lines = re.sub(r"\\\n\s*", "", blocks).splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = [span for span in re.findall(r"`([^`\n]+)`", prose) if re.search(r" [^a-z]", span)]
    found = [re.search(r"(?:^|/bin/|-- )(vaultauthz [a-z].*)", line) for line in lines + spans]
    return [re.split(r" \| |\s+#", match[1])[0] for match in found if match]


@pytest.mark.parametrize("page", PAGES)
def test_they_are_what_the_command_line_takes(page: str) -> None:
    """With each option and each argument."""
    found = commands((ROOT / "docs" / page).read_text())
    assert len(found) >= 5
    for command in found:
        words = shlex.split(command)[1:]
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page}: {command}")


def test_what_is_none_is_found() -> None:
    """A wrong option in a block, and a wrong command in a sentence."""
    text = "```\nkubectl exec x -- vaultauthz leases -c F  # all\n```\nUse `vaultauthz rotate X --now` then.\n"
    assert commands(text) == ["vaultauthz leases -c F", "vaultauthz rotate X --now"]
