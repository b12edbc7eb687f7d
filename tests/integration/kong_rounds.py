"""Reloads and stops of Kong under load, with a real OpenBao and PostgreSQL: what is lost, left and not written.

    python -m tests.integration.kong_rounds --rounds 10

prints the figures of ten reloads and ten stops, for each way of starting our server.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hvac.exceptions import InvalidPath, VaultError

from tests.contract.kong import Kong, Received, Server, Settings
from tests.contract.kong.process import wait_until
from tests.contract.kong_bed import OURS, audit, our_server, outside, routes, server_pid
from tests.contract.kong_load import Load
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, Postgres

STAGE = "kong-rounds"
LEASES = f"database/creds/{STAGE}"
POLICY = f"""
path "rounds/*" {{ capabilities = ["read"] }}
path "{LEASES}" {{ capabilities = ["read"] }}
"""
NAMES = ("pay", "geo")
KONG, OUTSIDE = "started by Kong", "managed from outside"
_SETTINGS = Settings(timeout=PATIENCE, respawn=1.0)
_LOAD = 150  # requests between two events


@dataclass
class Figures:
    """What became of the requests, and what was left in Vault after each stop.

    ``lost`` did not go on, ``wrong`` did with a wrong credential, ``unwritten`` have no line in the
    audit log or more than one. ``took`` are seconds from the stop until Vault had none of ours any more.
    """

    way: str
    requests: int = 0
    reloads: int = 0
    lost: int = 0
    wrong: int = 0
    unwritten: int = 0
    chains: int = 0  # that have a gap
    took: list[float] | None = None

    def __str__(self) -> str:
        took = self.took or [0.0]
        return (
            f"{self.way}: {self.requests} requests proxied, {self.reloads} reloads, {len(took)} stops; "
            f"{self.lost} lost, {self.wrong} with a wrong credential, {self.unwritten} without their one audit "
            f"line, {self.chains} audit logs with a gap; everything revoked {max(took):.1f} s after a stop at most"
        )


class Bed:
    """The servers behind, laid out once."""

    def __init__(self, bao: OpenBao, postgres: Postgres) -> None:
        self.bao = bao
        bao.put_kv("rounds/geo", {"key": "geo"})
        bao.database(postgres, STAGE, default_ttl="1h", max_ttl="2h")
        self._login = bao.enable_approle(STAGE, POLICY)

    def configuration(self, folder: Path) -> Path:
        """A file for a server in this folder."""
        role_id, secret_id = self._login
        (folder / "secret_id").touch(0o600)
        (folder / "secret_id").write_text(secret_id)
        login = {"username": "{username}", "password": "{password}"}
        auth = {"method": "approle", "role_id": role_id, "secret_id_file": "secret_id"}
        geo = {"kv": "rounds/geo"}
        document = {
            "vault": {"address": self.bao.address},
            "stages": {"production": {"auth": auth}},
            "upstreams": {
                "pay": {"secret": {"path": LEASES}, "inject": [{"basic": login}], "callers": "any"},
                "geo": {"secret": geo, "inject": [{"bearer": "{key}"}], "callers": "any"},
            },
            "audit": {"file": "audit.jsonl"},
        }
        path = folder / "c.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def left(self) -> int:
        """How many tokens and leases of ours are alive in Vault."""
        client = self.bao.client()
        try:
            leases = client.sys.list_leases(LEASES)["data"]["keys"]
        except InvalidPath:
            leases = []
        return len(leases) + sum(
            map(self._is_ours, client.auth.token.list_accessors()["data"]["keys"])
        )

    def _is_ours(self, accessor: str) -> bool:
        try:
            told: Any = self.bao.client().auth.token.lookup_accessor(accessor)
        except VaultError:
            return False  # it has just ended
        return STAGE in told["data"]["policies"]


def right(received: Received, name: str) -> bool:
    """A login of the database's for the one, the token for the other."""
    (value,) = received.values("authorization")
    if name == "geo":
        return value == "Bearer geo"
    return base64.b64decode(value.removeprefix("Basic ")).decode().startswith("v-")


def rounds(bed: Bed, folder: Path, way: str, count: int) -> Figures:
    """So many times: start, load, reload, load, stop under load, and see what is left in Vault."""
    found = Figures(way, took=[])
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        _round(bed, place, number, found)
    return found


def _round(bed: Bed, folder: Path, number: int, found: Figures) -> None:
    path = bed.configuration(folder)
    server, process = _started(found.way, folder, path)
    kong = Kong(server, routes(NAMES), settings=_SETTINGS)
    kong.supervisor.start()
    kong.wait_for_server()
    with Load(kong, threads=8, right=right) as load:
        load.see(_LOAD)
        if found.way == KONG and number % 2:  # every other time another server takes over
            kong.server = our_server(folder, path, "--log-level", "debug")
        before = server_pid(folder)
        kong.reload(overlap=2)
        if kong.server is not server:
            wait_until(lambda: server_pid(folder) not in {0, before}, "another has taken over")
        load.see(_LOAD)
        found.reloads += 1
        found.lost += len(load.others)
        stopped_at = time.monotonic()
        if process is not None:
            process.terminate()
        kong.stop()
        wait_until(lambda: not bed.left(), "everything is revoked")
        assert found.took is not None
        found.took.append(time.monotonic() - stopped_at)
    if process is not None:
        assert process.wait(PATIENCE) == 0
    for worker in kong.workers:
        worker.drained(PATIENCE)
        worker.pool.close()
    wait_until(lambda: not server_pid(folder), "the server has ended")
    _judge(folder, load, found)


def _started(way: str, folder: Path, path: Path) -> tuple[Server, subprocess.Popen[bytes] | None]:
    if way == KONG:
        return our_server(folder, path), None
    started = outside(OURS, folder, path)
    return started.server, started.process


def _judge(folder: Path, load: Load, found: Figures) -> None:
    lines = audit(folder)
    told = [line["request_id"] for line in lines if line["event"] == "request.allowed"]
    known = set(told)
    found.requests += len(load.proxied)
    found.wrong += len(load.wrong)
    found.unwritten += sum(one not in known for one in load.proxied) + len(told) - len(known)
    found.chains += [line["seq"] for line in lines] != list(range(1, len(lines) + 1))


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Bed]:
    """An OpenBao and a PostgreSQL for them."""
    with OpenBao(folder / "bao") as bao, Postgres(folder / "postgres") as postgres:
        yield Bed(bao, postgres)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("bao", "postgres", "k", "o"):
            (folder / part).mkdir()
        with servers(folder) as bed:
            for place, way in (("k", KONG), ("o", OUTSIDE)):
                sys.stdout.write(f"{rounds(bed, folder / place, way, asked.rounds)}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
