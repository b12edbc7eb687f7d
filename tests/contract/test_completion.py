"""`vaultauthz completion` and `help`, and what is said to a slip on the command line."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from vaultauthz import cli
from vaultauthz.cli import parsing

# What stands for zsh's own functions, which are there in a terminal alone.
_ZSH_FUNCTIONS = """
_describe() { for one in "${(@P)2}"; do print -r -- "${one%%:*}"; done }
_files() { print -r -- "FILES" }
compadd() { shift; print -rl -- "$@" }
compdef() { : }
"""
WHAT = {
    "": "audit completion config demo doctor envoy explain help init kong leases policy revoke rotate serve",
    "conf": "config",
    "config ": "check schema",
    "config check --k": "--kong",
    "envoy --mode ": "ext_authz sds",
    "envoy --mode s": "sds",
    "serve --log-format j": "json",
    "kong config --f": "--format",
    "audit report --by c": "caller credential",
    "completion ": "bash fish zsh",
    "help con": "config",
    "doctor --stage ": "",
    "doctor --stage production --f": "--fetch",
}
FILES = ("serve -c ", "policy --token-file ", "audit verify ", "audit join --vault ")


def said(*words: str, shell: str = "", folder: Path | None = None) -> str:
    """What a program prints; it ends well."""
    done = subprocess.run(
        words,
        input=shell,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the command prints for each shell."""
    folder = tmp_path_factory.mktemp("completion")
    found = {}
    for shell in ("bash", "zsh", "fish"):
        found[shell] = folder / shell
        found[shell].write_text(said(sys.executable, "-m", "vaultauthz", "completion", shell))
    return found


class Typed:
    """A line after `vaultauthz `, at whose end the tabulator is pressed."""

    def __init__(self, line: str, scripts: dict[str, Path], folder: Path) -> None:
        self.line, self.scripts, self.folder = line, scripts, folder
        self.words = ["vaultauthz", *line.split(" ")]

    def bash(self) -> list[str]:
        """What bash proposes."""
        words = " ".join(map(shlex.quote, self.words))
        text = (
            f"source {self.scripts['bash']}; COMP_WORDS=({words}); COMP_CWORD={len(self.words) - 1}; "
            'COMPREPLY=(); _vaultauthz; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return sorted(filter(None, said("bash", "-c", text, folder=self.folder).split("\n")))

    def zsh(self) -> list[str]:
        """What zsh does."""
        words = " ".join(map(shlex.quote, self.words))
        text = (
            f"{_ZSH_FUNCTIONS} source {self.scripts['zsh']}\nwords=({words}); CURRENT={len(self.words)}"
            "\n_vaultauthz"
        )
        found = said("zsh", "-f", "-c", text).split()
        return sorted(word for word in found if word.startswith(self.words[-1]) or word == "FILES")

    def fish(self) -> list[str]:
        """What fish does."""
        text = (
            f"source {self.scripts['fish']}; complete -C {shlex.quote('vaultauthz ' + self.line)}"
        )
        lines = said("fish", "--no-config", "-c", text, folder=self.folder).splitlines()
        return sorted(line.partition("\t")[0] for line in lines)


HERE = [
    shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)
]  # bash is on each machine


@pytest.mark.parametrize("shell", HERE)
@pytest.mark.parametrize("line", WHAT)
def test_what_can_come_next(
    scripts: dict[str, Path], tmp_path: Path, shell: str, line: str
) -> None:
    """Commands, then options, then an option's values; nothing where nobody can know."""
    typed = Typed(line, scripts, tmp_path)
    assert getattr(typed, shell)() == sorted(WHAT[line].split())


@pytest.mark.parametrize("shell", HERE)
@pytest.mark.parametrize("line", FILES)
def test_files(scripts: dict[str, Path], tmp_path: Path, shell: str, line: str) -> None:
    """Where a file is wanted, those that are there."""
    name = "some.yaml" if shell == "fish" else "some file.yaml"  # fish writes its blank with a \\
    (tmp_path / name).touch()
    found = getattr(Typed(line, scripts, tmp_path), shell)()
    assert found == (["FILES"] if shell == "zsh" else [name])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_in_it(scripts: dict[str, Path], shell: str) -> None:
    """Those that are shown, and none that is hidden."""
    text = scripts[shell].read_text()
    every = list(_below(cli._parser()))
    assert len(every) > 20
    for parser in every:
        for action in parsing.actions(parser):
            for name in action.option_strings:
                bare = name.lstrip("-")
                assert (f"-l {bare} " in text or f"-s {bare} " in text) or name in text, name
    assert "supervised" not in text


def _below(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    yield parser
    for below in parsing.commands(parser).values():
        yield from _below(below)


def ended(*words: str) -> tuple[int, str]:
    """Status and standard error of a command that is refused."""
    done = subprocess.run(
        [sys.executable, "-m", "vaultauthz", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "meant", "usage"),
    [
        ("servve", "serve", "usage: vaultauthz [-h]"),
        ("Serve", "serve", "usage: vaultauthz [-h]"),
        ("config chek", "check", "usage: vaultauthz config [-h]"),
        ("envoy --mode ext-authz", "ext_authz", "usage: vaultauthz envoy [-h]"),
        ("serve --log-level warn", "warning", "usage: vaultauthz serve [-h]"),
        ("doctor --fetsh", "--fetch", "usage: vaultauthz doctor [-h]"),
        ("audit report --sinse 24h", "--since", "usage: vaultauthz audit report [-h]"),
        ("help confg", "config", "usage: vaultauthz [-h]"),
        ("help config chek", "check", "usage: vaultauthz config [-h]"),
        ("completion bsh", "bash", "usage: vaultauthz completion [-h]"),
        ("xyzzy", None, "usage: vaultauthz [-h]"),
        ("doctor --xyzzy", None, "usage: vaultauthz doctor [-h]"),
    ],
)
def test_what_was_meant(words: str, meant: str | None, usage: str) -> None:
    """The nearest of what there is, and the usage of the command that it was said to."""
    status, told = ended(*words.split())
    assert status == 2
    assert told.startswith(usage)
    assert ("did you mean" in told) == (meant is not None)
    if meant:
        assert told.endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize("words", ["", "serve", "config", "config check", "audit join"])
def test_help(words: str) -> None:
    """The same as --help."""
    ours = [sys.executable, "-m", "vaultauthz"]
    assert said(*ours, "help", *words.split()) == said(*ours, *words.split(), "--help")
