"""Calls whose message was not read: counted, and told in the log now and then.

They never get as far as a decision, so no line of the audit log is about them, and Envoy
applies its failure mode to them.
"""

from __future__ import annotations

import logging
import threading
import time
from math import inf
from typing import Final

from vaultauthz.envoy.rpc import MESSAGE_LIMIT, RESOURCE_EXHAUSTED, RpcError

TOO_LARGE: Final = "too_large"
ENDED: Final = "ended"  # by the client, or by gRPC, before the message was there
_TELL_EVERY: Final = 60.0  # seconds between lines in the log
_MIB: Final = 1 << 20

log = logging.getLogger(__name__)


class Unread:
    """Counts by reason, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {TOO_LARGE: 0, ENDED: 0}
        self._told_at = -inf

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
            now = time.monotonic()
            tell = now - self._told_at >= _TELL_EVERY
            if tell:
                self._told_at = now
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
