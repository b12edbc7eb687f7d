"""Real servers on free loopback ports, for the demo and the integration tests.

Every part is a context manager: entering it starts the server in the given folder, leaving it stops the server.
Start parts from the main thread: the kernel ends a child when the *thread* that started it ends (see `process`).
"""

from vaultauthz.demo.parts.envoy import Envoy
from vaultauthz.demo.parts.openbao import OpenBao
from vaultauthz.demo.parts.pki import Certificate, Pki
from vaultauthz.demo.parts.postgres import Postgres
from vaultauthz.demo.parts.process import PartError, Process, free_port, wait_for
from vaultauthz.demo.parts.upstreams import Seen, Upstream, echo, geocoder, reports, shorten

__all__ = [
    "Certificate",
    "Envoy",
    "OpenBao",
    "PartError",
    "Pki",
    "Postgres",
    "Process",
    "Seen",
    "Upstream",
    "echo",
    "free_port",
    "geocoder",
    "reports",
    "shorten",
    "wait_for",
]
