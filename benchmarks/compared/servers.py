"""The gRPC servers that are compared: `vaultauthz serve` with a real OpenBao, and the trivial ones."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from compared.messages import HOST
from compared.nginx import connects
from vaultauthz.demo.parts import OpenBao, PartError, Process, wait_for

_POLICY = 'path "secret/data/payments" { capabilities = ["read"] }'
# An ordinary configuration: rules about callers, and more routes than the one that is asked for.
_CONFIG = """\
vault: {{address: "{vault}"}}
stages:
  production:
    auth: {{method: approle, role_id: {role_id}, secret_id_file: {folder}/secret_id}}
upstreams:
  payments:
    secret: {{kv: secret/payments, refresh: 5m}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    strip: [X-Debug-Key]
    callers: [{{principal: "spiffe://corp/till/*"}}, {{methods: [GET, POST], path_prefix: /v1/}}]
    deny: [{{path_prefix: /v1/admin/}}]
  open:
    secret: {{kv: secret/payments, refresh: 5m}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    strip: [X-Debug-Key]
    callers: any
routes:
{routes}
listen:
  grpc: unix://{folder}/grpc.sock
  admin: unix://{folder}/admin.sock
audit: {{file: {folder}/audit.jsonl}}
"""
_HOSTS = 20


class Ours:
    """`vaultauthz serve` in ``folder``, with everything on that a gateway in production has on.

    ``key`` is the credential that it takes from Vault.
    """

    def __init__(self, folder: Path, vault: str, login: tuple[str, str], key: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.key = key
        self.socket = folder / "grpc.sock"
        self.audit = folder / "audit.jsonl"
        self.config = folder / "vaultauthz.yaml"
        secret_id = folder / "secret_id"
        secret_id.touch(0o600)
        secret_id.write_text(login[1])
        self.config.write_text(
            _CONFIG.format(vault=vault, role_id=login[0], folder=folder, routes=_routes())
        )
        argv = [sys.executable, "-m", "vaultauthz", "serve", "-c", str(self.config)]
        self.process = Process(argv, folder / "log")

    def ready(self) -> bool:
        """Whether it has its credential."""
        return self._admin("/readyz").startswith("HTTP/1.1 200")

    def counts(self) -> dict[str, int]:
        """Checks answered so far, by decision: allowed, denied."""
        found = {"allowed": 0, "denied": 0}
        for line in self._admin("/metrics").splitlines():
            told = re.match(r'vaultauthz_checks_total\{.*decision="(\w+)".*\} ([\d.e+]+)$', line)
            if told:
                found[told[1]] += int(float(told[2]))
        return found

    def audit_lines(self) -> int:
        """Lines in the audit log about requests."""
        with self.audit.open("rb") as log:
            return sum(b'"event":"request.allowed"' in line for line in log)

    def empty_audit(self) -> None:
        """Begin the audit log anew: hundreds of bytes for each request would fill a small disk."""
        os.truncate(self.audit, 0)

    def _admin(self, path: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self.folder / "admin.sock"))
                asked = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                connection.sendall(asked.encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return ""


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[Ours]:
    """An OpenBao with one secret in it, and our server with that secret.

    Raises:
        PartError: one of them does not start.
    """
    key = secrets.token_urlsafe(24)
    with OpenBao(folder / "openbao") as bao:
        bao.put_kv("secret/payments", {"api_key": key})
        login = bao.enable_approle("production", _POLICY)
        server = Ours(folder / "ours", bao.address, login, key)
        server.process.start()
        try:
            server.process.wait_until(server.ready)
            yield server
        finally:
            server.process.terminate()


@contextlib.contextmanager
def trivial(folder: Path, transport: str, key: str) -> Iterator[tuple[Process, Path]]:
    """A trivial server on this transport, and its socket. Raises PartError."""
    path = folder / f"{transport}.sock"
    script = Path(__file__).with_name("trivial.py")
    process = Process(
        [sys.executable, str(script), transport, str(path), key], folder / f"{transport}.log"
    )
    process.start()
    try:
        process.wait_until(lambda: connects(path))
        yield process, path
    finally:
        process.kill()


def pid(process: Process) -> int:
    """The process's id. Raises PartError when it has ended."""
    if not process.pid:
        raise PartError(f"{process.name} has ended:\n{process.log_tail()}")
    return process.pid


def settle(server: Ours) -> None:
    """Wait until the audit log has stopped growing, which is written behind the answers."""
    sizes = [-1, server.audit.stat().st_size]

    def still() -> bool:
        sizes[:] = [sizes[1], server.audit.stat().st_size]
        return sizes[0] == sizes[1]

    wait_for(still, 5)


def _routes() -> str:
    hosts = [f"api-{n}.example.com" for n in range(_HOSTS)]
    lines = [f"{{host: {host}, path_prefix: /, upstream: open}}" for host in hosts]
    lines += [f"{{host: {HOST}, path_prefix: /v1/, upstream: payments, stage: production}}"]
    lines += [f"{{host: {HOST}, path_prefix: /, upstream: open}}"]
    return "\n".join(f"  - {line}" for line in lines)
