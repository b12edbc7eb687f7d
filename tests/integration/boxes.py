"""docker-compose.yml at work without a container engine: each service in a box of its own.

A box has namespaces of its own for mounts and processes, and a root that is read-only where the file says so; all share
a network of their own, in which the services' names lead to its loopback. Commands, users, variables, volumes, tmpfs,
health checks and the order of starts are read from docker-compose.yml and the Dockerfile, and used as they stand.
What an engine does besides, and this does not: images. Programs come from this machine and its wheels, and what an
image has otherwise is in `box_images`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.contract.test_compose import ROOT, SERVICES, json_of, stages
from tests.integration.box_images import (
    FOLDERS,
    OURS,
    USERS,
    User,
    copied_files,
    image_env,
    image_folders,
)
from tests.patience import PATIENCE
from vaultauthz.demo.parts import Process, binaries, wait_for

T = TypeVar("T")

BOXED: Final = Path(__file__).with_name("boxed.py")
ENTRYPOINT: Final = Path(__file__).with_name("postgres_entrypoint.sh")
PROGRAMS: Final = "/opt/image/bin"
PATH: Final = f"/opt/vaultauthz/bin:{PROGRAMS}:/usr/local/bin:/usr/bin:/bin"
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1


def permitted() -> str:
    """Why no box can be made here; empty if it can."""
    if os.geteuid() != 0:
        return "boxes want root, for namespaces and users"
    if not all(Path(f"/usr/bin/{name}").exists() for name in ("unshare", "nsenter", "setpriv")):
        return "boxes want unshare, nsenter and setpriv (util-linux)"
    argv = ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return f"this machine lets nobody make a mount namespace: {done.stderr}" * bool(done.returncode)


def _new_network() -> None:
    """Move the calling thread, and it alone, into a new network, and bring up its loopback."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


