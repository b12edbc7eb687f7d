"""The parts of a run: OpenBao behind a proxy, PostgreSQL, services, vaultauthz, Envoy as it is printed for."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import secrets
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from tests.chaos import configuration
from tests.chaos.disk import Disk
from tests.chaos.ledger import Ears, Ledger
from tests.chaos.plan import STAGES, Place, places
from tests.chaos.record import Record
from tests.chaos.services import database, keyed, room
from tests.contract.jwt_issuer import Issuer
from tests.integration.printed_bed import Certificates, printed, replaced, with_files
from vaultauthz.admin.client import AdminAccess, AdminClient
from vaultauthz.demo.client import get_unix
from vaultauthz.demo.parts import (
    Envoy,
    OpenBao,
    PartError,
    Postgres,
    Process,
    Upstream,
    free_port,
    wait_for,
)
from vaultauthz.demo.parts.openbao import CONNECTION
from vaultauthz.demo.stage import write_private
from vaultauthz.listening import Address

# Nothing is granted: what two logins share, PostgreSQL updates one by one, and fails the other.
_CREATE: Final = (
    """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"""
)
# A role that an operator has dropped is no error, else OpenBao would try for hours.
_REVOKE: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
DROP ROLE IF EXISTS "{{name}}";
"""
_PAGE_SECONDS: Final = 5
_START_SECONDS: Final = 20
_OURS: Final = (sys.executable, "-m", "vaultauthz", "serve", "-c")


