# ruff: noqa: INP001  a script, no package
"""The upstreams of docker-compose.yml, the same as in `vaultauthz demo`: `services.py reports|geocoder HOST:PORT`."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import psycopg

from vaultauthz.demo.parts.postgres import DATABASE, Postgres
from vaultauthz.demo.parts.upstreams import Seen, Service, geocoder, reports


class Database:
    """The PostgreSQL at $POSTGRES_ADDRESS."""

    def connect(self, user: str, password: str) -> psycopg.Connection[tuple[Any, ...]]:
        """A session with exactly this login. Raises psycopg.OperationalError if the login fails."""
        host, _, port = os.environ["POSTGRES_ADDRESS"].rpartition(":")
        return psycopg.connect(
            host=host,
            port=port,
            dbname=DATABASE,
            user=user,
            password=password,
            connect_timeout=5,
            autocommit=True,
        )


def valid_keys() -> set[str]:
    """The one key that is in $API_KEY_FILE."""
    return {Path(os.environ["API_KEY_FILE"]).read_text()}


# `reports` only connects, and that is what Database does.
SERVICES: dict[str, Service] = {
    "reports": reports(cast("Postgres", Database())),
    "geocoder": geocoder(valid_keys),
}


def handler(service: Service) -> type[BaseHTTPRequestHandler]:
    """What answers a GET with what the service says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # http.server names it so
            """Ask the service and send its answer."""
            status, document = service(Seen("GET", self.path, tuple(self.headers.items())))
            body = json.dumps(document).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main(name: str, address: str) -> None:
    """Serve until SIGTERM; each request is one line on standard error, without its headers."""
    host, _, port = address.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), handler(SERVICES[name]))
    # As process 1 of a container Python would ignore it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
