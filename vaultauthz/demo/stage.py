"""Everything that the story needs, started in a folder of its own: OpenBao, PostgreSQL, two services, us, Envoy.

With the files that are written for them: our configuration, the Vault policy of its stage, and Envoy's
bootstrap, which is envoy/demo.yaml with this demo's own ports and files.
"""

import contextlib
import http.client
import json
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vaultauthz.demo.client import OK, GatewayClient, get_unix
from vaultauthz.demo.parts import (
    Certificate,
    Envoy,
    OpenBao,
    PartError,
    Pki,
    Postgres,
    Process,
    Upstream,
    free_port,
    geocoder,
    reports,
)
from vaultauthz.demo.parts.process import port_is_free

# What the stage's login may do, and nothing else.
POLICY = """
path "database/creds/reports-demo" { capabilities = ["read"] }
path "secret/data/geocoder"        { capabilities = ["read"] }
path "sys/leases/revoke"           { capabilities = ["update"] }
"""
_CONFIG = """\
vault:
  address: {vault}

stages:
  demo:
    auth: {{method: approle, role_id: {role_id}, secret_id_file: {folder}/secret_id}}

upstreams:
  reports:
    secret: {{path: "database/creds/reports-{{stage}}"}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    strip: [X-Api-Key]
    callers: [{{principal: "{dashboard}"}}]
  geocoder:
    secret: {{kv: {key_path}, refresh: 1s}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    strip: [Authorization]
    callers: any

routes:
  - {{host: geocoder.demo, path_prefix: /, upstream: geocoder, stage: demo}}

listen:
  grpc: unix://{folder}/grpc.sock
  admin: unix://{folder}/admin.sock

audit: {{file: {folder}/audit.jsonl}}
"""
# A checkout has it in envoy/, an installed package beside this file.
ENVOY_FILES = (
    Path(str(files("vaultauthz.demo"))) / "envoy.yaml",
    Path(__file__).parents[2] / "envoy" / "demo.yaml",
)
STAGE = "demo"
PREFERRED_PORT = 10000
HOSTS = ("reports.demo", "geocoder.demo", "unknown.demo")
DASHBOARD, INTRUDER = "spiffe://demo/dashboard", "spiffe://demo/intruder"
KEY_PATH = "secret/geocoder"
# Short enough to watch a lease renewed, and then rotated when it cannot be renewed past max_ttl.
LEASE_TTL, LEASE_MAX_TTL = "6s", "12s"


def config_text(*, vault: str, role_id: str, folder: Path, dashboard: str, key_path: str) -> str:
    """The YAML: Vault's address, the stage's login, who may use `reports`, where the key is; files are in `folder`."""
    return _CONFIG.format(
        vault=vault, role_id=role_id, folder=folder, dashboard=dashboard, key_path=key_path
    )


@dataclass(frozen=True)
class Gateway:
    """Where the gateway listens, what it shows and trusts, and where its clusters are."""

    port: int
    certificate: Certificate
    client_ca: Path
    grpc_socket: Path
    upstream_ports: dict[str, int]


def demo_bootstrap(gateway: Gateway) -> dict[str, Any]:
    """Read the demo's Envoy file and put this demo's port, certificates, socket and upstream ports into it."""
    document: dict[str, Any] = yaml.safe_load(envoy_template())
    resources = document["static_resources"]
    listener = resources["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = gateway.port
    _set_tls(
        listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"],
        gateway,
    )
    for cluster in resources["clusters"]:
        address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"][
            "address"
        ]
        if "pipe" in address:
            address["pipe"]["path"] = str(gateway.grpc_socket)
        else:
            address["socket_address"]["port_value"] = gateway.upstream_ports[cluster["name"]]
    return document


def envoy_template() -> str:
    """The text of envoy/demo.yaml. Raises PartError if the file is nowhere."""
    for file in ENVOY_FILES:
        if file.is_file():
            return file.read_text()
    raise PartError(
        f"the demo's Envoy file is missing; looked for it at {' and '.join(map(str, ENVOY_FILES))}"
    )


def _set_tls(context: dict[str, Any], gateway: Gateway) -> None:
    served = context["tls_certificates"][0]
    served["certificate_chain"]["filename"] = str(gateway.certificate.cert)
    served["private_key"]["filename"] = str(gateway.certificate.key)
    context["validation_context"]["trusted_ca"]["filename"] = str(gateway.client_ca)


