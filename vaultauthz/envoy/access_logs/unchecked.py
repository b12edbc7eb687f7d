"""Requests that no check was made for, once they are over: audit lines, metrics, and 401s.

With SDS Envoy had the credential and asked nobody. What it tells of such a request, over gRPC
or in a file, is all that the audit log can know of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vaultauthz.core.decision import Reason
from vaultauthz.core.events import Access
from vaultauthz.core.routing import StageUpstream
from vaultauthz.envoy.access_logs.finished import Span
from vaultauthz.envoy.access_logs.history import UNKNOWN, CredentialHistory, CredentialIds

_MOST_WARNINGS: Final = 1000

# Why entries are passed over; the labels of a metric.
NOT_OURS: Final = "not_ours"  # no upstream of ours was asked for
UNKNOWN_UPSTREAM: Final = "unknown_upstream"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what; called by the threads of all streams, and by the one that reads a file.

    ``record`` may wait for room in the audit log, and so hold the stream back; none of the
    others may.
    """

    record: Callable[[Access], None]  # what no check has recorded
    answered: Callable[[str, str, int], None]  # stage, upstream, its status; 0 for no answer
    rejected: Callable[[str, str, str], object]  # upstream, stage, credential_id: it answered 401
    ignored: Callable[[str, int], None]  # why, and how many entries
    known: Callable[[str, str], bool]  # whether stage and upstream are in the configuration
    # Stage, upstream, credential_id and status of each request whose credential is known, once.
    tried: Callable[[str, str, str, int], None]


@dataclass(frozen=True, slots=True)
class Reporter:
    """The Envoy that tells of a request; where it is not ``sure``, a name that may be wrong."""

    node: str
    sure: bool = True


class UncheckedRequests:
    """Takes them in, from any thread."""

    def __init__(self, history: CredentialHistory, listeners: Listeners) -> None:
        self._history = history
        self._tell = listeners
        self._warned: set[StageUpstream] = set()

    def recorded_by(self, record: Callable[[Access], None]) -> UncheckedRequests:
        """The same with another recorder."""
        return UncheckedRequests(self._history, replace(self._tell, record=record))

    def known(self, stage: str, upstream: str) -> bool:
        """Whether the request was for an upstream of ours; counted when it was not."""
        if not upstream:
            self._tell.ignored(NOT_OURS, 1)
        elif self._tell.known(stage, upstream):
            return True
        else:
            self._tell.ignored(UNKNOWN_UPSTREAM, 1)
            self._warn(stage, upstream)
        return False

    def refused(self, access: Access, reason: Reason) -> None:
        """Take in a request that Envoy itself refused."""
        access.allowed, access.reason = False, reason.value
        self._tell.record(access)

    def answered(self, access: Access, status: int) -> None:
        """Take in what an upstream answered; 0 for nothing."""
        self._tell.answered(access.stage, access.upstream, status)

    def sent(self, access: Access, status: int, reporter: Reporter, span: Span | None) -> None:
        """Take in a request that went to its upstream, with a credential put on in ``span``."""
        possible = self._possible(access.stage, access.upstream, reporter, span)
        access.status = status
        if len(possible) == 1:
            access.credential_id, access.lease_id = possible[0]
        if not access.credential_id:
            access.reason = _doubt(possible)
        self._tell.record(access)
        if not access.credential_id:
            return
        self._tell.tried(access.stage, access.upstream, access.credential_id, status)
        if status == 401:
            self._tell.rejected(access.upstream, access.stage, access.credential_id)

    def rejected(self, stage: str, upstream: str, reporter: Reporter, span: Span | None) -> None:
        """Take in a 401 alone; the audit line comes from elsewhere."""
        if not self._tell.known(stage, upstream):
            return
        possible = self._possible(stage, upstream, reporter, span)
        if len(possible) == 1 and possible[0].credential_id:
            self._tell.rejected(upstream, stage, possible[0].credential_id)

    def _possible(
        self, stage: str, upstream: str, reporter: Reporter, span: Span | None
    ) -> tuple[CredentialIds, ...]:
        if span is None:
            return (UNKNOWN,)
        return self._history.between(reporter.node, stage, upstream, *span, sure=reporter.sure)

    def _warn(self, stage: str, upstream: str) -> None:
        if (stage, upstream) in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return
        self._warned.add((stage, upstream))
        log.warning(
            "access logs: Envoy names upstream %r, stage %r, which the configuration does not have",
            upstream[:200],
            stage[:200],
        )


def _doubt(possible: Sequence[CredentialIds]) -> str:
    """The reason in an audit line that names no credential: what it can have been."""
    names = [ids.credential_id for ids in possible if ids is not UNKNOWN]
    if not names:
        return "credential not known"
    return "credential " + " or ".join(names) + (" or one before" if UNKNOWN in possible else "")
