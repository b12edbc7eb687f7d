"""`vaultauthz kong config` and `kong dump`: what is printed is what Kong runs with."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.kong import Guard, Kong, Route, Server, Verdict
from tests.contract.kong_bed import PLUGIN, UPSTREAMS, config
from tests.contract.running import fake
from vaultauthz.kong.registration import MARK, NAME

NAMES = ("bearer", "query", "shop")
LINE = re.compile(r"(\w+) = (.*)")


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with two keys."""
    with fake() as running:
        yield running


class Printed:
    """What the command says, and its two parts, read."""

    def __init__(self, path: Path, *options: str, **environment: str) -> None:
        ours = [sys.executable, "-m", "vaultauthz", "kong", "config", "-c", str(path)]
        done = subprocess.run(
            [*ours, *options],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        self.status, self.warnings = done.returncode, done.stderr
        conf, _, document = done.stdout.partition("# --- kong.yml")
        found = map(LINE.match, conf.splitlines())
        self.conf: dict[str, str] = {one[1]: one[2] for one in found if one}
        self.yml: dict[str, Any] = yaml.safe_load(document.partition("\n")[2])

    def server(self, **environment: str) -> Server:
        """The server that kong.conf names."""
        lines = {key.rpartition("vaultauthz_")[2]: value for key, value in self.conf.items()}
        socket = Path(lines["socket"])
        return Server(socket, lines["query_cmd"], lines.get("start_cmd"), environment=environment)

    def routes(self) -> list[Route]:
        """The routes of kong.yml, each with its plugin and its guard."""
        return [_route(service["routes"][0]) for service in self.yml["services"]]


def _route(entry: dict[str, Any]) -> Route:
    plugins = {plugin["name"]: plugin["config"] for plugin in entry["plugins"]}
    guard = None
    if "post-function" in plugins:
        (before,) = plugins["pre-function"]["access"]
        (after,) = plugins["post-function"]["access"]
        assert before.strip() == f'kong.service.request.clear_header("{MARK}")'
        wanted = re.search(r'if mark ~= "(.*)" then\n  return kong.response.exit\(503', after)
        assert wanted is not None
        guard = Guard(marks={MARK: wanted[1]})
    (path,) = entry["paths"]
    return Route(entry["name"], path, plugins[NAME], guard=guard)


def upstreams() -> dict[str, Any]:
    return {name: UPSTREAMS[name] for name in NAMES}


@pytest.mark.parametrize("stock", [False, True])
def test_kong_runs_with_it(tmp_path: Path, vault: FakeVault, stock: bool) -> None:
    """Both set-ups as they are printed, in the empty environment that Kong gives them."""
    path = config(vault, tmp_path, upstreams())
    options = ["--socket", str(tmp_path / "k.sock"), *(["--stock"] if stock else [])]
    printed = Printed(path, *options)
    assert (printed.status, printed.warnings.count("warning: kong")) == (0, 0)
    if stock:
        (tmp_path / "plugins").mkdir()
        line = "from vaultauthz.kong.stock import Plugin, Schema, priority, version\n"
        (tmp_path / "plugins" / f"{NAME}.py").write_text(line)
    quiet = {"PYTHONWARNINGS": "ignore"} if stock else {}
    with Kong(printed.server(**quiet), printed.routes()) as kong:
        answer = kong.request("GET", "/bearer", headers=[(MARK, "bearer/production")])
        assert answer.upstream.header("authorization") == "Bearer one-1"
        assert answer.upstream.header(MARK) is None or not stock
        assert kong.request("GET", "/query?key=mine").upstream.query == "key=two-1"
        assert kong.request("GET", "/shop").status == 403
        kong.supervisor.kill()


def test_another_routes_mark_is_no_mark(tmp_path: Path, vault: FakeVault) -> None:
    """The guard of each route wants the names of its own plugin's configuration, however a client spells it."""
    path = config(vault, tmp_path, upstreams())
    options = ("--stock", "--socket", str(tmp_path / "k.sock"))
    bare = [Route(r.name, r.path, None, guard=r.guard) for r in Printed(path, *options).routes()]
    with Kong(Server(tmp_path / "k.sock", shlex.join(_dump())), bare) as kong:
        for name in (MARK, MARK.lower(), f"{MARK}_", f"_{MARK}"):
            answer = kong.request("GET", "/bearer", headers=[(name, "bearer/production")])
            assert (answer.verdict, answer.status) == (Verdict.GUARDED, 503)


def _dump() -> list[str]:
    return [sys.executable, "-m", "vaultauthz", "kong", "dump"]


def test_the_folder_that_kong_was_started_from(tmp_path: Path, vault: FakeVault) -> None:
    """Is where its workers are, and what lies there is not run: it may be anybody's."""
    printed = Printed(config(vault, tmp_path, upstreams()))
    folder = tmp_path / "anybodys"
    folder.mkdir()
    for name in ("vaultauthz.py", "json.py"):
        (folder / name).write_text("raise SystemExit('not ours')")
    words = shlex.split(printed.conf["pluginserver_vaultauthz_query_cmd"])
    done = subprocess.run(words, cwd=folder, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["Plugins"][0]["Name"]) == (0, NAME)


def test_a_server_that_others_start(tmp_path: Path, vault: FakeVault) -> None:
    """No start_cmd, and the command that systemd is to run."""
    printed = Printed(config(vault, tmp_path, upstreams()), "--outside")
    assert "pluginserver_vaultauthz_start_cmd" not in printed.conf
    assert printed.status == 0


def test_what_does_not_go_with_kong(tmp_path: Path, vault: FakeVault) -> None:
    """Is told on standard error, with what to do; the status is 1."""
    claims = {**UPSTREAMS["bearer"], "callers": [{"claims": {"scope": "pay"}}]}
    path = config(vault, tmp_path, {"pay": claims}, audit={})
    path.write_text(path.read_text().replace(f"address: {vault.address}", "calls_per_second: 9"))
    printed = Printed(path, VAULT_ADDR=vault.address)
    assert printed.status == 1
    for word in ("empty environment", "audit.file", "upstreams.pay.callers"):
        assert word in printed.warnings


def test_what_the_environment_says_does_not_reach_kong(tmp_path: Path, vault: FakeVault) -> None:
    """A namespace that is only here would be another place there."""
    path = config(vault, tmp_path, upstreams())
    assert "empty environment" in Printed(path, VAULT_NAMESPACE="team").warnings
    assert "empty environment" not in Printed(path).warnings


def test_each_stage_has_a_route(tmp_path: Path, vault: FakeVault) -> None:
    """Named after both, where an upstream is in several."""
    path = config(vault, tmp_path, upstreams())
    document = yaml.safe_load(path.read_text())
    document["stages"]["no"] = document["stages"]["production"]
    path.write_text(yaml.safe_dump(document))
    names = [service["name"] for service in Printed(path).yml["services"]]
    assert set(names) == {f"{name}-{stage}" for name in NAMES for stage in ("production", "no")}
    configs = {route.name: route.config for route in Printed(path).routes()}
    assert configs["bearer-no"] == {"upstream": "bearer", "stage": "no"}


def test_the_dump(tmp_path: Path) -> None:
    """JSON and nothing else, in an empty environment; the same plugin by either server."""
    ours = json.loads(subprocess.run(_dump(), check=True, capture_output=True, env={}).stdout)
    (plugin,) = ours["Plugins"]
    named = tmp_path / f"{NAME}.py"
    named.write_bytes(PLUGIN.read_bytes())
    stock = Path(sys.executable).with_name("kong-python-pluginserver")
    command = [str(stock), "-d", str(tmp_path), "--no-lua-style", "--dump-all-plugins"]
    theirs = subprocess.run(
        command, check=True, capture_output=True, env={"PYTHONWARNINGS": "ignore"}
    )
    (same,) = json.loads(theirs.stdout)
    assert {**same, "Phases": set(same["Phases"])} == {**plugin, "Phases": set(plugin["Phases"])}
    assert plugin["Priority"] < 950