class Network:
    """A network of its own: nothing but a loopback, on which every service listens."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=_new_network)
        # A thread's own file: that of the process is its first thread's network.
        here = self.within(threading.get_native_id)
        self.path = f"/proc/{os.getpid()}/task/{here}/ns/net"

    def within(self, what: Callable[[], T]) -> T:
        """What it gives, called by a thread that is in this network."""
        return self._thread.submit(what).result()

    def close(self) -> None:
        """The last process in it ends it."""
        self._thread.shutdown()


class Box:
    """One container of a service: of the file's of that name, or of another."""

    def __init__(
        self,
        folder: Path,
        volumes: Path,
        name: str,
        network: Network,
        service: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.service: dict[str, Any] = service or SERVICES[name]
        self.folder = folder
        self.log = folder / "log"
        self._volumes = volumes
        self._network = network
        self._process: Process | None = None

    @property
    def image(self) -> str:
        """What it is made from: a target of our Dockerfile, or the name of an image."""
        return str(self.service["build"]["target"]) if "build" in self.service else self.name

    @property
    def argv(self) -> list[str]:
        """Entrypoint and command, of the service or else of the image."""
        command = list(self.service.get("command", []))
        if "entrypoint" in self.service:
            return [*self.service["entrypoint"], *command]
        if "build" in self.service:
            words = json_of(self.image, "ENTRYPOINT")
            return [*words, *(command or json_of(self.image, "CMD"))]
        if self.name == "postgres":
            return [f"{PROGRAMS}/{ENTRYPOINT.name}", "postgres"]
        return command  # Envoy's entrypoint only changes the user, if it is root

    def start(self, argv: list[str] | None = None) -> None:
        """Begin; `argv` instead of what the service runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        spec = self.folder / "spec.json"
        spec.write_text(json.dumps(self._spec(root, argv or self.argv)))
        alone = self.service.get("network_mode") == "none"
        net = ["unshare", "--net"] if alone else ["nsenter", f"--net={self._network.path}"]
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        boxed = [sys.executable, "-I", "-S", str(BOXED), str(spec)]
        self._process = Process(["/usr/bin/env", *net, *isolated, *boxed], self.log)
        self._process.start()

    def run(self) -> int | None:
        """To its end; the exit status."""
        self.start()
        return self.ended()

    def ended(self) -> int | None:
        """Wait for the end; the exit status."""
        assert self._process
        assert wait_for(lambda: not self.running, PATIENCE), self.tail
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """The first process inside, as it is seen from outside."""
        assert self._process
        outer = self._process.pid
        assert outer, self.tail
        assert wait_for(lambda: bool(_children(outer)), PATIENCE)
        return _children(outer)[0]

    @property
    def tail(self) -> str:
        """The last lines that it wrote."""
        return f"{self.name}:\n{self._process.log_tail() if self._process else 'never started'}"

    def signal(self, number: signal.Signals) -> int | None:
        """Send it to the first process, and wait for the end; None if it was never started."""
        if self._process is None:
            return None
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
        return self.ended()

    def execute(self, *argv: str, user: str = "") -> subprocess.CompletedProcess[str]:
        """As `docker exec`: a program inside, with the service's user and variables."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wd"]
        env = ["env", "-i", *(f"{name}={value}" for name, value in self._env().items())]
        words = [*inside, *self._become(user), *env, *argv]
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)

    @property
    def healthy(self) -> bool:
        """What its health check says."""
        words = self.service["healthcheck"]["test"]
        assert words[0] == "CMD"
        return self.running and self.execute(*words[1:]).returncode == 0

    @property
    def mounts(self) -> dict[str, bool]:
        """Whether each mount inside can be written."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return {words[4]: "rw" in words[5].split(",") for words in map(str.split, lines)}

    def status(self, key: str) -> list[str]:
        """A line of /proc/PID/status of the first process, such as `Uid`."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        (found,) = [line for line in text.splitlines() if line.startswith(f"{key}:")]
        return found.split()[1:]

    def _users(self) -> dict[str, User]:
        return {"root": (0, 0, "/root"), **(USERS.get(self.image) or OURS)}

    def _user(self, asked: str = "") -> User:
        """uid, gid and home, as an engine finds them: by number or by the image's name."""
        ours = [rest for name, rest in stages().get(self.image, []) if name == "USER"]
        text = asked or str(self.service.get("user") or (ours or ["root"])[0])
        user, _, group = text.partition(":")
        known = self._users()
        by_number = {str(uid): (uid, gid, home) for uid, gid, home in known.values()}
        uid, gid, home = known.get(user) or by_number.get(user) or (int(user), 0, "/")
        return uid, int(group or gid), home

    def _become(self, asked: str = "") -> list[str]:
        """The user, without groups besides and with no more capabilities than the service has."""
        uid, gid, _ = self._user(asked)
        assert self.service["cap_drop"] == ["ALL"]
        caps = "".join(f",+{cap.lower()}" for cap in self.service.get("cap_add", []))
        words = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        words += [f"--bounding-set=-all{caps}", f"--inh-caps=-all{caps if uid == 0 else ''}"]
        assert self.service["security_opt"] == ["no-new-privileges:true"]
        return [*words, "--no-new-privs", "--pdeathsig=KILL"]

    def _env(self) -> dict[str, str]:
        ours = image_env(self.image) if "build" in self.service else {}
        asked = self.service.get("environment", {})
        return {"PATH": PATH, "HOME": self._user()[2], **ours, **asked}

    def _spec(self, root: Path, argv: list[str]) -> dict[str, Any]:
        mounts = self.service.get("volumes", [])
        binds = [
            (str(ROOT / m["source"]), m["target"], m.get("read_only", False))
            for m in mounts
            if m["type"] == "bind"
        ]
        if self.name == "postgres":
            binds.append((str(ENTRYPOINT), f"{PROGRAMS}/{ENTRYPOINT.name}", True))
        volumes = [m for m in mounts if m["type"] == "volume"]
        python = Path(sys.base_prefix).resolve()
        tmpfs = [text.partition(":")[::2] for text in self.service.get("tmpfs", [])]
        shared = ["/usr", "/bin", "/lib", "/lib64", "/sbin", str(python), sys.prefix]
        return {
            "root": str(root),
            "read_only": self.service.get("read_only", False),
            "shared": [*shared, *(str(ROOT / name) for name in ("vaultauthz", "deploy"))],
            "links": self._programs(),
            "files": self._files(),
            "folders": FOLDERS.get(self.image) or image_folders(),
            "binds": binds,
            "volumes": [
                (str(self._volumes / m["source"]), m["target"], m.get("read_only", False))
                for m in volumes
            ],
            "tmpfs": tmpfs,
            "become": self._become(),
            "argv": argv,
            "env": self._env(),
        }

    def _files(self) -> dict[str, str]:
        users = self._users().items()
        return {
            "/etc/passwd": "".join(f"{n}:x:{u}:{g}::{h}:/bin/sh\n" for n, (u, g, h) in users),
            "/etc/group": "".join(f"{n}:x:{g}:\n" for n, (_, g, _) in users),
            "/etc/hosts": f"127.0.0.1 localhost {' '.join(SERVICES)}\n",
            "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
            "/etc/resolv.conf": "",
        }

    def _programs(self) -> dict[str, str]:
        """Where the image has its programs, and where they are here."""
        if "build" in self.service:
            venv = {name: f"{sys.prefix}/{name}" for name in ("bin", "lib", "pyvenv.cfg")}
            links = {f"/opt/vaultauthz/{name}": place for name, place in venv.items()}
            return links | copied_files(self.image)
        if self.name == "postgres":
            found = binaries.postgres_install() / "bin"
            names = {name: found / name for name in ("postgres", "initdb", "psql", "pg_isready")}
        else:
            names = {"envoy": binaries.envoy(), "bao": binaries.bao()}
        return {f"{PROGRAMS}/{name}": str(place) for name, place in names.items()}


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]
    return []
