"""Vault itself: reached, over TLS, unsealed, with the right time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from shlex import quote
from typing import Final
from urllib.parse import urlsplit

from vaultauthz.config.addresses import is_loopback
from vaultauthz.doctor.evidence import ExaminedStage, VaultNode, VaultServer
from vaultauthz.doctor.finding import ERROR, WARNING, Finding, error, span, warning

MOST_AHEAD: Final = 30.0  # seconds between its clock and ours
_NAMESPACES: Final = (2, 3)
_SOON: Final = 7 * 86_400.0  # a certificate that ends within this wants attention
_NO_LOGIN = "without Vault no stage can log in, and no credential is fetched or renewed"
_FALLBACK = "Vault is reached by another address; when that one goes away, nothing is left"

_AUTHORITY: Final = (
    "set vault.tls.ca_cert to the certificate of the authority that signed Vault's; this shows "
    "who that was"
)
_NAME: Final = (
    "use an address that is in Vault's certificate, or set vault.tls.server_name to a name that "
    "is; this shows them"
)
_NO_TLS: Final = (
    "nothing speaks TLS at this port: check the port, and tls_disable of Vault's listener"
)
_CLIENT: Final = (
    "Vault wants a client certificate that it trusts: set vault.tls.client_cert and client_key"
)
_STRICT: Final = (
    "have Vault's certificate, or its authority's, issued anew as RFC 5280 demands, or remove "
    "vault.tls.x509_strict, which other clients of Vault do not have; this shows them"
)
_OTHERWISE: Final = (
    "the address answers, so the network is well: what fails is TLS, or the certificate, for the "
    "reason above; this shows both"
)
# A part of OpenSSL's words → what to do. The first that fits counts.
_TLS: Final = {
    "unable to get": _AUTHORITY,
    "self-signed": _AUTHORITY,
    "self signed": _AUTHORITY,
    "mismatch": _NAME,
    "not valid for": _NAME,
    "has expired": "have Vault's certificate renewed; this shows its dates",
    "not yet valid": "look at the clocks of both machines; this shows the certificate's dates",
    "wrong version number": _NO_TLS,
    "record layer": _NO_TLS,
    "http request": _NO_TLS,
    "unexpected eof": _NO_TLS,
    "certificate required": _CLIENT,
    "handshake failure": _CLIENT,
    "bad certificate": _CLIENT,
    "unknown ca": _CLIENT,
}


def away(server: VaultServer) -> Iterator[Finding]:
    """An address that does not answer; an error when no other does."""
    for node in server.nodes:
        if node.trouble is None:
            continue
        severity = ERROR if server.node is None else WARNING
        why = _NO_LOGIN if server.node is None else _FALLBACK
        mend, lines = _way_back(node, strict=server.vault.tls.x509_strict)
        yield Finding(severity, _unreached(node), why, mend, lines)


def _unreached(node: VaultNode) -> str:
    words = node.handshake.problem if node.handshake else ""
    return f"{node.address}: {words or node.trouble}"


def _way_back(node: VaultNode, *, strict: bool) -> tuple[str, tuple[str, ...]]:
    assert node.trouble
    host = urlsplit(node.address).netloc
    if node.handshake and node.handshake.problem:
        problem = node.handshake.problem.lower()
        for part, mend in _TLS.items():
            if part in problem:
                return mend, (f"openssl s_client -connect {host} -showcerts </dev/null",)
        mend = _STRICT if strict else _OTHERWISE
        return mend, (f"openssl s_client -connect {host} -showcerts </dev/null",)
    if node.address.startswith("http://") and node.trouble.status == 400:
        return f"this port wants TLS: set vault.address to https://{host}", ()
    if 300 <= node.trouble.status < 400:
        return "set vault.address to the active node's, or to a load balancer's", ()
    if node.address.startswith("unix://"):
        path = node.address.removeprefix("unix://")
        return "see that the agent behind this socket runs, and that we may open it", (
            f"ls -l {quote(path)}",
        )
    between = "firewall, DNS"
    if node.proxy and node.trouble.away:
        between += f"; ${node.proxy} is set, and not used for Vault"
    return f"check the address, that Vault runs, and what is between ({between})", (
        f"bao status -address={node.address}",
    )


def not_initialized(server: VaultServer) -> Iterator[Finding]:
    """A new Vault that has no keys yet."""
    for node in server.nodes:
        if node.health and not node.health.initialized:
            line = f"{node.cli} operator init -address={node.address}"
            yield error(f"{node.address} is not initialized", _NO_LOGIN, "initialize it", line)


def sealed(server: VaultServer) -> Iterator[Finding]:
    """It runs, and serves nobody."""
    for node in server.nodes:
        if node.health and node.health.initialized and node.health.sealed:
            severity = ERROR if server.node is None else WARNING
            line = f"{node.cli} operator unseal -address={node.address}"
            why = _NO_LOGIN if server.node is None else _FALLBACK
            yield Finding(severity, f"{node.address} is sealed", why, "unseal it", (line,))


def several_clusters(server: VaultServer) -> Iterator[Finding]:
    """Fallbacks that are another Vault altogether."""
    names = {n.health.cluster_name for n in server.nodes if n.health and n.health.cluster_name}
    if len(names) > 1:
        yield error(
            f"the addresses are of different clusters: {', '.join(sorted(names))}",
            "a token and a lease of one cluster are unknown to the other",
            "name nodes of one cluster in vault.address",
        )


def clear_text(server: VaultServer) -> Iterator[Finding]:
    """HTTP beyond this machine."""
    for address in server.vault.addresses:
        if address.startswith("http://") and not is_loopback(urlsplit(address).hostname or ""):
            yield warning(
                f"{address} is without TLS",
                "logins, tokens and secrets can be read on the way",
                "give Vault's listener a certificate, use https:// in vault.address and "
                "remove vault.insecure",
            )


def certificate_ends(server: VaultServer) -> Iterator[Finding]:
    """Vault's certificate is about to end."""
    for node in server.nodes:
        left = node.handshake.ends_in if node.handshake else None
        if left is not None and left < _SOON:
            yield warning(
                f"the certificate of {node.address} ends in {span(left)}",
                "from then on every call to Vault fails, and leases end one by one",
                "have it renewed, and Vault reload it (SIGHUP)",
            )


def clock(server: VaultServer) -> Iterator[Finding]:
    """Its clock and ours differ."""
    for node in server.nodes:
        if node.ahead is not None and abs(node.ahead) > MOST_AHEAD:
            how = "ahead of" if node.ahead > 0 else "behind"
            yield warning(
                f"the clock of {node.address} is {span(abs(node.ahead))} {how} ours",
                "JWTs, signed logins (aws) and certificates (pki) count as not yet valid or as "
                "expired; ends in the audit logs do not match",
                "let both machines synchronize their clocks; this shows whether ours is",
                "timedatectl",
            )


def too_old(stage: ExaminedStage) -> Iterator[Finding]:
    """Namespaces, where this Vault has none."""
    found = re.match(r"(\d+)\.(\d+)", stage.version)
    if not stage.namespace or found is None or "+" in stage.version:
        return  # 1.17.0+ent: the Enterprise edition
    if (int(found[1]), int(found[2])) < _NAMESPACES:
        yield warning(
            f"namespace {stage.namespace!r} is set, and version {stage.version} has none",
            "HashiCorp Vault has namespaces in its Enterprise edition only, OpenBao from 2.3 on; "
            "elsewhere the login is made in the root namespace",
            "remove the namespace, or upgrade",
        )
