"""A whole server in this process, with access logs, behind one Envoy that works in both modes."""

from __future__ import annotations

import contextlib
import http.client
import json
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest
import yaml

from tests.integration.gateway_bed import FLUSH
from tests.patience import PATIENCE
from vaultauthz import service as service_module
from vaultauthz.config.load import parse
from vaultauthz.config.values import Config
from vaultauthz.core.pace import Pace
from vaultauthz.demo.parts import (
    Envoy,
    OpenBao,
    Postgres,
    Seen,
    Upstream,
    free_port,
    reports,
    wait_for,
)
from vaultauthz.demo.parts.upstreams import Answer
from vaultauthz.engine import Engine
from vaultauthz.envoy.door import EnvoyDoor
from vaultauthz.envoy_config.access_logs import access_logs
from vaultauthz.envoy_config.plan import Plan
from vaultauthz.service import Service

STAGE: Final = "production"
GAP: Final = 2.0  # seconds between two rotations for a 401; 30 in production
TYPES: Final = "type.googleapis.com/envoy."
POLICY: Final = """
path "database/creds/als" { capabilities = ["read"] }
path "als/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""
CONFIG: Final = """
vault: {{address: "{vault}", timeout: 20s}}
stages: {{production: {{auth: {{method: approle, role_id: {role}, secret_id_file: {folder}/secret_id}}}}}}
upstreams:
  reports:
    secret: {{path: database/creds/als}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    callers: any
  keyed:
    secret: {{kv: als/keyed, refresh: 1h}}
    inject: &key [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: any
  never: {{secret: {{kv: als/never, refresh: 1h}}, inject: *key, callers: any}}
  injected: {{secret: {{kv: als/injected, refresh: 1h}}, inject: *key, callers: any}}
  missing: {{secret: {{kv: als/missing}}, inject: *key, callers: any, optional: true}}
listen: {{grpc: "unix://{folder}/grpc.sock", admin: "unix://{folder}/admin.sock"}}
audit: {{file: {folder}/audit.jsonl{access_log}}}
"""
# Into `audit`.
ACCESS_LOG: Final = ", access_log: {folder}/access.jsonl"


class KeyedService:
    """Answers 200 to one X-Api-Key and 401 to others, and writes down who came with which."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.came: dict[str, str] = {}  # X-Request-Id → key

    def answer(self, seen: Seen) -> Answer:
        """As every service here answers."""
        (key,) = seen.all("x-api-key") or [""]
        (request_id,) = seen.all("x-request-id")
        self.came[request_id] = key
        return (200 if key == self.key else 401), {"id": request_id}


class AlsBed:
    """Enter it to start everything; upstreams are asked for by the first segment of the path.

    ``by_file``: Envoy's access log is the file that `vaultauthz envoy` prints, beside 401s over gRPC.
    """

    def __init__(
        self, folder: Path, bao: OpenBao, postgres: Postgres, *, by_file: bool = False
    ) -> None:
        self.folder, self.bao, self.postgres = folder, bao, postgres
        self.keyed, self.injected = KeyedService("key-1"), KeyedService("key-1")
        self.never = KeyedService("no such key")
        for name in ("keyed", "never", "injected"):
            bao.put_kv(f"als/{name}", {"api_key": "key-1"})
        bao.database(postgres, "als", default_ttl="1h", max_ttl="2h")
        role, secret_id = bao.enable_approle("als", POLICY)
        (folder / "secret_id").touch(0o600)
        (folder / "secret_id").write_text(secret_id)
        access_log = ACCESS_LOG.format(folder=folder) if by_file else ""
        text = CONFIG.format(vault=bao.address, role=role, folder=folder, access_log=access_log)
        config = parse(text, "als.yaml", folder, {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                service_module, "Engine", partial(Engine, pace=Pace(rejected_gap=GAP, drain=5.0))
            )
            self.service = Service(config, EnvoyDoor)
        services = {
            "reports": reports(postgres),
            "keyed": self.keyed.answer,
            "never": self.never.answer,
            "injected": self.injected.answer,
        }
        self._upstreams = {name: Upstream(answer) for name, answer in services.items()}
        self.port = free_port()
        ports = {name: upstream.port for name, upstream in self._upstreams.items()}
        logs = printed_logs(config) if by_file else [_access_log()]
        made = bootstrap(folder / "grpc.sock", self.port, ports, logs)
        self.envoy = Envoy(made, folder / "envoy", options=FLUSH)
        self._parts = contextlib.ExitStack()

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """GET through Envoy: the status, and the body if it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, {}

    def credential_id(self, upstream: str) -> str:
        """That of the credential in use."""
        found = self.service.engine.shared(STAGE, upstream)
        assert found
        assert found[1].credential
        return found[1].credential.credential_id

    def key(self, upstream: str) -> str:
        """The key that we would put on a request now."""
        found = self.service.engine.shared(STAGE, upstream)
        return found[1].credential.mutation.headers[0][1] if found and found[1].credential else ""

    def audit(self, event: str = "", **values: str) -> list[dict[str, Any]]:
        """The audit lines so far, or those of one event and with these values."""
        wanted = values | ({"event": event} if event else {})
        lines = (self.folder / "audit.jsonl").read_text().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in whole if wanted.items() <= line.items()]

    def audited(self, event: str, **values: str) -> list[dict[str, Any]]:
        """The same, once there is one."""
        assert wait_for(lambda: bool(self.audit(event, **values)), PATIENCE), self.audit(event)
        return self.audit(event, **values)

    def count(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        lines = self.service.metrics.text().splitlines()
        ours = [line for line in lines if line.startswith(f"{name}{{")]
        return sum(
            float(line.rpartition(" ")[2]) for line in ours if all(one in line for one in wanted)
        )

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            for upstream in self._upstreams.values():
                parts.enter_context(upstream)
            parts.callback(self.service.stop)
            self.service.start()
            assert wait_for(lambda: self.service.engine.ready, PATIENCE)
            parts.callback(self.envoy.kill)
            self.envoy.start()
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parts.close()


# --- Envoy's configuration ---


def _typed(name: str, kind: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": TYPES + kind, **values}}


def printed_logs(config: Config) -> list[dict[str, Any]]:
    """What `vaultauthz envoy` prints for SDS mode, for this bed's Envoy."""
    text = access_logs(Plan.of(config), snippet=True)
    logs: list[dict[str, Any]] = yaml.safe_load(text.replace("gateway/gateway-1", "edge/als-1"))
    return logs


def _access_log() -> dict[str, Any]:
    """What `vaultauthz envoy` prints for SDS mode; it serves ext_authz mode too."""

    def tag(kind: str, prefix: str, key: str) -> dict[str, Any]:
        found = {"key": "vaultauthz", "path": [{"key": key}]}
        metadata = {"kind": {kind: {}}, "metadata_key": found}
        return {"tag": f"vaultauthz.{prefix}{key}", "metadata": metadata}

    tags = [
        tag(kind, prefix, key)
        for kind, prefix in (("cluster", ""), ("route", "route."))
        for key in ("upstream", "stage")
    ]
    common: dict[str, Any] = {
        "log_name": "vaultauthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "vaultauthz_logs"}},
        "buffer_flush_interval": "0.2s",
        "buffer_size_bytes": 65536,
        "custom_tags": tags,
    }
    return _typed(
        "envoy.access_loggers.http_grpc",
        "extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        common_config=common,
    )


def _ext_authz() -> dict[str, Any]:
    service = {"timeout": "20s", "envoy_grpc": {"cluster_name": "vaultauthz"}}
    kind = "extensions.filters.http.ext_authz.v3.ExtAuthz"
    return _typed(
        "envoy.filters.http.ext_authz", kind, transport_api_version="V3", grpc_service=service
    )


def _rbac() -> dict[str, Any]:
    """Refuses everything below a path that ends with /forbidden."""
    path = {"header": {"name": ":path", "string_match": {"suffix": "/forbidden"}}}
    rule = {"permissions": [path], "principals": [{"any": True}]}
    kind = "extensions.filters.http.rbac.v3.RBAC"
    rules = {"action": "DENY", "policies": {"forbidden": rule}}
    return _typed("envoy.filters.http.rbac", kind, rules=rules)


def _asked(name: str, *, direct: bool = False) -> dict[str, Any]:
    """A route about which we are asked; a direct one is answered 401 by Envoy itself."""
    told = {"upstream": name.partition("-")[0], "stage": STAGE}
    kind = "extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    per_route = {"@type": TYPES + kind, "check_settings": {"context_extensions": told}}
    made: dict[str, Any] = {
        "match": {"path_separated_prefix": f"/{name}"},
        "typed_per_filter_config": {"envoy.filters.http.ext_authz": per_route},
    }
    return made | ({"direct_response": {"status": 401}} if direct else {"route": {"cluster": name}})


def _named(name: str) -> dict[str, Any]:
    return {"filter_metadata": {"vaultauthz": {"upstream": name, "stage": STAGE}}}


def _unasked(**values: Any) -> dict[str, Any]:
    """A route about which we are not asked."""
    kind = "extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    off = {"@type": TYPES + kind, "disabled": True}
    return values | {"typed_per_filter_config": {"envoy.filters.http.ext_authz": off}}


def _injected(name: str) -> dict[str, Any]:
    match = {"path_separated_prefix": f"/{name}"}
    return _unasked(match=match, route={"cluster": name}, metadata=_named(name))


def _manager(routes: list[dict[str, Any]], logs: list[dict[str, Any]]) -> dict[str, Any]:
    router = _typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        access_log=logs,
        http_filters=[_rbac(), _ext_authz(), router],
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    )


def _options(**values: Any) -> dict[str, Any]:
    kind = "extensions.upstreams.http.v3.HttpProtocolOptions"
    made = {"@type": TYPES + kind, "explicit_http_config": {"http_protocol_options": {}}} | values
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": made}


def _cluster(name: str, address: dict[str, Any], **values: Any) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    made = {"name": name, "type": "STATIC", "connect_timeout": "1s"}
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return made | {"load_assignment": assignment} | values


def _injector(name: str) -> dict[str, Any]:
    service = {"envoy_grpc": {"cluster_name": "vaultauthz"}}
    source = {
        "initial_fetch_timeout": "1s",
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [service],
        },
    }
    credential = _typed(
        "envoy.http.injected_credentials.generic",
        "extensions.http.injected_credentials.generic.v3.Generic",
        credential={"name": f"{STAGE}/{name}", "sds_config": source},
        header="x-api-key",
    )
    return _typed(
        "envoy.filters.http.credential_injector",
        "extensions.filters.http.credential_injector.v3.CredentialInjector",
        overwrite=True,
        credential=credential,
    )


def _injecting(name: str, port: int) -> dict[str, Any]:
    codec = _typed(
        "envoy.filters.http.upstream_codec",
        "extensions.filters.http.upstream_codec.v3.UpstreamCodec",
    )
    options = _options(http_filters=[_injector(name), codec])
    return _cluster(
        name, _tcp(port), metadata=_named(name), typed_extension_protocol_options=options
    )


def _tcp(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap(
    grpc_socket: Path, port: int, ports: dict[str, int], logs: list[dict[str, Any]]
) -> dict[str, Any]:
    """One listener; `reports`, `keyed` and `never` by ext_authz, `injected` and `missing` by SDS."""
    pipe = {"pipe": {"path": str(grpc_socket)}}
    http2 = _options(explicit_http_config={"http2_protocol_options": {}})
    ours = [
        _cluster(name, pipe, typed_extension_protocol_options=http2)
        for name in ("vaultauthz", "vaultauthz_logs")
    ]
    asked = [_cluster(name, _tcp(ports[name])) for name in ("reports", "keyed", "never")]
    injecting = [_injecting(name, ports["injected"]) for name in ("injected", "missing")]
    routes = [
        _asked("keyed-direct", direct=True),
        *(_asked(name) for name in ("reports", "keyed", "never")),
        *(_injected(name) for name in ("injected", "missing")),
        _unasked(match={"prefix": "/"}, direct_response={"status": 401}),
    ]
    chain = {"filters": [_manager(routes, logs)]}
    return {
        "node": {"id": "als-1", "cluster": "edge"},
        "static_resources": {
            "listeners": [{"name": "gateway", "address": _tcp(port), "filter_chains": [chain]}],
            "clusters": [*ours, *asked, *injecting],
        },
    }
