"""The code blocks of a page of docs/, by section, and a shell that types them as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.integration.spelling import spelled
from tests.patience import PATIENCE
from vaultauthz.demo.parts import binaries

DOCS: Final = Path(__file__).parents[2] / "docs"
_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
_FOREIGN: Final = ("BAO_", "VAULT_", "VAULTAUTHZ_")  # variables: what the test's caller has set
_HEADING: Final = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``section`` is the heading of the second level that it stands below."""

    section: str
    language: str
    text: str

    @property
    def ours(self) -> bool:
        """Whether it is a configuration of ours, and not a Kubernetes manifest."""
        return self.language == "yaml" and "stages:" in self.text

    @property
    def whole(self) -> bool:
        """Whether that configuration has everything."""
        return self.ours and "upstreams:" in self.text

    @property
    def file_name(self) -> str:
        """What its first line says that the file is called; "" for none."""
        found = re.match(r"# (\w+\.\w+)\n", self.text)
        return found.group(1) if found else ""


def blocks(page: Path) -> Iterator[Block]:
    """Every block of the page, in order."""
    text = page.read_text()
    headings = list(_HEADING.finditer(text))
    for fence in _FENCE.finditer(text):
        above = [heading.group(1) for heading in headings if heading.start() < fence.start()]
        indent = len(fence["indent"])
        lines = [line[indent:] for line in fence["text"].splitlines(keepends=True)]
        yield Block(above[-1] if above else "", fence["language"], "".join(lines))


class Reader:
    """Somebody who types what a page says, in ``folder``, one block after the other in one shell.

    ``here`` has what the test has in place of the page's hosts, networks and files. The page
    says `bao` and `BAO_`; it is typed as the server at hand spells it, or as ``spelling`` says.
    Variables that a block exports stay.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        here: Mapping[str, str],
        spelling: str = "",
    ) -> None:
        self.folder = folder
        self.here = dict(here)
        binary = binaries.vault()
        self.cli = binary.cli
        self.spelling = spelling or binary.variables
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / self.cli).symlink_to(binary.path)
        path = f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        mine = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self._environ = {**mine, **environ, "PATH": path, "HOME": str(folder)}

    def adapted(self, text: str) -> str:
        """The text with what the test has in place of the page's."""
        for theirs, ours in self.here.items():
            text = text.replace(theirs, ours)
        return spelled(text, self.spelling)

    def stands_for(self, program: str, script: str) -> None:
        """Put a shell script in the place of a program that is not here."""
        path = self.bin / program
        path.write_text(f"#!/bin/sh -eu\n{script}\n")
        path.chmod(0o755)

    def write(self, block: Block) -> Path:
        """Save a block under its name."""
        path = self.folder / block.file_name
        path.write_text(self.adapted(block.text))
        return path

    def shell(self, text: str, typed: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Type it, and ``typed`` when a program asks; how it ended."""
        return subprocess.run(
            ["sh", "-eu", "-c", self.adapted(text)],
            cwd=self.folder, env={**self._environ, **environ}, input=typed,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def run(self, text: str, typed: str = "") -> str:
        """Type it; it must work. What it printed."""
        kept = self.folder / ".exported"
        done = self.shell(f"{text}\nenv -0 > {kept}\n", typed)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        exported = dict(line.split("=", 1) for line in kept.read_text().split("\0") if line)
        self._environ |= {k: v for k, v in exported.items() if k.startswith(_FOREIGN)}
        return done.stdout
