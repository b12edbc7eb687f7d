"""``envoy.service.auth.v3.Authorization/Check``: bytes in, one decision, bytes out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from vaultauthz.core.decision import Decision, Denied, Reason
from vaultauthz.core.redaction import where
from vaultauthz.core.request import Request
from vaultauthz.envoy.request import UnreadableError, read
from vaultauthz.envoy.response import Answers
from vaultauthz.leases.later import Later

SERVICE: Final = "envoy.service.auth.v3.Authorization"
METHOD: Final = f"/{SERVICE}/Check"
# An overloaded server asks for a second; what a client does with it is the client's business.
# Where Vault must be asked first: this much of Envoy's patience, in seconds at least and
# at most, so that the client gets our answer and its reason instead of Envoy's.
_SHARE: Final = 0.8
_LEAST: Final = 0.05
_MOST: Final = 10.0
_OVERLOADED: Final = Denied(Reason.OVERLOADED, retry_after=1)
_UNREADABLE: Final = Denied(Reason.BAD_REQUEST)
_INTERNAL: Final = Denied(Reason.INTERNAL)

Refused = Callable[[Request, Denied], None]

log = logging.getLogger(__name__)


class Check:
    """Answers each check; never raises, and never answers with anything but a decision.

    An error of ours is a denial, so that Envoy's failure mode, which may be set to allow,
    comes into play only when nobody could be asked. ``refused`` hears of each denial that
    ``check`` does not know of.
    """

    def __init__(
        self,
        check: Callable[[Request], Decision | Later[Decision]],
        refused: Refused = lambda _request, _denied: None,
    ) -> None:
        self._check = check
        self._refused = refused
        self._answers = Answers()

    def answer(self, data: bytes, left: float | None = None) -> bytes | Later[bytes]:
        """The CheckResponse for the CheckRequest in ``data``. Safe for threads.

        ``left`` is how many seconds Envoy waits for it, None when that is not known.
        """
        request = _UNKNOWN
        try:
            request = read(data)
            if left is not None:
                request.wait = min(max(left * _SHARE, _LEAST), _MOST)
            decision = self._check(request)
            if isinstance(decision, Later):
                return decision.map(lambda late: self._encode(request, late))
            return self._encode(request, decision)
        except UnreadableError:
            return self._deny(request, _UNREADABLE)
        except Exception as exc:  # noqa: BLE001 - see the class
            _log(exc)
            return self._deny(request, _INTERNAL)

    def _encode(self, request: Request, decision: Decision) -> bytes:
        try:
            return self._answers.encode(request, decision)
        except Exception as exc:  # noqa: BLE001 - see the class
            _log(exc)
            return self._deny(request, _INTERNAL)

    def _deny(self, request: Request, denied: Denied) -> bytes:
        try:
            self._refused(request, denied)
        except Exception as exc:  # noqa: BLE001 - see the class
            _log(exc)
        return self._answers.encode(request, denied)

    def refuse(self, data: bytes, left: float | None = None) -> bytes:
        """The answer for a check that there is no room for: denied ``overloaded``."""
        try:
            return self._deny(read(data), _OVERLOADED)
        except UnreadableError:
            return self._deny(_UNKNOWN, _UNREADABLE)


_UNKNOWN: Final = Request("envoy")


def _log(exc: Exception) -> None:
    log.error("a check was denied as internal: %s", where(exc))
