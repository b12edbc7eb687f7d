"""`vaultauthz serve` as a process of its own, and a gRPC client that asks as Envoy does."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc

from tests.patience import PATIENCE
from vaultauthz._pb.ext_authz_pb2 import CheckRequest, CheckResponse
from vaultauthz._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaultauthz.demo.client import GatewayReply, get_unix
from vaultauthz.demo.parts import Process, wait_for

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
HEALTH: Final = "/grpc.health.v1.Health/Check"
TIMEOUT: Final = PATIENCE
# Standard output is the audit log; what is said on standard error goes to a file of its own.
_SPLIT: Final = 'exec "$0" -m vaultauthz serve -c "$1" 2>>"$2"'
_STAGE: Final = "  {}: {{auth: {{method: approle, role_id: {}, secret_id_file: secret_id}}}}"
_CONFIG: Final = """\
vault: {{address: "{vault}", timeout: 2s}}
stages:
{stages}
{upstreams}
listen:
  admin: unix://{folder}/admin.sock
  {listen}
"""


@dataclass(frozen=True)
class Login:
    """A login at a Vault, which each of the stages uses."""

    vault: str
    role_id: str
    secret_id: str
    stages: tuple[str, ...] = ("production",)


class Served:
    """A server in ``folder``; entering it starts it and waits until it answers, leaving it ends it.

    ``upstreams`` is the YAML of the sections ``upstreams`` and ``routes``, ``listen`` the lines of
    ``listen`` besides the admin socket.
    """

    def __init__(self, folder: Path, login: Login, upstreams: str, listen: str = "") -> None:
        self.folder = folder
        self.socket = folder / "grpc.sock"
        self.admin_socket = folder / "admin.sock"
        self.config = folder / "vaultauthz.yaml"
        self._errors = folder / "stderr"
        secret_id = folder / "secret_id"
        secret_id.touch(0o600)
        secret_id.write_text(login.secret_id)
        self.config.write_text(
            _CONFIG.format(
                vault=login.vault,
                stages="\n".join(_STAGE.format(name, login.role_id) for name in login.stages),
                folder=folder,
                upstreams=upstreams,
                listen=listen or f"grpc: unix://{self.socket}",
            )
        )
        argv: list[str | Path] = [
            "/bin/sh",
            "-c",
            _SPLIT,
            sys.executable,
            self.config,
            self._errors,
        ]
        self.process = Process(argv, folder / "stdout")

    @property
    def stdout(self) -> str:
        """What it has written to standard output so far, over all its starts."""
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far, over all its starts."""
        return self._errors.read_text() if self._errors.exists() else ""

    def start(self) -> None:
        """Start it and wait until its doors are open; it may have no credential yet."""
        self.process.start()
        self.wait(lambda: self.admin("/healthz").status == 200, "it did not open its doors")

    def wait_ready(self) -> None:
        """Wait until it has every credential."""
        self.wait(lambda: self.ready, "it did not become ready")

    def wait(self, met: Callable[[], bool], what: str) -> None:
        """Wait for ``met`` while the process runs; otherwise fail with its standard error."""
        wait_for(lambda: not self.process.running or met(), TIMEOUT)
        assert self.process.running, f"it ended with {self.process.returncode}:\n{self.stderr}"
        assert met(), f"{what}:\n{self.stderr}"

    @property
    def ready(self) -> bool:
        """What /readyz says."""
        return self.admin("/readyz").status == 200

    def admin(self, path: str) -> GatewayReply:
        """GET from its admin socket; status 0 when nobody answers."""
        try:
            return get_unix(self.admin_socket, path)
        except (OSError, http.client.HTTPException):
            return GatewayReply(0, {})

    def audit(self, event: str = "", **values: str) -> list[dict[str, Any]]:
        """The audit lines so far, or those of one event and with these values."""
        wanted = values | ({"event": event} if event else {})
        whole = [line for line in self.stdout.splitlines(keepends=True) if line[-1:] == "\n"]
        return [line for line in map(json.loads, whole) if wanted.items() <= line.items()]

    def audited(self, event: str, **values: str) -> dict[str, Any]:
        """The last such line, once there is one: they are written a little later."""
        self.wait(lambda: bool(self.audit(event, **values)), f"no {event} in the audit log")
        return self.audit(event, **values)[-1]

    def ask(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process._send(number)

    def ended(self, timeout: float = TIMEOUT) -> int | None:
        """Its exit status, once it has ended; None if it goes on."""
        wait_for(lambda: not self.process.running, timeout)
        return self.process.returncode

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()  # how it ends in order is a test's to look at, and takes a second


@dataclass(frozen=True)
class Answer:
    """What Envoy is told: to let the request through (200), or what to answer instead."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """The reason in a denial."""
        return str(self.body.get("error", ""))


def answer_of(data: bytes) -> Answer:
    """A CheckResponse, read."""
    response = CheckResponse.FromString(data)
    if response.HasField("ok_response"):
        headers, status, body = response.ok_response.headers, 200, "{}"
    else:
        denied = response.denied_response
        headers, status, body = denied.headers, denied.status.code, denied.body
    return Answer(
        status, {o.header.key: o.header.value.decode() for o in headers}, json.loads(body)
    )


def check_request(upstream: str = "", *, stage: str = "", host: str = "", path: str = "/") -> bytes:
    """The bytes that Envoy sends for a GET."""
    request = CheckRequest()
    http_request = request.attributes.request.http
    http_request.method, http_request.id = b"GET", "1"
    http_request.host, http_request.path = host.encode(), path.encode()
    if upstream:
        request.attributes.context_extensions["upstream"] = upstream
    if stage:
        request.attributes.context_extensions["stage"] = stage
    return request.SerializeToString()


def _as_it_is(data: bytes) -> bytes:
    return data


class Asker:
    """A gRPC client on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def call(self, data: bytes) -> Answer:
        """Ask with these bytes. Raises grpc.RpcError."""
        return self.calls([data])[0]

    def calls(self, requests: Iterable[bytes]) -> list[Answer]:
        """Ask all of this at once; the answers in the same order. Raises grpc.RpcError."""
        call = self.channel.unary_unary(CHECK, _as_it_is, _as_it_is)
        futures = [call.future(data, timeout=TIMEOUT) for data in requests]
        return [answer_of(future.result()) for future in futures]

    def check(self, upstream: str = "", *, stage: str = "", host: str = "") -> Answer:
        """Ask about a request."""
        return self.call(check_request(upstream, stage=stage, host=host))

    def serving(self) -> bool:
        """What the health service says."""
        data = HealthCheckRequest().SerializeToString()
        answer = self.channel.unary_unary(HEALTH, _as_it_is, _as_it_is)(data, timeout=TIMEOUT)
        return HealthCheckResponse.FromString(answer).status == HealthCheckResponse.SERVING


@contextlib.contextmanager
def asking(target: str | Path, tls: grpc.ChannelCredentials | None = None) -> Iterator[Asker]:
    """A client of a unix socket (a Path) or of ``host:port``."""
    place = f"unix:{target}" if isinstance(target, Path) else target
    options = [("grpc.max_send_message_length", -1)]
    channel = (
        grpc.secure_channel(place, tls, options=options)
        if tls
        else grpc.insecure_channel(place, options=options)
    )
    with channel:
        yield Asker(channel)