class Bed:
    """Enter it to start all parts, in a thread that lives as long as they shall."""

    def __init__(self, folder: Path, mode: str, began: float) -> None:
        self.folder, self.mode = folder, mode
        self.places = {place.name: place for place in places(mode)}
        self.ledger = Ledger(self.places.values())
        self.record = Record(mode, self.ledger, began)
        self.postgres = Postgres(folder / "postgres")
        self.bao = OpenBao(folder / "openbao")
        self.ears = Ears(self.bao.port, self.ledger)
        self.disk = Disk(folder / "audit")
        self.audit = self.disk.folder / "audit.jsonl"
        self.log = folder / "vaultauthz.log"
        self.file = folder / "vaultauthz.yaml"
        self.serve = Process([*_OURS, self.file], self.log)
        self.port = free_port()
        self.authority = Certificates(folder, "chaos CA")
        self.callers: dict[str, ssl.SSLContext] = {}
        self.config: dict[str, Any] = {}
        self.lives = itertools.count(1)
        self._room = room()
        self._keys = itertools.count(1)
        self._services = {
            place.name: _quiet(Upstream(self._service(place))) for place in places(mode)
        }
        self._parts = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            parts.callback(self.disk.close)
            parts.enter_context(self.ears)
            for service in self._services.values():
                parts.enter_context(service)
            parts.callback(self.postgres.close)
            self.postgres.start()
            parts.callback(self.bao.kill)
            self.bao.start()
            self._lay_out()
            parts.callback(self._kill_serve)
            self.start_serve()
            self.serve.wait_until(self.ready, 60)
            self.envoy = self._envoy()
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
        for resume in (self.serve.resume, self.bao.resume, self.postgres_resume):
            resume()
        self._parts.close()

    # --- what faults do to the parts ---

    def start_serve(self, clock: float | None = None) -> None:
        """Start our process; with ``clock`` its boot and monotonic clocks are ahead by so many seconds.

        Not where it runs: a stop that took long may have let another restart come first.
        """
        if self.serve.running:
            return
        argv: list[str | Path] = [*_OURS, self.file]
        if clock is not None:
            offsets = ["--boottime", f"{clock:.0f}", "--monotonic", f"{clock:.0f}"]
            argv = ["/usr/bin/unshare", "-T", *offsets, *argv]
        self.serve = Process(argv, self.log)
        self.serve.start()

    def _kill_serve(self) -> None:
        self.serve.kill()  # the one that there is by then

    def ready(self) -> bool:
        """Whether our process has every credential."""
        return self.admin("/readyz") == 200

    def admin(self, path: str) -> int:
        """The status of a page of our admin socket; 0 when nobody answers."""
        try:
            return get_unix(self.folder / "admin.sock", path).status
        except (OSError, http.client.HTTPException):
            return 0

    def page(self, path: str) -> str:
        """What our admin socket shows there; "" when nobody answers."""
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
                connection.settimeout(_PAGE_SECONDS)
                connection.connect(f"{self.folder}/admin.sock")
                connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        except OSError:
            return ""

    def ask(self, action: str, place: Place) -> None:
        """`vaultauthz rotate` or `revoke`, once it has started."""
        wait_for(lambda: bool(self.admin("/healthz")), _START_SECONDS)
        access = AdminAccess(Address.parse(f"unix://{self.folder}/admin.sock"))
        AdminClient(access).ask(action, place.upstream, place.stage)

    def hang_up(self) -> None:
        """SIGHUP, once it listens: while Python starts, the signal would end it. The file is followed all the same."""
        if self.admin("/healthz"):
            self.serve._send(signal.SIGHUP)

    def write(self, text: str) -> None:
        """Another configuration file, moved into place."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def new_key(self, place: Place) -> None:
        """Another version of a KV secret, which names its place and number."""
        key = f"{place.name}.{next(self._keys)}.{secrets.token_hex(8)}"
        path = f"secret/{place.name}"
        self.ledger.new_key(place, key, lambda: self.bao.put_kv(path, {"api_key": key}))

    def write_role(self, place: Place) -> None:
        """A database role (again)."""
        self.bao.client().secrets.database.create_role(
            place.name,
            CONNECTION,
            creation_statements=[_CREATE],
            revocation_statements=[_REVOKE],
            default_ttl=f"{place.ttl:g}s",
            max_ttl=f"{place.most:g}s",
        )

    def leases(self, place: Place) -> list[str]:
        """The leases of a role that OpenBao holds."""
        prefix = f"database/creds/{place.name}"
        found = self.bao.client().list(f"sys/leases/lookup/{prefix}")
        return [f"{prefix}/{name}" for name in found["data"]["keys"]] if found else []

    def tokens(self, stage: str) -> list[str]:
        """The accessors of a stage's login tokens that OpenBao holds."""
        client = self.bao.client()
        found = client.list("auth/token/accessors")["data"]["keys"]
        ours = []
        for accessor in found:
            with contextlib.suppress(Exception):  # it has ended meanwhile
                data = client.auth.token.lookup_accessor(accessor)["data"]
                if data["path"] == "auth/approle/login" and stage in data["policies"]:
                    ours.append(accessor)
        return ours

    def postgres_suspend(self) -> None:
        """Freeze the server process; its sessions' processes go on."""
        if self.postgres._process:
            self.postgres._process.suspend()

    def postgres_resume(self) -> None:
        """Let it go on."""
        if self.postgres._process:
            self.postgres._process.resume()

    def audit_files(self) -> list[Path]:
        """All of our audit log."""
        return sorted(self.disk.folder.glob("audit.jsonl*"))

    # --- the layout ---

    def _lay_out(self) -> None:
        self._database()
        for place in self.places.values():
            if place.kv:
                self.new_key(place)
            else:
                self.write_role(place)
        roles = {}
        for stage in STAGES:
            roles[stage], secret_id = self.bao.enable_approle(
                stage,
                configuration.POLICY,
                token_ttl=f"{configuration.TOKEN_TTL}s",
                token_max_ttl=f"{configuration.TOKEN_MAX_TTL}s",
            )
            self.ledger.secrets.add(secret_id)
            write_private(self.folder / f"secret_id_{stage}", secret_id)
        self.config = configuration.document(
            self.folder, self.ears.address, roles, self.mode, self.audit
        )
        self.write(yaml.safe_dump(self.config))
        for name in configuration.CALLERS:
            pair = self.authority.client(name.rpartition("/")[2], "client", [name], [])
            context = ssl.create_default_context(cafile=str(self.authority.ca))
            context.load_cert_chain(pair.cert, pair.key)
            self.callers[name] = context

    def _database(self) -> None:
        # Makes the connection; its role is never used.
        self.bao.database(self.postgres, "unused", default_ttl="1s", max_ttl="1s")

    def _service(self, place: Place) -> Callable[..., Any]:
        if place.kv:
            return keyed(place, lambda key: self.ledger.life(key) is not None, self.record.use)
        return database(place, self.postgres, self.record.use, self._room)

    def _envoy(self) -> Envoy:
        file = self.folder / "printed.yaml"
        file.write_text(yaml.safe_dump(configuration.printed(self.config)))
        status, text, errors = printed(file, "--mode", self.mode)
        if status:
            raise PartError(f"vaultauthz envoy: {errors}")
        by_name = {
            f"{p.stage}/{p.upstream}": self._services[p.name].port for p in self.places.values()
        }
        for place in self.places.values():  # a stage is in the name only where there are several
            by_name.setdefault(place.upstream, self._services[place.name].port)
        issuer = Issuer()
        document = replaced(
            with_files(text, self.authority, self.folder), self.port, by_name, issuer
        )
        return Envoy(document, self.folder / "envoy", options=("--file-flush-interval-msec", "200"))


def _quiet(upstream: Upstream) -> Upstream:
    """Without a word about connections that break, as they do when Envoy is killed."""
    upstream._server.handle_error = lambda *_: None  # type: ignore[method-assign]
    return upstream


def has_time_namespaces() -> bool:
    """Whether a process may be given other clocks here."""
    argv = ["/usr/bin/unshare", "-T", "--boottime", "100", "--monotonic", "100", "true"]
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
