"""The profile `kong` of docker-compose.yml at work: its files and command, in the stand-in for Kong."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.contract.faults import wait_until
from tests.contract.kong import Kong, Route, Server
from tests.contract.running import approle, fake
from tests.contract.test_compose import COMPOSE, ROOT, SERVICES
from tests.patience import PATIENCE
from vaultauthz.kong import registration

KONG: dict[str, str] = SERVICES["kong"]["environment"]
SERVE: list[str] = SERVICES["vaultauthz-kong"]["command"]


def mounted(name: str, target: str) -> Path:
    """The checkout's file that a service sees at this place."""
    (source,) = [m["source"] for m in SERVICES[name]["volumes"] if m["target"] == target]
    return ROOT / str(source)


def option(name: str) -> str:
    """What follows an option in the server's command."""
    return SERVE[SERVE.index(name) + 1]


def test_kong_is_told_of_the_plugin_as_it_is() -> None:
    """The file that stands in for `vaultauthz kong dump` is what that prints."""
    cat, file = KONG["KONG_PLUGINSERVER_VAULTAUTHZ_QUERY_CMD"].split()
    assert cat == "/bin/cat"
    assert json.loads(mounted("kong", file).read_text()) == json.loads(registration.dump())


def test_both_name_one_socket() -> None:
    """In the volume that they share, which no other service mounts."""
    assert KONG["KONG_PLUGINSERVER_VAULTAUTHZ_SOCKET"] == option("--socket")
    sharing = [
        name
        for name, service in SERVICES.items()
        if "kong-socket" in [mount["source"] for mount in service.get("volumes", [])]
    ]
    assert sorted(sharing) == ["kong", "vaultauthz-kong"]
    assert "kong-socket" in COMPOSE["volumes"]


def test_it_works(tmp_path: Path) -> None:
    """Each route of kong.yaml gets its upstream's credential from the server, started as the container starts it."""
    with fake() as vault:
        vault.set_creds("database/creds/reports-demo")
        vault.put_kv("secret/geocoder", {"api_key": "the-key"})
        path = _config(tmp_path, vault.address)
        socket = tmp_path / "kong.sock"
        words = ["-m", "vaultauthz", *SERVE[: SERVE.index("-c")], "-c", str(path)]
        dump = mounted("kong", "/etc/kong/vault-authz.json")
        server = Server(
            socket,
            f"/bin/cat {shlex.quote(str(dump))}",
            shlex.join([sys.executable, *words, "--socket", str(socket)]),
        )
        with Kong(server, _routes()) as kong:
            answer = kong.request("GET", "/geocoder", headers=[("Authorization", "mine")])
            assert answer.upstream.header("x-api-key") == "the-key"
            assert answer.upstream.header("authorization") is None
            answer = kong.request("GET", "/reports", headers=[("X-Api-Key", "mine")])
            assert str(answer.upstream.header("authorization")).startswith("Basic ")
            assert answer.upstream.header("x-api-key") is None


def _config(folder: Path, vault: str) -> Path:
    """The demo's own configuration, with another Vault and another login."""
    document: dict[str, Any] = yaml.safe_load(mounted("vaultauthz-kong", option("-c")).read_text())
    document["vault"] = {"address": vault}
    document["stages"] = {"demo": approle()}
    document["listen"] = {"admin": f"unix://{folder}/admin.sock"}
    path = folder / "c.yaml"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(document))
    return path


def _routes() -> list[Route]:
    """kong.yaml's, by path instead of by host."""
    document = yaml.safe_load(mounted("kong", KONG["KONG_DECLARATIVE_CONFIG"]).read_text())
    found = []
    for service in document["services"]:
        assert service["url"].startswith(f"http://{service['name']}:")
        (route,) = service["routes"]
        (plugin,) = route["plugins"]
        assert plugin["name"] == registration.NAME
        assert route["hosts"] == [f"{service['name']}.demo"]
        found.append(Route(route["name"], f"/{route['name']}", plugin["config"]))
    return found


def test_the_group_may_connect(tmp_path: Path) -> None:
    """`--group`: the socket is its own and its group's, nobody else's."""
    import grp
    import os

    group = grp.getgrgid(os.getgid()).gr_name
    with fake() as vault:
        path = _config(tmp_path, vault.address)
        socket = tmp_path / "kong.sock"
        ours = [sys.executable, "-m", "vaultauthz", *SERVE[: SERVE.index("-c")], "-c", str(path)]
        with subprocess.Popen(
            [*ours, "--socket", str(socket), "--group", group],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                assert wait_until(socket.exists)
                assert socket.stat().st_mode & 0o777 == 0o660
                assert socket.stat().st_gid == os.getgid()
            finally:
                server.terminate()
            assert server.wait(PATIENCE) == 0
