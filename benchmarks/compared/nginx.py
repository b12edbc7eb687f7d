"""nginx, twice: the upstream, and the fixed answer that is the native limit of asking anybody."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vaultauthz.demo.parts import Process, free_port

Address = int | Path  # a TCP port of 127.0.0.1, or a unix socket

_CONFIG = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    # Never ends a connection of its own: opening them anew is not what is measured.
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
"""
# 401 for any request without exactly the credential, so that its absence fails the run.
_UPSTREAM = """\
map $http_x_api_key $authenticated {{ default 0; "{key}" 1; }}
    server {{
        listen 127.0.0.1:{port};
        default_type application/json;
        location / {{
            if ($authenticated = 0) {{ return 401; }}
            return 200 '{{"charges": []}}\\n';
        }}
    }}"""
_ANSWERER = """\
server {{
        listen 127.0.0.1:{port};
        listen unix:{socket};
        location / {{
            add_header X-Api-Key "{key}";
            return 200;
        }}
    }}"""


class Nginx:
    """One nginx of one process in ``folder``, with ``http`` inside its block of that name.

    ``addresses`` are where it listens.
    """

    def __init__(self, folder: Path, addresses: Sequence[Address], http: str) -> None:
        folder.mkdir()
        self.addresses = addresses
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, http=http))
        # Its compiled-in error log is opened before the file is read; -e moves it.
        argv: list[str | Path] = [
            shutil.which("nginx") or "nginx",
            "-c",
            config,
            "-p",
            folder,
            "-e",
            "stderr",
        ]
        self.process = Process(argv, folder / "nginx.log")

    def __enter__(self) -> Self:
        self.process.start()
        self.process.wait_until(lambda: all(map(connects, self.addresses)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()


def upstream(folder: Path, key: str) -> Nginx:
    """Answers 200 to requests that carry ``key`` in X-Api-Key, 401 to all others."""
    port = free_port()
    return Nginx(folder, [port], _UPSTREAM.format(port=port, key=key))


def answerer(folder: Path, key: str) -> Nginx:
    """Lets every request through, and has Envoy set X-Api-Key to ``key``; on a port and a unix socket."""
    port, path = free_port(), folder / "nginx.sock"
    return Nginx(folder, [port, path], _ANSWERER.format(port=port, socket=path, key=key))


def connects(address: Address) -> bool:
    """Whether somebody accepts connections at this port of 127.0.0.1, or unix socket."""
    tcp = isinstance(address, int)
    with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(("127.0.0.1", address) if tcp else str(address))
        except OSError:
            return False
        return True
