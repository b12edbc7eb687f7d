"""The life of one OpenBao or Vault server: its storage survives stop and start, and its audit log is a file."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hvac
import requests

from vaultauthz.demo.parts import binaries
from vaultauthz.demo.parts.process import PartError, Process, free_port

# Raft, because it is the one storage that both lasts and is in OpenBao 2.7 (`file` is gone from it).
# A performance_multiplier of 1 makes a lone node its own leader in a tenth of a second instead of five to ten.
CONFIG = """\
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
ui = false

storage "raft" {{
  path = "{folder}/data"
  node_id = "only"
  performance_multiplier = 1
}}

listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable = true
}}
"""
# Declared, because OpenBao takes none through its API. HashiCorp's Vault takes none but by that.
AUDIT = """
audit "file" "file" {{
  options {{
    file_path = "{folder}/audit.jsonl"
  }}
}}
"""
# Which HashiCorp's Vault wants to be said beside raft (since 1.20), and OpenBao has done away with.
MLOCK = """
disable_mlock = true
"""
# https://openbao.org/api-docs/system/health: what the health endpoint answers for each state.
ACTIVE, NOT_INITIALIZED, SEALED = 200, 501, 503
CORRELATION_HEADER = "X-Correlation-Id"


class BaoServer:
    """One OpenBao server with one unseal key, initialized and unsealed by the first `start`.

    Or HashiCorp's Vault, where $VAULTAUTHZ_TEST_VAULT names one.
    `stop`, `kill` and `start` keep its state, its port and the root token. Not dev mode: that forgets everything.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.root_token = ""
        self.audit_path = folder / "audit.jsonl"
        self._unseal_key = ""
        self._folder = folder
        self._process: Process | None = None

    def start(self) -> None:
        """Start and unseal it; the first time also initialize it. Raises PartError."""
        if self._process is None:
            self._process = self._prepare()
        self._process.start()
        self._process.wait_until(lambda: self._health() is not None)
        if not self.root_token:
            self._initialize()
        else:
            self.unseal()

    def stop(self) -> None:
        """Stop it in order (SIGTERM; about a second)."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        if self._process:
            self._process.kill()

    def restart(self) -> None:
        """Stop it, start it, unseal it: same state, same port."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Freeze it: connections open and nothing answers."""
        if self._process:
            self._process.suspend()

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        if self._process:
            self._process.resume()

    def seal(self) -> None:
        """Seal it: it runs, and answers 503 to everything."""
        self.client().sys.seal()

    def unseal(self) -> None:
        """Unseal it and wait until it serves requests. Raises PartError."""
        self.client().sys.submit_unseal_key(self._unseal_key)
        self._wait_active()

    def client(self, token: str | None = None) -> Any:
        """An `hvac.Client` with the root token, or with another one; it waits 10 s and follows no redirects.

        Typed as Any: hvac has no types, and the stubs for it leave out most of what is used here.
        """
        return hvac.Client(
            self.address, token=token or self.root_token, timeout=10, allow_redirects=False
        )

    def audit_entries(self) -> list[dict[str, Any]]:
        """Vault's audit log: one entry per request and one per response, oldest first."""
        lines = self.audit_path.read_bytes().splitlines(keepends=True)
        # The last line may be half written.
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def _prepare(self) -> Process:
        binary = binaries.vault()
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        config = self._folder / "config.hcl"
        text = CONFIG + (MLOCK if binary.hashicorps else AUDIT)
        config.write_text(
            text.format(port=self.port, cluster_port=free_port(), folder=self._folder)
        )
        # Without the caller's VAULT_* and BAO_* variables, which override the file.
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("VAULT_", "BAO_"))
        }
        return Process(
            [binary.path, "server", "-config", config], self._folder / "bao.log", env=env
        )

    def _initialize(self) -> None:
        keys = self.client().sys.initialize(secret_shares=1, secret_threshold=1)
        self._unseal_key, self.root_token = keys["keys"][0], keys["root_token"]
        self.unseal()
        if binaries.vault().hashicorps:
            self.client().sys.enable_audit_device(
                "file", options={"file_path": str(self.audit_path)}
            )
        # In clear, so that our log and Vault's can be joined by it.
        self.client().write_data(
            f"sys/config/auditing/request-headers/{CORRELATION_HEADER}", data={"hmac": False}
        )

    def _wait_active(self) -> None:
        if self._process is None:
            raise PartError("bao was never started")
        self._process.wait_until(lambda: self._health() == ACTIVE)

    def _health(self) -> int | None:
        try:
            return requests.get(f"{self.address}/v1/sys/health", timeout=2).status_code
        except requests.RequestException:
            return None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
