"""The first moments of a server: what is asked of it, or changes, while it starts is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.patience import PATIENCE
from vaultauthz.config import Config, load
from vaultauthz.kong import stock as kong_stock
from vaultauthz.service import Service
from vaultauthz.watching import Watch

TEXT = """
vault: {address: "http://127.0.0.1:1"}
stages: {prod: {auth: {method: approle, role_id: r, secret_id: "s"}}}
upstreams:
  geo: {secret: {kv: secret/geo}, inject: [{bearer: "{key}"}], callers: any}
listen: {grpc: "unix://FOLDER/grpc.sock"}
audit: {file: audit.jsonl}
"""
ANOTHER = '  map: {secret: {kv: secret/map}, inject: [{bearer: "{key}"}], callers: any}\nlisten:'
# The configuration has just been read when it happens; a reload ends the server.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from vaultauthz import cli
from vaultauthz.cli import server

path = Path(sys.argv[1])
load = server.load_config

def load_and_then(options):
    config = load(options)
    WHAT
    from vaultauthz.service import Service
    reload = Service.reload
    def reload_and_stop(service, path):
        reload(service, path)
        os.kill(os.getpid(), signal.SIGTERM)
    Service.reload = reload_and_stop
    return config

server.load_config = load_and_then
sys.exit(cli.main([*sys.argv[2:], "-c", sys.argv[1]]))
"""
HAPPENS = {
    "SIGHUP": ("os.kill(os.getpid(), signal.SIGHUP)", "reloaded: nothing has changed"),
    "a change": (
        f"path.write_text(path.read_text().replace('listen:', {ANOTHER!r}))",
        "1x upstream added",
    ),
}


@pytest.mark.parametrize("happens", HAPPENS)
@pytest.mark.parametrize("command", [("serve",), ("kong", "serve", "--socket", "k.sock")])
def test_nothing_is_lost_while_it_starts(
    tmp_path: Path, command: tuple[str, ...], happens: str
) -> None:
    """SIGHUP ends no server that is about to start, and the file is read once more."""
    path = tmp_path / "c.yaml"
    path.write_text(TEXT.replace("FOLDER", str(tmp_path)))
    what, told = HAPPENS[happens]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("WHAT", what), path, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (reloaded,) = [line for line in done.stderr.splitlines() if "reloaded: " in line]
    assert told in reloaded


def test_a_stop_in_the_moment_in_which_it_takes_its_socket(tmp_path: Path) -> None:
    """Whoever sees the socket may ask for one: it is a stop, and not the end of the process."""
    path = tmp_path / "c.yaml"
    path.write_text(TEXT.replace("FOLDER", str(tmp_path)))
    what = """from vaultauthz.kong.ownership import Ownership
    take = Ownership.take
    Ownership.take = lambda *given: (take(*given), os.kill(os.getpid(), signal.SIGTERM))"""
    done = subprocess.run(
        [
            *(sys.executable, "-c", SCRIPT.replace("WHAT", what), path),
            *("kong", "serve", "--socket", "k.sock"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "stopped; everything leased is revoked" in done.stderr
    assert not (tmp_path / "k.sock").exists()


def test_kong_s_own_server_loses_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written while the first instance starts is read again."""
    path = tmp_path / "c.yaml"
    path.write_text(TEXT.replace("FOLDER", str(tmp_path)))
    looks: SimpleQueue[bool] = SimpleQueue()

    def load_and_then(path: Path, environ: dict[str, str]) -> Config:
        config = load(path, environ)
        path.write_text(path.read_text().replace("listen:", ANOTHER))
        return config

    def look(_core: object, watch: Watch) -> None:
        looks.put(watch.changed())
        looks.put(watch.changed())

    monkeypatch.setattr(kong_stock, "load_for_kong", load_and_then)
    monkeypatch.setattr(kong_stock, "_FIRST", 0.0)
    monkeypatch.setattr(kong_stock.Core, "_watch", look)
    monkeypatch.setattr(Service, "start", lambda _: None)
    kong_stock.Core(path)
    assert [looks.get(timeout=PATIENCE) for _ in range(2)] == [False, True]
