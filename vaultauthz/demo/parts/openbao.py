"""OpenBao: the life of one server, and what the demo and the tests want laid out in it.

Its storage survives stop and start, and its audit log is a file.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hvac
import requests
from hvac.exceptions import InvalidRequest

from vaultauthz.demo.parts import binaries
from vaultauthz.demo.parts.pki import Pki
from vaultauthz.demo.parts.postgres import DATABASE, Postgres
from vaultauthz.demo.parts.process import PartError, Process, free_port, wait_for

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
CREATE_LOGIN = """
CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
GRANT SELECT ON reports TO "{{name}}";
"""
# The open sessions first: PostgreSQL lets a session live on after its role is gone.
DROP_LOGIN = """
ALTER ROLE "{{name}}" NOLOGIN;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
REASSIGN OWNED BY "{{name}}" TO postgres;
DROP OWNED BY "{{name}}";
DROP ROLE "{{name}}";
"""
CONNECTION = "postgres"
KV2, KV_SECONDS = "kv-v2", 10


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


class OpenBao(BaoServer):
    """An OpenBao server whose methods enable an engine when it is first needed; TTLs are Vault durations (`20s`)."""

    def enable_approle(
        self,
        stage: str,
        policy_hcl: str,
        *,
        token_ttl: str = "1h",  # noqa: S107  # a duration
        token_max_ttl: str = "24h",  # noqa: S107  # a duration
    ) -> tuple[str, str]:
        """A policy and an AppRole, both named after the stage; its role_id and a secret_id that lasts."""
        client = self.client()
        self._enable_auth("approle")
        client.sys.create_or_update_policy(stage, policy_hcl)
        client.auth.approle.create_or_update_approle(
            stage, token_policies=[stage], token_ttl=token_ttl, token_max_ttl=token_max_ttl
        )
        role_id = client.auth.approle.read_role_id(stage)["data"]["role_id"]
        secret_id = client.auth.approle.generate_secret_id(stage)["data"]["secret_id"]
        return str(role_id), str(secret_id)

    def put_kv(self, path: str, fields: dict[str, Any]) -> int:
        """Write a new version to KV v2; `path` begins with the mount (`secret/geocoder`). The version's number."""
        mount, _, name = path.partition("/")
        self.enable_engine(mount, KV2)
        written = self.client().secrets.kv.v2.create_or_update_secret(
            name, fields, mount_point=mount
        )
        return int(written["data"]["version"])

    def database(
        self, postgres: Postgres, role_name: str, *, default_ttl: str, max_ttl: str
    ) -> str:
        """A role of the database engine whose logins may read `reports`; the path that issues one."""
        self.enable_engine("database", "database")
        database = self.client().secrets.database
        database.configure(
            CONNECTION,
            "postgresql-database-plugin",
            allowed_roles=["*"],
            connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.address}/{DATABASE}?sslmode=disable",
            username=postgres.superuser,
            password=postgres.password,
        )
        database.create_role(
            role_name,
            CONNECTION,
            creation_statements=[CREATE_LOGIN],
            revocation_statements=[DROP_LOGIN],
            default_ttl=default_ttl,
            max_ttl=max_ttl,
        )
        return f"database/creds/{role_name}"

    def pki(self, mount: str = "pki") -> Pki:
        """A certificate authority of its own, made when the mount is new."""
        if self.enable_engine(mount, "pki"):
            return Pki.create(self.client(), mount)
        return Pki(self.client(), mount)

    def enable_engine(self, mount: str, engine: str) -> bool:
        """Enable a secrets engine at the mount (`kv-v2` is KV version 2); False if the mount is there already."""
        client = self.client()
        if f"{mount}/" in client.sys.list_mounted_secrets_engines()["data"]:
            return False
        kind, _, version = engine.partition("-v")
        client.sys.enable_secrets_engine(
            kind, path=mount, options={"version": version} if version else None
        )
        if engine == KV2:
            wait_for(lambda: self._kv_answers(mount), KV_SECONDS)
        return True

    def _kv_answers(self, mount: str) -> bool:
        # A new KV v2 upgrades itself first, and answers 400 to everything until it has.
        try:
            self.client().secrets.kv.v2.read_configuration(mount_point=mount)
        except InvalidRequest:
            return False
        return True

    def _enable_auth(self, method: str) -> None:
        client = self.client()
        if f"{method}/" not in client.sys.list_auth_methods()["data"]:
            client.sys.enable_auth_method(method)
