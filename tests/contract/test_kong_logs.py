"""What nginx would write of a credential into Kong's logs: refused at every door of Kong's, unless it is accepted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.kong import Kong
from tests.contract.kong_bed import OURS, STOCK, config, inject, routes, server_of
from tests.contract.running import fake
from tests.patience import PATIENCE

QUERY = {"query": {"name": "key", "value": "{key}"}}
BEARER = inject("one", {"bearer": "{key}"})
WORDS = ("error.log", "upstreams.q.inject[0]", "kong_query_in_logs: accepted")
COMMANDS = {
    "check": ("config", "check", "--kong"),
    "print": ("kong", "config"),
    "print-stock": ("kong", "config", "--stock"),
    "print-outside": ("kong", "config", "--outside"),
    "serve": ("kong", "serve", "--socket", "k.sock"),
}


def query(**more: Any) -> dict[str, Any]:
    """An upstream whose key goes into the query."""
    return inject("one", QUERY, **more)


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with a key."""
    with fake() as running:
        running.put_kv("secret/one", {"key": "the-key"})
        yield running


def ours(folder: Path, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "vaultauthz", *words, "-c", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses(tmp_path: Path, vault: FakeVault, command: str) -> None:
    """Status 2, the reason and the way out; nothing is printed that could be used, no socket is there."""
    done = ours(tmp_path, config(vault, tmp_path, {"q": query()}), *COMMANDS[command])
    assert (done.returncode, done.stdout) == (2, "")
    assert [word for word in WORDS if word not in done.stderr] == []
    assert not (tmp_path / "k.sock").exists()


def test_envoy_is_served(tmp_path: Path, vault: FakeVault) -> None:
    """The same file is good without Kong, and a warning where its rules are Kong's."""
    path = config(vault, tmp_path, {"q": query()})
    done = ours(tmp_path, path, "config", "check")
    assert (done.returncode < 2, "kong" in done.stderr.lower()) == (True, False)
    for rule in ({"consumer": "shop"}, {"group": "staff"}):
        path = config(vault, tmp_path, {"q": query(), "other": {**BEARER, "deny": [rule]}})
        done = ours(tmp_path, path, "config", "check")
        assert (done.returncode, "not for Kong: " in done.stderr) == (1, True)


@pytest.mark.parametrize("kind", [OURS, STOCK])
def test_accepted(tmp_path: Path, vault: FakeVault, kind: str) -> None:
    """It is served, and checked and printed without a word about it."""
    path = config(vault, tmp_path, {"q": query(kong_query_in_logs="accepted")})
    for command in ("check", "print"):
        done = ours(tmp_path, path, *COMMANDS[command])
        assert (done.returncode < 2, "error.log" in done.stderr) == (True, False)
    with Kong(server_of(kind, tmp_path, path), routes(("q",), kind)) as kong:
        assert kong.request("GET", "/q?a=1").upstream.query == "a=1&key=the-key"


def test_the_stock_server_refuses(tmp_path: Path, vault: FakeVault) -> None:
    """Its plugin does not start, so that each request is answered 500, and Kong's log says why."""
    path = config(vault, tmp_path, {"q": query()})
    with Kong(server_of(STOCK, tmp_path, path), routes(("q",), STOCK)) as kong:
        answer = kong.request("GET", "/q")
        assert (answer.status, answer.received) == (500, None)
        assert kong.logged("upstreams.q.inject[0]")


@pytest.mark.parametrize("kind", [OURS, STOCK])
def test_a_reload_refuses(tmp_path: Path, vault: FakeVault, kind: str) -> None:
    """A file that comes to have it while the server runs changes nothing."""
    path = config(vault, tmp_path, {"q": BEARER})
    with Kong(server_of(kind, tmp_path, path), routes(("q",), kind)) as kong:
        assert kong.request("GET", "/q").upstream.header("authorization") == "Bearer the-key"
        config(vault, tmp_path, {"q": query()})
        assert wait_until(lambda: bool(kong.logged("not reloaded")))
        answer = kong.request("GET", "/q")
        assert (answer.upstream.query, answer.upstream.header("authorization")) == (
            "",
            "Bearer the-key",
        )
        assert wait_until(lambda: bool(kong.logged("upstreams.q.inject[0]")))
