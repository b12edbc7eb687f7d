"""Puts the signature on what a check allows, where the upstream wants each request signed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.redaction import where
from vaultauthz.core.request import Request
from vaultauthz.core.signing import SigningError, outgoing

log = logging.getLogger(__name__)


class Signatures:
    """``wall`` tells the seconds since 1970; ``nonce`` a text that never comes again."""

    def __init__(self, wall: Callable[[], float], nonce: Callable[[], str]) -> None:
        self._wall = wall
        self._nonce = nonce
        self._logged: set[tuple[str, str, str]] = set()

    def add(self, request: Request, allowed: Allowed) -> Decision:
        """The decision with the headers that are for this request alone, or a denial.

        ``bad_request`` for what cannot be signed: to send it again does not help, as
        ``no_credential`` would make its client believe.
        """
        credential = allowed.credential
        if credential is None or credential.mutation.signer is None:
            return allowed
        mutation = credential.mutation
        try:
            sent = outgoing(request, mutation.headers, (*mutation.remove, *allowed.dropped))
            signed = credential.mutation.signer.sign(sent, self._wall(), self._nonce)
        except SigningError as exc:
            self._tell(allowed, str(exc))
            return Denied(Reason.BAD_REQUEST, allowed.upstream, allowed.stage)
        except Exception as exc:  # noqa: BLE001 - without its signature it must not go on
            log.error("a request could not be signed: %s", where(exc))  # noqa: TRY400
            return Denied(Reason.INTERNAL, allowed.upstream, allowed.stage)
        return replace(allowed, signed=signed)

    def _tell(self, allowed: Allowed, why: str) -> None:
        """Once for each cause, as a client could flood the log: the gateway may be at fault."""
        denial = (allowed.upstream, allowed.stage, why)
        if denial not in self._logged:
            self._logged.add(denial)
            log.warning("upstream %s, stage %s: a request is denied: %s", *denial)
