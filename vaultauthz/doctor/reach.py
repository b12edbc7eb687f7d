"""Looking at one address of Vault: the way there, TLS, its state, its clock."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from vaultauthz.config.addresses import UNIX
from vaultauthz.config.values import Vault
from vaultauthz.doctor.evidence import Handshake, Trouble, VaultNode
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.probe import Probe
from vaultauthz.vault.trust import Trust

_PORTS = {"http": 80, "https": 443}


def node(vault: Vault, address: str) -> VaultNode:
    """What is at ``address``, each step bounded by ``vault.timeout``; never raises."""
    # Vault answers for its health in the root namespace only.
    alone = replace(vault, address=address, fallbacks=(), namespace="")
    tls = address.startswith("https://")
    began = time.time()
    try:
        health = Probe(alone, time.monotonic).health()
    except VaultError as exc:
        trouble = Trouble.of(exc)
        if exc.status == 0:
            trouble = replace(trouble, detail=_cause(alone) or trouble.detail)
        hello = _handshake(alone, listen=True) if tls and exc.status == 0 else None
        return VaultNode(address, trouble=trouble, handshake=hello, proxy=_proxy(address))
    ahead = None
    if health.server_time is not None:
        # It is in whole seconds, cut off, and of some moment between asking and hearing.
        ahead = health.server_time + 0.5 - (began + time.time()) / 2
    return VaultNode(address, health, None, _handshake(alone) if tls else None, ahead)


def _proxy(address: str) -> str:
    """The variable by which others go through a proxy to this address; "" for none."""
    url = urlsplit(address)
    if address.startswith(UNIX) or proxy_bypass(url.netloc):
        return ""
    names = (f"{url.scheme}_proxy", "all_proxy")
    each = (form for name in names for form in (name, name.upper()))
    return next((name for name in each if os.environ.get(name)), "")


def _handshake(vault: Vault, *, listen: bool = False) -> Handshake:
    """Shake hands; ``listen``: and hear what the server says to that.

    Under TLS 1.3 it says only then that it wants a client certificate; whoever sends
    something instead of listening may lose its words.
    """
    try:
        with _connected(vault) as plain:
            host = urlsplit(vault.address).hostname or ""
            name = vault.tls.server_name or host
            with Trust(vault.tls).context().wrap_socket(plain, server_hostname=name) as secure:
                if listen:
                    _hear(secure)
                ends = secure.getpeercert() or {}
                until = ssl.cert_time_to_seconds(str(ends["notAfter"])) if ends else None
                left = None if until is None else until - time.time()
                return Handshake(secure.version() or "", left)
    except ssl.SSLCertVerificationError as exc:
        return Handshake(problem=exc.verify_message)
    except ssl.SSLError as exc:
        return Handshake(problem=(exc.reason or "the handshake failed").replace("_", " ").lower())
    except (OSError, ValueError, VaultError):
        return Handshake()  # no connection, or files that cannot be read: the call itself tells


def _hear(secure: ssl.SSLSocket) -> None:
    with contextlib.suppress(TimeoutError):  # it has nothing to say
        secure.recv(1)


def _cause(vault: Vault) -> str:
    """Why there is no connection, in the system's words; "" when there is one."""
    try:
        with _connected(vault):
            return ""
    except TimeoutError:
        return f"no connection within {vault.timeout:g} s"
    except OSError as exc:
        return (exc.strerror or str(exc)).lower()


@contextlib.contextmanager
def _connected(vault: Vault) -> Iterator[socket.socket]:
    if vault.address.startswith(UNIX):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plain:
            plain.settimeout(vault.timeout)
            plain.connect(vault.address.removeprefix(UNIX))
            yield plain
        return
    url = urlsplit(vault.address)
    place = (url.hostname or "", url.port or _PORTS[url.scheme])
    with socket.create_connection(place, timeout=vault.timeout) as plain:
        yield plain
