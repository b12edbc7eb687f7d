"""Which clients may ask: those whose certificate has a name that the configuration lists.

An authority signs for more than gateways, as a rule, and whoever asks is believed what it says
of a request's caller. Names are subject alternative names, DNS or URI, as in Envoy's
``match_typed_subject_alt_names``; the common name is none (RFC 9525, 2). A wildcard in a
certificate is no name of a client's, and fits nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import inf
from typing import Final

from vaultauthz.core.redaction import names
from vaultauthz.envoy import ext_authz
from vaultauthz.envoy.rpc import PERMISSION_DENIED, RpcError
from vaultauthz.vault.certificates import Names, alternative_names

CHECKS: Final = ext_authz.SERVICE
_TELL_EVERY: Final = 60.0  # seconds between lines in the log
# As gRPC's core names the client's certificate in a call's auth context. It names `peer_dns` and
# `peer_uri` as well, which Python is given up to their first NUL, and so as another's name.
_CERTIFICATE: Final = "x509_pem_cert"
_MOST_KNOWN: Final = 256  # certificates whose names need not be read again

log = logging.getLogger(__name__)

AuthContext = Mapping[str, Iterable[bytes]]
Announce = Callable[[str, str], None]


class Clients:
    """Admits those that have one of ``names``, and counts the others by service. Safe for threads.

    ``announce`` hears of them, once a minute at most: the names that the certificate has,
    and a reason, with how many calls there were since the last time.
    """

    def __init__(
        self, names: Iterable[str], announce: Announce = lambda _names, _reason: None
    ) -> None:
        listed = {name.encode() for name in names}
        self._uris = frozenset(name for name in listed if b":" in name)  # no DNS name has one
        self._dns = listed - self._uris
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._told_at = -inf
        self._untold = 0
        self._announce = announce

    @property
    def refused(self) -> dict[str, int]:
        """How many calls were refused since the start, by service."""
        with self._lock:
            return dict(self._counts)

    def admit(self, auth: AuthContext, service: str) -> None:
        """See that this client may ask.

        Raises:
            RpcError: it may not, which has been counted.
        """
        found = _names(b"".join(auth.get(_CERTIFICATE, ())))
        if self._uris.isdisjoint(found.uri) and self._dns.isdisjoint(map(bytes.lower, found.dns)):
            self._refuse(found, service)

    def _refuse(self, has: Names, service: str) -> None:
        with self._lock:
            self._counts[service] = self._counts.get(service, 0) + 1
            self._untold += 1
            now = time.monotonic()
            tell = now - self._told_at >= _TELL_EVERY
            if tell:
                calls, self._untold = self._untold, 0
                self._told_at = now
        if tell:
            found = _named(has)
            reason = f"{service}: not of client_names; {calls} calls since the last such line"
            self._announce(found, reason)
            log.warning(
                "%s was refused to a client whose certificate has none of grpc_tls.client_names; it "
                "has %s; vaultauthz_clients_refused_total counts these",
                service,
                found,
            )
        raise RpcError(PERMISSION_DENIED, "this client certificate is not of client_names")


@lru_cache(_MOST_KNOWN)
def _names(certificate: bytes) -> Names:
    return alternative_names(certificate)


def _named(has: Names) -> str:
    found = [name.decode("latin-1") for name in (*has.uri, *has.dns)]
    return names(found) or "no DNS name and no URI (a common name does not count)"
