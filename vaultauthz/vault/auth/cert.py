"""TLS certificate: the client certificate that the stage's connections present."""

from __future__ import annotations

from vaultauthz.config.methods import Cert
from vaultauthz.vault import paths
from vaultauthz.vault.errors import Call
from vaultauthz.vault.transport import Answer, Transport


def login(transport: Transport, auth: Cert) -> Answer:
    """Log in with the certificate that ``transport`` has shown in its handshake.

    hvac's own method makes a connection with a certificate of its own, beside ours.
    """
    transport.call = Call.LOGIN
    body = {"name": auth.role} if auth.role else {}
    answer: Answer = transport.post(paths.url(f"auth/{auth.mount}/login"), json=body)
    return answer
