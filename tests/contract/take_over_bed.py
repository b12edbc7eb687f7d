"""Servers that take over from each other over a fake Vault, and a gateway that never stops asking."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

import grpc
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.running import settings
from tests.contract.test_server import CHECK, checked
from tests.patience import PATIENCE
from tests.working import Working
from vaultauthz._pb.ext_authz_pb2 import CheckResponse
from vaultauthz.demo.client import get_unix
from vaultauthz.demo.parts import free_port, wait_for
from vaultauthz.observe.chain import verify

# For what befalls one when it takes the place.
_PROGRAM = """
import os, signal, sys
from vaultauthz import cli, serve
from vaultauthz.observe.sink import AuditError
take_place = serve._take_place

def fail(error):
    raise error

def befallen(service, before):
    {happens}

serve._take_place = befallen
sys.exit(cli.main())
"""

# As systemd starts a process that it has opened sockets for.
_PASSES = """
import fcntl, os, sys
at = sys.argv.index("--")
given = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 99) for fd in sys.argv[2:at]]
for number, fd in enumerate(given, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ |= {
    "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": sys.argv[1]
}
os.execv(sys.argv[at + 1], sys.argv[at + 1:])
"""


class Server:
    """One process of `vaultauthz serve`."""

    def __init__(
        self,
        config: Path,
        *options: str,
        log: Path,
        systemd: Systemd,
        happens: str = "",
        code: Path | None = None,
    ) -> None:
        self._log = log
        script = _PROGRAM.format(happens=happens)
        program = ["-c", script] if happens else ["-m", "vaultauthz"]
        command = [sys.executable, *program, "serve", "-c", str(config), *options]
        fds = [each.fileno() for each in systemd.sockets.values()]
        if fds:
            names = ":".join(systemd.sockets)
            command = [sys.executable, "-c", _PASSES, names, *map(str, fds), "--", *command]
        env = os.environ | ({"NOTIFY_SOCKET": systemd.place} if systemd.place else {})
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=env, pass_fds=fds, cwd=code
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def wait_until_told(self, text: str) -> None:
        """Until its log has this."""
        ended = self.process.poll
        assert wait_for(lambda: text in self.log or ended() is not None, PATIENCE), self.log
        assert text in self.log, self.log

    def ended(self, *, ask: signal.Signals | None = None) -> int:
        """Its exit status, waited for; asked to end, if it is to be."""
        if ask:
            self.process.send_signal(ask)
        return self.process.wait(PATIENCE)


class Systemd:
    """Listens as systemd does, once ``listen`` is called; ``told`` is each datagram."""

    def __init__(self) -> None:
        self.place = ""
        self.sockets: dict[str, socket.socket] = {}
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told: list[str] = []

    def listen(self, folder: Path) -> None:
        """From now on servers are told where."""
        self.place = str(folder / "notify")
        self._line.bind(self.place)
        self._line.setblocking(False)

    def open(self, **places: Path) -> None:
        """Listen at these unix sockets, by ``FileDescriptorName``; servers are given them."""
        for name, place in places.items():
            self.sockets[name] = socket.socket(socket.AF_UNIX)
            self.sockets[name].bind(str(place))
            self.sockets[name].listen(64)

    def waits(self) -> bool:
        """Whether a gateway has connected, and nobody has taken it in."""
        poll = select.poll()
        poll.register(self.sockets["grpc"], select.POLLIN)
        return bool(poll.poll(0))

    def told(self) -> list[str]:
        """What it was told until now."""
        with contextlib.suppress(BlockingIOError, OSError):
            while self.place:
                self._told.append(self._line.recv(4096).decode())
        return self._told

    def mains(self) -> list[int]:
        """The processes that have called themselves the main one."""
        lines = [line for datagram in self.told() for line in datagram.splitlines()]
        return [int(line[8:]) for line in lines if line.startswith("MAINPID=")]

    def wait_for(self, text: str) -> None:
        """Until a datagram has this."""
        assert wait_for(lambda: any(text in one for one in self.told()), PATIENCE), self.told()

    def close(self) -> None:
        """Listen no more."""
        for one in (self._line, *self.sockets.values()):
            one.close()


class Bed:
    """A folder with a configuration, and the servers that were started for it."""

    def __init__(self, folder: Path, vault: FakeVault, transport: str, *, tcp: bool) -> None:
        self.folder = folder
        self.vault = vault
        self.grpc = f"127.0.0.1:{free_port()}" if tcp else f"unix://{folder}/grpc.sock"
        vault.set_approle()
        vault.set_creds("database/creds/pay")
        self.document = settings(vault) | {
            "listen": {
                "grpc": self.grpc,
                "admin": f"unix://{folder}/admin.sock",
                "transport": transport,
            },
            "audit": {"file": f"{folder}/audit.jsonl"},
            "routes": [{"host": "h", "upstream": "pay"}],
        }
        self.servers: list[Server] = []
        self.systemd = Systemd()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.systemd.mains():  # those that the servers have started
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        self.systemd.close()
        for server in self.servers:
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGCONT)
                server.process.kill()
                server.process.wait()

    def start(
        self,
        *options: str,
        config: str = "vaultauthz.yaml",
        happens: str = "",
        code: Path | None = None,
    ) -> Server:
        """Start one more; ``happens`` is a statement in place of ``take_place``, ``code`` where the package is."""
        path = self.folder / config
        if not path.exists():
            path.write_text(yaml.safe_dump(self.document))
        log = self.folder / f"{len(self.servers)}.log"
        server = Server(path, *options, log=log, happens=happens, systemd=self.systemd, code=code)
        self.servers.append(server)
        return server

    def first(self) -> Server:
        """The first one, with every credential."""
        server = self.start()
        server.wait_until_told("ready: every upstream")
        return server

    def next(self) -> Server:
        """One that has taken over."""
        server = self.start("--take-over")
        server.wait_until_told("serving Envoy")
        return server

    def rewrite(self, **listen: str) -> None:
        """Change ``listen`` in the file."""
        self.document["listen"] |= listen
        (self.folder / "vaultauthz.yaml").write_text(yaml.safe_dump(self.document))

    def traffic(
        self, address: str = "", credentials: grpc.ChannelCredentials | None = None
    ) -> Asking:
        """Constant traffic, while it is entered; to another address, if one is given, or over TLS."""
        return Asking(address or self.grpc, credentials)

    def tokens(self) -> int:
        """How many logins Vault knows of."""
        return len(self.vault.live_tokens())

    def started(self) -> bool:
        """What the admin server answers: whether gateways may ask."""
        return get_unix(self.folder / "admin.sock", "/readyz?started").status == 200

    def metrics(self) -> str:
        """A scrape."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(PATIENCE)
            line.connect(str(self.folder / "admin.sock"))
            line.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: line.recv(65_536), b"")).decode()

    def lines(self) -> list[dict[str, Any]]:
        """The audit log, which is one whole chain."""
        with (self.folder / "audit.jsonl").open("rb") as file:
            lines = file.readlines()
        assert list(verify(lines)) == []
        return [json.loads(line) for line in lines]

    def count(self, event: str) -> int:
        """How many of these events the audit log has."""
        return sum(line["event"] == event for line in self.lines())


