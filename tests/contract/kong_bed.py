"""The plugin at work in a Kong: a fake Vault, a configuration, and either plugin server in the stand-in."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.kong import Guard, Kong, Route, Server, Settings, stock_server
from tests.contract.running import approle, database, fake, kv
from vaultauthz.kong.ownership import holder
from vaultauthz.kong.registration import MARK, mark_of

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "kong_plugin" / "vault_authz.py"
OURS, STOCK = "ours", "stock"


def inject(name: str, *forms: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An upstream whose secret is the key ``secret/NAME``, put in these places."""
    return kv(name, inject=list(forms), **more)


UPSTREAMS: dict[str, dict[str, Any]] = {
    "pay": database("pay"),
    "geo": kv("one"),
    "bearer": inject("one", {"bearer": "{key}"}),
    "query": inject(
        "two", {"query": {"name": "key", "value": "{key}"}}, kong_query_in_logs="accepted"
    ),
    "cookie": inject("two", {"cookie": {"name": "sid", "value": "{key}"}}),
    "strict": inject("one", {"bearer": "{key}"}, strip=["X-Debug-Key"]),
    "shop": inject("one", {"bearer": "{key}"}, callers=[{"consumer": "shop"}]),
    "anyone": inject("one", {"bearer": "{key}"}, callers=[{"consumer": "*"}]),
    "staff": inject("one", {"bearer": "{key}"}, callers=[{"group": "staff"}]),
    "reads": inject("one", {"bearer": "{key}"}, callers=[{"methods": ["GET"]}]),
    "v1": inject("one", {"bearer": "{key}"}, callers=[{"path_prefix": "/v1/v1"}]),
    "long": inject("one", {"header": {"name": "X-A-Long-Api-Key", "value": "{key}"}}),
    "open": inject("one", {"bearer": "{key}"}, deny=[{"path_prefix": "/open/admin"}]),
    "empty": inject("nothing", {"bearer": "{key}"}, optional=True),
    "own": database("pay", per="caller"),
}


def config(
    vault: FakeVault, folder: Path, upstreams: Mapping[str, Any] | None = None, **more: Any
) -> Path:
    """A configuration file for these upstreams; it has its audit log and admin socket in ``folder``."""
    document = {
        "vault": {"address": vault.address, "timeout": "60s"},
        "stages": {"production": approle()},
        "upstreams": dict(UPSTREAMS if upstreams is None else upstreams),
        "audit": {"file": str(folder / "audit.jsonl")},
        "listen": {"admin": f"unix://{folder}/admin.sock"},
        **more,
    }
    path = folder / "c.yaml"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(document))
    return path


OUR_KONG = [sys.executable, "-P", "-m", "vaultauthz", "kong"]


def serve(folder: Path, path: Path, *options: str) -> list[str]:
    """`vaultauthz kong serve`, as somebody else than Kong starts it."""
    return [*OUR_KONG, "serve", "-c", str(path), "--socket", str(folder / "k.sock"), *options]


def our_server(folder: Path, path: Path, *options: str) -> Server:
    """`vaultauthz kong serve --child`, as Kong starts it."""
    return Server(
        folder / "k.sock",
        shlex.join([*OUR_KONG, "dump"]),
        shlex.join(serve(folder, path, "--child", *options)),
        process=lambda: server_pid(folder),
    )


def started(folder: Path) -> int:
    """How many servers the supervisors there have started so far."""
    return words(folder).count("the server is started")


def words(folder: Path) -> str:
    """The log file of a server that Kong has started, so far."""
    path = folder / "k.sock.log"
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Outside:
    """A server that something else than Kong has started, and what Kong is told of it."""

    server: Server
    process: subprocess.Popen[bytes]


def outside(
    kind: str, folder: Path, path: Path, environment: Mapping[str, str] | None = None
) -> Outside:
    """Either server, started by the test; somebody has to end it."""
    known = server_of(kind, folder, path)
    command = shlex.join(serve(folder, path)) if kind == OURS else str(known.start_cmd)
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command}"],
        env={**known.environment, **(environment or {})},
        stdout=quiet,
        stderr=quiet,
    )
    return Outside(Server(known.socket, known.query_cmd), process)


def server_pid(folder: Path) -> int:
    """The process that serves there; 0 for none."""
    with contextlib.suppress(FileNotFoundError):
        found = holder(folder / "k.sock")
        return found.pid if found else 0
    return 0


def their_server(folder: Path, path: Path) -> Server:
    """kong-python-pluginserver with our plugin's file."""
    named = folder / "vault-authz.py"
    shutil.copy(PLUGIN, named)
    return stock_server(folder / "s", named, environment={"VAULTAUTHZ_CONFIG": str(path)})


def server_of(kind: str, folder: Path, path: Path) -> Server:
    """Either."""
    return our_server(folder, path) if kind == OURS else their_server(folder, path)


def routes(names: Sequence[str], kind: str = OURS) -> list[Route]:
    """A route /NAME for each upstream; with the guard for the stock server."""
    return [
        Route(
            name,
            f"/{name}",
            {"upstream": name},
            guard=Guard(marks={MARK: mark_of(name, "")}) if kind == STOCK else None,
        )
        for name in names
    ]


@contextlib.contextmanager
def kong_of(
    kind: str,
    folder: Path,
    *,
    upstreams: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    **more: Any,
) -> Iterator[tuple[Kong, FakeVault]]:
    """A Kong with a route for each upstream, and the Vault behind it; each credential is there."""
    with fake() as vault:
        path = config(vault, folder, upstreams, **more)
        names = list(UPSTREAMS if upstreams is None else upstreams)
        server = server_of(kind, folder, path)
        with Kong(server, routes(names, kind), settings=settings) as kong:
            yield kong, vault


def audit(folder: Path, event: str = "", **values: str) -> list[dict[str, Any]]:
    """The lines of the audit log so far, or those of one event and with these values."""
    wanted = values | ({"event": event} if event else {})
    path = folder / "audit.jsonl"
    whole = path.read_text().splitlines(keepends=True) if path.exists() else []
    lines = [json.loads(line) for line in whole if line.endswith("\n")]
    return [line for line in lines if wanted.items() <= line.items()]


def audited(folder: Path, event: str, **values: str) -> dict[str, Any]:
    """The last such line, once there is one."""
    assert wait_until(lambda: bool(audit(folder, event, **values))), audit(folder)
    return audit(folder, event, **values)[-1]
