"""A cluster of OpenBao servers on this machine: one raft storage, any node can lead it."""

from __future__ import annotations

import os
from pathlib import Path

import requests

from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, binaries
from vaultauthz.demo.parts.openbao import MLOCK
from vaultauthz.demo.parts.process import Process, free_port, wait_for

CONFIG = """\
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
ui = false

storage "raft" {{
  path = "{folder}/data"
  node_id = "{folder}"
  performance_multiplier = 1
  retry_join {{
    leader_api_addr = "{leader}"
  }}
}}

listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable = true
}}
"""
ACTIVE, STANDBY, SEALED = 200, 429, 503  # what sys/health answers


class Follower:
    """A node that has joined ``first``'s cluster."""

    def __init__(self, first: OpenBao, folder: Path) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._first = first
        (folder / "data").mkdir(parents=True)
        config = folder / "config.hcl"
        binary = binaries.vault()
        text = CONFIG + (MLOCK if binary.hashicorps else "")
        config.write_text(
            text.format(port=port, cluster_port=free_port(), folder=folder, leader=first.address)
        )
        env = {k: v for k, v in os.environ.items() if not k.startswith(("VAULT_", "BAO_"))}
        argv: list[str | Path] = [binary.path, "server", "-config", config]
        self._process = Process(argv, folder / "bao.log", env=env)

    def start(self) -> None:
        """Start it; it asks the leader to let it join."""
        self._process.start()

    def unsealed(self) -> bool:
        """Try to unseal it; it cannot be before it has joined."""
        try:
            key = {"key": self._first._unseal_key}
            answer = requests.put(f"{self.address}/v1/sys/unseal", json=key, timeout=PATIENCE)
            return answer.ok and self.health() in (ACTIVE, STANDBY)
        except requests.ConnectionError:
            return False

    def seal(self) -> None:
        """Seal this node alone."""
        if binaries.vault().hashicorps:  # which seals no standby, and says: restart instead
            self._process.kill()
            self._process.start()
            self._process.wait_until(lambda: self.health() == SEALED)
            return
        token = {"X-Vault-Token": self._first.root_token}
        requests.put(
            f"{self.address}/v1/sys/seal", headers=token, timeout=PATIENCE
        ).raise_for_status()
        self._process.wait_until(lambda: self.health() == SEALED)

    def health(self) -> int | None:
        """The status of sys/health; None while it is not up."""
        try:
            return requests.get(f"{self.address}/v1/sys/health", timeout=PATIENCE).status_code
        except requests.RequestException:
            return None

    def stop(self) -> None:
        """End it."""
        self._process.kill()


def join(first: OpenBao, folder: Path, names: str) -> list[Follower]:
    """Nodes that have joined, with a vote each; in some ten seconds, most of them raft's own patience."""
    first.client().write_data(
        "sys/storage/raft/autopilot/configuration", data={"server_stabilization_time": "1s"}
    )
    nodes = [Follower(first, folder / name) for name in names]
    for node in nodes:
        node.start()
    # A list, so that each is tried in each round.
    assert wait_for(lambda: all([node.unsealed() for node in nodes]), PATIENCE)  # noqa: C419
    assert wait_for(lambda: _votes(first) == 1 + len(nodes), PATIENCE)
    return nodes


def _votes(first: OpenBao) -> int:
    found = first.client().read("sys/storage/raft/configuration")["data"]["config"]["servers"]
    return sum(server["voter"] for server in found)