class Asking(Working):
    """Checks from four connections, one after the other; ``answers`` counts what became of them."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._credentials = credentials
        self.answers: Counter[str] = Counter()
        self._address = address
        self._lock = threading.Lock()
        super().__init__(threading.Thread(target=self._work, daemon=True) for _ in range(4))

    @property
    def count(self) -> int:
        """How many there were."""
        with self._lock:
            return self.answers.total()

    def wait_for(self, more: int = 40) -> None:
        """Until so many more were answered."""
        wanted = self.count + more
        assert wait_for(lambda: self.count >= wanted, PATIENCE), self.answers

    def _work(self) -> None:
        data = checked()
        # Not `Client`: without its retries grpcio fails a call that it was about to send when GOAWAY came.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with (
            grpc.secure_channel(self._address, self._credentials, options=options)
            if self._credentials
            else grpc.insecure_channel(self._address, options=options)
        ) as channel:
            check = channel.unary_unary(
                CHECK, request_serializer=bytes, response_deserializer=bytes
            )
            while not self._stopped.wait(0.002):
                try:
                    answer = CheckResponse.FromString(check(data, timeout=PATIENCE))
                    status = answer.denied_response.status.code or 200
                    if answer.HasField("ok_response"):
                        status = 200
                    told = str(status)
                except grpc.RpcError as exc:
                    told = f"{exc.code()} {exc.details()}"
                with self._lock:
                    self.answers[told] += 1
