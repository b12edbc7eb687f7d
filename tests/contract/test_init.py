"""`vaultauthz init`: a first configuration, which every other command takes as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from vaultauthz.config import load
from vaultauthz.config.auth.methods import METHODS
from vaultauthz.config.first import FirstAnswers, first_config, problems

OURS = [sys.executable, "-m", "vaultauthz"]
SECRET = "s3cr3t-0f-somebody"
GIVEN = {
    "--vault": "https://vault.test:8200",
    "--auth": "approle",
    "--upstream": "payments",
    "--secret": "database/creds/payments",
}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


def run(folder: Path, *words: str, typed: str | None = None, **environment: str) -> Done:
    """A command in that folder; ``typed`` is what is typed on its terminal, None for none."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VAULT", "BAO"))}
    with_terminal = _terminal(typed) if typed is not None else _nobody()
    with closing(with_terminal):
        done = subprocess.run(
            [*OURS, *words],
            cwd=folder,
            env={**kept, **environment},
            stdin=next(with_terminal),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def _nobody() -> Generator[int, None, None]:
    yield subprocess.DEVNULL


def _terminal(typed: str) -> Generator[int, None, None]:
    ours, theirs = os.openpty()
    os.write(ours, typed.encode())
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


def init(folder: Path, *words: str, typed: str | None = None, **given: str) -> Done:
    """It with every answer as an option, or with some of them otherwise."""
    options = {**GIVEN, **{f"--{name}": value for name, value in given.items()}}
    flat = [word for pair in options.items() for word in pair]
    return run(folder, "init", *flat, *words, typed=typed)


class TestWhatIsWritten:
    @pytest.mark.parametrize("method", METHODS)
    def test_each_login_passes_the_check(self, tmp_path: Path, method: str) -> None:
        """As it is: its files are not there yet, which is told, and no finding."""
        assert init(tmp_path, auth=method).status == 0
        done = run(tmp_path, "config", "check")
        assert (done.status, done.out) == (
            0,
            "vaultauthz.yaml: good: 1 stage, 1 upstream, 1 route\n",
        ), done.err
        config = load(tmp_path / "vaultauthz.yaml", {}, elsewhere=True)
        assert config.stages["production"].auth.name == method

    @pytest.mark.parametrize("method", METHODS)
    def test_its_files_are_those_of_the_page(self, method: str) -> None:
        """What docs/auth.md has somebody write is what the configuration reads."""
        page = (Path(__file__).parents[2] / "docs" / "auth.md").read_text()
        wanted = METHODS[method].first
        same = {"kubernetes": "role: gateway", "approle": wanted}
        assert f"{{method: {method}, {same.get(method, wanted)}" in page

    @pytest.mark.parametrize(
        ("secret", "source", "inject"),
        [
            ("database/creds/pay", "{path: database/creds/pay}", "basic"),
            ("database/static-creds/pay", "{static_role: database/static-creds/pay}", "basic"),
            ("secret/pay", "{kv: secret/pay}", "bearer"),
            ("kv-team/pay", "{kv: kv-team/pay}", "bearer"),
            ("kv:team/pay", "{kv: team/pay}", "bearer"),
            ("path:secret/pay", "{path: secret/pay}", "basic"),
            (
                "pki/issue/pay",
                "{pki: pki/issue/pay, params: {common_name: gateway.example.com}}",
                "tls",
            ),
            ("a b: {c}/d", None, ""),
        ],
    )
    def test_the_secret_by_its_path(self, secret: str, source: str | None, inject: str) -> None:
        """Its form as engines are named as a rule, or as it is said; and what is made of it."""
        answers = FirstAnswers(secret=secret)
        assert bool(problems(answers)) == (source is None)
        if source:
            text = first_config(answers)
            assert f"    secret: {source}\n" in text
            assert f"    inject: [{{{inject}: " in text

    @pytest.mark.parametrize("name", ["on", "123", "no", "a.b", "x-1"])
    def test_names_that_yaml_takes_for_something_else(self, tmp_path: Path, name: str) -> None:
        """They stand in quotes, and are the names that were given."""
        file = tmp_path / "c.yaml"
        file.write_text(first_config(FirstAnswers(upstream=name)))
        config = load(file, {}, elsewhere=True)
        assert list(config.upstreams) == [name]
        assert config.routes[0].upstream == name

    def test_the_gateway_needs_no_hand(self, tmp_path: Path) -> None:
        """With `to`, both gateways' files are finished."""
        assert init(tmp_path, to="https://payments.test:8443").status == 0
        for command in (("envoy",), ("envoy", "--mode", "sds"), ("kong", "config")):
            done = run(tmp_path, *command)
            assert done.status == 0, done.err
            assert "REPLACE" not in done.out
        assert "REPLACE" in run(tmp_path, "kong", "config", "--format", "helm").out  # the image

    def test_what_comes_next(self, tmp_path: Path) -> None:
        """Commands that can be typed as they are, and where the secrets go."""
        done = init(tmp_path, "-c", "my first.yaml")
        assert done.err == ""
        for words in (
            "vaultauthz policy -c 'my first.yaml' | bao policy write vaultauthz-production -",
            f"{tmp_path}/role_id, {tmp_path}/secret_id",
            "vaultauthz doctor --fetch -c 'my first.yaml'",
            "vaultauthz serve -c 'my first.yaml'",
            "vaultauthz envoy -c 'my first.yaml' > envoy.yaml",
        ):
            assert words in done.out
        assert "/var/run/secrets" not in init(tmp_path, auth="kubernetes").out


class TestWhatIsRefused:
    def test_a_file_that_is_there(self, tmp_path: Path) -> None:
        """It stays as it is, unless --force is given."""
        file = tmp_path / "vaultauthz.yaml"
        file.write_text("mine")
        done = init(tmp_path)
        assert (done.status, done.out, file.read_text()) == (2, "", "mine")
        assert "--force" in done.err
        assert init(tmp_path, "--force").status == 0
        assert file.read_text().startswith("# Written by")

    @pytest.mark.parametrize(
        ("name", "value", "word"),
        [
            ("vault", "http://vault.test:8200", "clear text"),
            ("vault", f"https://me:{SECRET}@vault.test", "user name or password"),
            ("auth", "magic", "unknown"),
            ("upstream", "a/b", "cannot name an upstream"),
            ("secret", "/nowhere/", "no path in Vault"),
            ("to", "payments.test", "does not begin with https://"),
            ("to", f"https://payments.test/?key={SECRET}", "goes on after the host"),
        ],
    )
    def test_what_cannot_stand_there(
        self, tmp_path: Path, name: str, value: str, word: str
    ) -> None:
        """Nothing is written; the key and the reason are told, and no secret."""
        done = init(tmp_path, **{name: value})
        assert (done.status, done.out, list(tmp_path.iterdir())) == (2, "", [])
        assert word in done.err
        assert SECRET not in done.err

    def test_nobody_to_ask(self, tmp_path: Path) -> None:
        """Without a terminal what is missing is named; Vault's address may be in the environment."""
        done = run(tmp_path, "init", "--auth", "approle")
        assert (done.status, list(tmp_path.iterdir())) == (2, [])
        assert "give --vault, --upstream, --secret" in done.err
        words = ("init", "--auth", "approle", "--upstream", "a", "--secret", "secret/a")
        assert run(tmp_path, *words, BAO_ADDR="https://bao.test:8200").status == 0
        assert "https://bao.test:8200" in (tmp_path / "vaultauthz.yaml").read_text()

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        """One line says so."""
        done = init(tmp_path, "-c", "no/such.yaml")
        assert done.status == 2
        assert "no/such.yaml cannot be written: no such file" in done.err


class TestOnATerminal:
    def test_three_questions(self, tmp_path: Path) -> None:
        """What is typed is written; nothing is what stands in brackets."""
        typed = "https://bao.test:8200\nkubernetes\ngeo kv:secret/geo https://geo.test\n"
        done = run(tmp_path, "init", typed=typed)
        assert done.status == 0
        assert done.err.count("> ") + done.out.count("> ") >= 3
        config = load(tmp_path / "vaultauthz.yaml", {}, elsewhere=True)
        assert config.vault.address == "https://bao.test:8200"
        assert config.stages["production"].auth.name == "kubernetes"
        assert config.upstreams["geo"].to["production"].address == "https://geo.test"

    def test_what_is_usual(self, tmp_path: Path) -> None:
        """Three times nothing: the environment's Vault, and what the questions propose."""
        done = run(tmp_path, "init", typed="\n\n\n", VAULT_ADDR="https://there.test")
        assert done.status == 0
        written = (tmp_path / "vaultauthz.yaml").read_text()
        assert written == first_config(FirstAnswers(vault="https://there.test"))

    def test_only_what_the_options_do_not_say(self, tmp_path: Path) -> None:
        """One question is left."""
        words = ("init", "--vault", "https://a.test", "--upstream", "a", "--secret", "secret/a")
        assert run(tmp_path, *words, typed="jwt\n").status == 0
        assert "method: jwt" in (tmp_path / "vaultauthz.yaml").read_text()

    def test_asked_again(self, tmp_path: Path) -> None:
        """What cannot stand there is told, and the question comes again."""
        typed = "vault.test\nhttps://vault.test\napprole\nonly-a-name\na secret/a\n"
        done = run(tmp_path, "init", typed=typed)
        assert done.status == 0
        assert "vault.address: 'vault.test' is no address of Vault" in done.err
        assert "a name and a path" in done.err

    def test_the_end_of_the_input(self, tmp_path: Path) -> None:
        """Nothing is written."""
        done = run(tmp_path, "init", typed="https://vault.test\n\x04")
        assert (done.status, list(tmp_path.iterdir())) == (2, [])
        assert "nothing was written" in done.err
