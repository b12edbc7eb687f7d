"""What is refused: each with its file, line, key, what is wrong and the way out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import SECRET, VALID, Folder, edited
from .refused_auth import AUTH, STAGES
from .refused_doors import LISTENING, ROUTES
from .refused_gateway import GATEWAYS, SERVICES
from .refused_logins import DURATIONS, SHAPE, VAULT
from .refused_methods import METHODS
from .refused_upstreams import CALLERS, INJECT, SECRETS, UPSTREAMS

LOGINS = [*VAULT, *STAGES, *METHODS]
REFUSED = [*SHAPE, *LOGINS, *SECRETS, *INJECT, *CALLERS, *UPSTREAMS, *ROUTES, *LISTENING]
REFUSED += [*SERVICES, *GATEWAYS]


@pytest.mark.parametrize(("old", "new", "wanted"), REFUSED)
def test_refused(folder: Folder, old: str, new: str, wanted: tuple[str, ...]) -> None:
    """Each mistake is told in exactly these words, and nothing besides."""
    folder.write("blank", " \n")
    os.mkfifo(folder.path / "pipe")
    problems = folder.problems(edited(old, new))
    assert problems == tuple(f"c.yaml:{line}" for line in wanted)
    assert SECRET not in "".join(problems)


@pytest.mark.parametrize(("text", "wanted"), DURATIONS)
def test_durations(folder: Folder, text: str, wanted: str) -> None:
    """A duration is one of Vault's with its unit, within bounds that are told."""
    config = edited("https://vault.test:8200", f"https://vault.test:8200\n  timeout: {text}")
    assert folder.problems(config) == (f"c.yaml:3: vault.timeout: {wanted}",)


def test_empty_mapping(folder: Folder) -> None:
    """Every section that has to be there is asked for in one go."""
    assert folder.problems("{}") == (
        "c.yaml:1: vault.address: is missing; add https://HOST:PORT, or set $VAULT_ADDR",
        "c.yaml:1: stages: is missing; add a stage with its auth",
        "c.yaml:1: upstreams: is missing; add the services behind the gateway",
    )


def test_empty_sections(folder: Folder) -> None:
    """Sections without entries are refused."""
    assert folder.problems("vault: {address: https://a}\nstages: {}\nupstreams: {}") == (
        "c.yaml:2: stages: has no stage; add one, with its auth",
        "c.yaml:3: upstreams: has no upstream; add one",
    )


def test_all_problems_in_the_order_of_the_file(folder: Folder) -> None:
    """One run tells everything, from the first line to the last."""
    text = (
        VALID.replace("https:", "http:")
        .replace("callers: any", "calers: any")
        .replace("upstream: pay", "upstream: pya")
        .replace("method: token_file", "method: tokenfile")
    )
    places = [line.split(": ")[:2] for line in folder.problems(text)]
    assert places == [
        ["c.yaml:2", "vault.address"],
        ["c.yaml:7", "stages.test.auth.method"],
        ["c.yaml:9", "upstreams.pay.callers"],
        ["c.yaml:12", "upstreams.pay.calers"],
        ["c.yaml:21", "routes[0].upstream"],
    ]


def test_one_mistake_is_told_once(folder: Folder) -> None:
    """A broken stage or upstream does not make what names it wrong."""
    text = edited(AUTH, "{method: nothing}").replace("    callers: any\n", "")
    places = [line.split(": ")[1] for line in folder.problems(text)]
    assert places == ["stages.prod.auth.method", "upstreams.pay.callers"]


def test_address_from_environment(folder: Folder) -> None:
    """A wrong $VAULT_ADDR is named as the origin."""
    text = VALID.split("\n", 2)[2]
    assert folder.problems(text, {"VAULT_ADDR": "vault:8200"}) == (
        (
            "c.yaml:1: vault.address (from $VAULT_ADDR): "
            "'vault:8200' is no address of Vault; use https://HOST:PORT"
        ),
    )


def test_unreadable_secret_id(unprivileged: Path) -> None:
    """A secret id that we have no right to read is named with its path."""
    folder = Folder(unprivileged)
    folder.write("secret_id", SECRET, 0)
    assert folder.problems(VALID) == (
        (
            "c.yaml:5: stages.prod.auth.secret_id_file: DIR/secret_id cannot be read: "
            "permission denied; check the path and its rights"
        ),
    )


def test_long_names_are_shortened(folder: Folder) -> None:
    """A key of ten thousand letters does not fill the screen."""
    problems = folder.problems(edited("routes:", f"{'r' * 10_000}: 1\nroutes:"))
    assert len(problems) == 1
    assert len(problems[0]) < 250


def test_an_open_port_wants_mutual_tls(folder: Folder) -> None:
    """TLS alone would hand credentials to whoever reaches the port."""
    tls = "{cert: cert.pem, key: key.pem}"
    text = edited(
        "grpc: unix:///run/vaultauthz/grpc.sock", f"grpc: 0.0.0.0:9000\n  grpc_tls: {tls}"
    )
    (problem,) = folder.problems(text)
    assert problem.startswith("c.yaml:24: listen.grpc_tls: whoever reaches this port")
    assert "add client_ca" in problem
    unread = text.replace("key.pem}", "key.pem, client_ca: gone.pem}")
    (problem,) = folder.problems(unread)
    assert problem.startswith("c.yaml:24: listen.grpc_tls.client_ca: ")
