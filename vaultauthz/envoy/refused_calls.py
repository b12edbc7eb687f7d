"""Calls that get no decision: of clients that may not ask, and those whose message was not read.

They are counted, and told in the log now and then. No line of the audit log is about them, and
Envoy applies its failure mode to them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

from vaultauthz.core.redaction import names
from vaultauthz.envoy import ext_authz
from vaultauthz.envoy.rpc import MESSAGE_LIMIT, PERMISSION_DENIED, RESOURCE_EXHAUSTED, RpcError
from vaultauthz.terminal import Telling
from vaultauthz.vault.certificates import Names, alternative_names

CHECKS: Final = ext_authz.SERVICE
# As gRPC's core names the client's certificate in a call's auth context. It names `peer_dns` and
# `peer_uri` as well, which Python is given up to their first NUL, and so as another's name.
_CERTIFICATE: Final = "x509_pem_cert"
_MOST_KNOWN: Final = 256  # certificates whose names need not be read again
TOO_LARGE: Final = "too_large"
ENDED: Final = "ended"  # by the client, or by gRPC, before the message was there
_MIB: Final = 1 << 20

log = logging.getLogger(__name__)

AuthContext = Mapping[str, Iterable[bytes]]
Announce = Callable[[str, str], None]


class Clients:
    """Admits those that have one of ``names``, and counts the others by service. Safe for threads.

    An authority signs for more than gateways, as a rule, and whoever asks is believed what it says
    of a request's caller. Names are subject alternative names, DNS or URI, as in Envoy's
    ``match_typed_subject_alt_names``; the common name is none (RFC 9525, 2). A wildcard in a
    certificate is no name of a client's, and fits nothing.

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
        self._telling = Telling()
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
            tell = self._telling.due()
            if tell:
                calls, self._untold = self._untold, 0
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


class Unread:
    """Counts calls whose message was not read, by reason, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {TOO_LARGE: 0, ENDED: 0}
        self._telling = Telling()

    @property
    def counts(self) -> dict[str, int]:
        """How many there were since the start, by reason."""
        with self._lock:
            return dict(self._counts)

    def checked(self, data: bytes | None) -> bytes:
        """A message that is not too large; None is one that the transport has kept.

        Raises:
            RpcError: it is too large, which has been counted.
        """
        if data is not None and len(data) <= MESSAGE_LIMIT:
            return data
        with self._lock:
            self._counts[TOO_LARGE] += 1
            tell = self._telling.due()
        if tell:
            log.warning(
                "a check of %s was refused, the most is %d MiB: is the request's body sent along? "
                "lower max_request_bytes of with_request_body, or remove it where no body is "
                "signed; vaultauthz_checks_unread_total counts these",
                "unknown size" if data is None else f"{len(data) / _MIB:.1f} MiB",
                MESSAGE_LIMIT // _MIB,
            )
        raise RpcError(RESOURCE_EXHAUSTED, "the message is too large")

    def ended(self) -> None:
        """A call ended before its message was there."""
        with self._lock:
            self._counts[ENDED] += 1