class DemoStage:
    """The parts and how to reach them: `set_up` starts them in order, `tear_down` stops them in the reverse order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bao = OpenBao(folder / "openbao")
        self.postgres = Postgres(folder / "postgres")
        self.valid_keys: set[str] = set()
        self.reports = Upstream(reports(self.postgres))
        self.geocoder = Upstream(geocoder(lambda: self.valid_keys))
        self.config = folder / "vaultauthz.yaml"
        self.serve = Process(
            [sys.executable, "-m", "vaultauthz", "serve", "-c", self.config],
            folder / "vaultauthz.log",
            # What it keeps of logins for its next start stays inside, too.
            env=os.environ | {"RUNTIME_DIRECTORY": str(folder)},
        )
        self.serve.name = "vaultauthz serve"
        self.port = PREFERRED_PORT
        self._parts = contextlib.ExitStack()

    def set_up(self, started: Callable[[str, str], object]) -> None:
        """Start the parts; `started(name, what)` is told of each. Raises PartError."""
        self._parts.enter_context(self.bao)
        started("OpenBao", f"the vault, at {self.bao.address}, with an audit log")
        self._parts.enter_context(self.postgres)
        started("PostgreSQL", f"the database, at {self.postgres.address}")
        self._parts.enter_context(self.reports)
        started("reports", "a service that opens PostgreSQL with the Basic login it gets")
        self._parts.enter_context(self.geocoder)
        started("geocoder", "a service that wants an X-Api-Key")
        self._lay_out()
        self._parts.callback(self.serve.terminate)
        self.serve.start()
        self.serve.wait_until(self.ready)
        started("vaultauthz", "vaultauthz serve -c vaultauthz.yaml, a process of its own")
        if not port_is_free(PREFERRED_PORT):
            self.port = free_port()
            started("", f"Port {PREFERRED_PORT} is taken, so the gateway listens on {self.port}.")
        self._start_envoy()
        started("Envoy", f"the gateway, at https://127.0.0.1:{self.port}, from envoy/demo.yaml")

    def tear_down(self) -> None:
        """Stop every part that was started, the last one first."""
        self._parts.close()

    def ready(self) -> bool:
        """Whether vaultauthz says that it has every credential."""
        try:
            return get_unix(self.folder / "admin.sock", "/readyz").status == OK
        except (OSError, http.client.HTTPException):
            return False

    def client(self, host: str, certificate: Certificate | None = None) -> GatewayClient:
        """A client of the gateway for one host name."""
        return GatewayClient(host, self.port, self.ca, certificate)

    def dashboard(self) -> GatewayClient:
        """The caller that the configuration allows to use `reports`."""
        return self.client("reports.demo", self.dashboard_certificate)

    def new_key(self) -> str:
        """Write a new key for the geocoder to Vault; the service takes it from now on, beside those before."""
        key = secrets.token_urlsafe(18)
        self.valid_keys.add(key)
        self.bao.put_kv(KEY_PATH, {"api_key": key})
        return key

    def retire_keys_but(self, key: str) -> None:
        """From now on the geocoder takes this key only."""
        self.valid_keys.intersection_update({key})

    def audit(self) -> list[dict[str, Any]]:
        """The lines of our own audit log, oldest first."""
        path = self.folder / "audit.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def _lay_out(self) -> None:
        pki = self.bao.pki()
        self._issue_certificates(pki)
        self.bao.database(
            self.postgres, f"reports-{STAGE}", default_ttl=LEASE_TTL, max_ttl=LEASE_MAX_TTL
        )
        self.new_key()
        role_id, secret_id = self.bao.enable_approle(STAGE, POLICY)
        write_private(self.folder / "secret_id", secret_id)
        write_private(self.folder / "root_token", self.bao.root_token)
        self.config.write_text(
            config_text(
                vault=self.bao.address,
                role_id=role_id,
                folder=self.folder,
                dashboard=DASHBOARD,
                key_path=KEY_PATH,
            )
        )

    def _issue_certificates(self, pki: Pki) -> None:
        self.ca = pki.ca(self.folder)
        self.server_certificate = pki.issue_server(self.folder, *HOSTS)
        self.dashboard_certificate = pki.issue_client(self.folder, DASHBOARD)
        self.intruder_certificate = pki.issue_client(self.folder, INTRUDER)

    def _start_envoy(self) -> None:
        ports = {"reports": self.reports.port, "geocoder": self.geocoder.port}
        gateway = Gateway(
            self.port, self.server_certificate, self.ca, self.folder / "grpc.sock", ports
        )
        self.envoy = Envoy(demo_bootstrap(gateway), self.folder / "envoy")
        try:
            self._parts.enter_context(self.envoy)
        except PartError as error:
            raise PartError(
                f"Envoy cannot start, or cannot listen on port {self.port}: {error}"
            ) from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text)
