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

from vaultauthz.demo.parts import binaries

DOCS: Final = Path(__file__).parents[2] / "docs"
_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
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
    """Somebody who types what a page says, in ``folder``.

    ``here`` has what the test has in place of the page's hosts, networks and files.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], here: Mapping[str, str]) -> None:
        self.folder = folder
        self.here = dict(here)
        path = f"{binaries.bao().parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        foreign = ("BAO_", "VAULT_", "VAULTAUTHZ_")
        mine = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self._environ = {**mine, **environ, "PATH": path, "HOME": str(folder)}

    def adapted(self, text: str) -> str:
        """The text with what the test has in place of the page's."""
        for theirs, ours in self.here.items():
            text = text.replace(theirs, ours)
        return text

    def write(self, block: Block) -> Path:
        """Save a block under its name."""
        path = self.folder / block.file_name
        path.write_text(self.adapted(block.text))
        return path

    def shell(self, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Type it; how it ended."""
        return subprocess.run(
            ["sh", "-eu", "-c", self.adapted(text)],
            cwd=self.folder, env={**self._environ, **environ}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def run(self, text: str) -> str:
        """Type it; it must work. What it printed."""
        done = self.shell(text)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout
