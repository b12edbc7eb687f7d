"""One line of Envoy's access log as a file: what a finished request was, and what came of it.

The keys are those of ``fields``. What an entry of the gRPC log
means, a line means too (see ``entry``). Envoy escapes what clients send; still anything may
stand in a file, so whatever does not fit is unreadable and nothing more.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from vaultauthz.core.decision import Reason
from vaultauthz.core.events import Access
from vaultauthz.core.request import REQUEST_ID_LIMIT
from vaultauthz.envoy.access_logs import fields
from vaultauthz.envoy.access_logs.entry import BY_UPSTREAM, refused_by, sane

_MOST_STATUS: Final = 999
# How a line begins, as Envoy sorts the keys. Nobody's text has it, since quotes are escaped there.
_BEGINS: Final = f'{{"{min(fields.OPERATORS)}":'.encode()
_REQUEST_ID: Final = 5  # where it stands among a line's texts


class UnreadableLineError(ValueError):
    """It is no line of the printed access log."""


class FinishedRequest(NamedTuple):
    """A request that no check was made for."""

    access: Access
    node: str  # the Envoy; "" when the line does not say
    refused: Reason | None  # by Envoy itself
    status: int  # the upstream's own; 0 for none
    sent: bool  # to the upstream
    # Between when and when the credential was put on; None for times that make no sense.
    span: tuple[float, float] | None


def parse(lines: Sequence[bytes]) -> list[Any]:
    """The JSON value of each line, all at once; None for one that is none."""
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        found = []
    if len(found) == len(lines):
        return list(found)
    return [_parsed(line) for line in lines]


def _parsed(line: bytes) -> Any:
    """The value; of a line behind what is left of one that was cut short, that line's."""
    for text in (line, line[max(0, line.rfind(_BEGINS)) :]):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return None


def read(values: Any, now: float) -> FinishedRequest | None:
    """What a line's value tells; None for a request that a check was made for.

    ``now`` is the time in seconds since 1970. Stage and upstream are "" where the gateway's
    configuration names none.

    Raises:
        UnreadableLineError: it is not as printed.
    """
    try:
        return _read(values.get, now)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise UnreadableLineError from None


def _read(get: Any, now: float) -> FinishedRequest | None:
    if get(fields.CHECKED):
        return None
    stage, upstream = get(fields.STAGE) or "", get(fields.UPSTREAM)
    if upstream is None:
        stage, upstream = get(fields.ROUTE_STAGE) or "", get(fields.ROUTE_UPSTREAM) or ""
    node, caller, details = get(fields.NODE) or "", _caller(get), get(fields.DETAILS) or ""
    request_id, method = get(fields.REQUEST_ID) or "", get(fields.METHOD) or ""
    host, path = get(fields.HOST) or "", get(fields.PATH) or ""
    texts = (stage, upstream, node, caller, details, request_id, method, host, path)
    # Joined, to hear at once whether all of them are texts, and whether any is long.
    if len("".join(texts)) > fields.LONGEST_TEXT or len(request_id) > REQUEST_ID_LIMIT:
        stage, upstream, node, caller, details, request_id, method, host, path = _cut(texts)
    sent_us, begin = get(fields.SENT_US), float(get(fields.TIME))
    span = sane(begin, now if sent_us is None else begin + sent_us / 1e6, now)
    sent = sent_us is not None or (get(fields.ATTEMPTS) or 0) > 1
    status, refused = 0, None
    if details != BY_UPSTREAM:
        refused = refused_by(details.encode("utf-8", "replace"))
    elif sent:
        status = _status(get(fields.STATUS) or 0)
    at = now if span is None else span[0] if refused else span[1]
    access = Access(
        stage, upstream, at, True, "", "", caller, "envoy", request_id, method, host, path
    )
    return FinishedRequest(access, node, refused, status, sent, span)


def _caller(get: Any) -> Any:
    """As in a check: of the certificate; else a token's ``sub``, which may be anything."""
    if caller := get(fields.CALLER):
        return caller
    subject = get(fields.SUB)
    return subject if isinstance(subject, str) else ""


def _cut(texts: Sequence[str]) -> Sequence[str]:
    cut = [text[: fields.LONGEST_TEXT] for text in texts]
    cut[_REQUEST_ID] = cut[_REQUEST_ID][:REQUEST_ID_LIMIT]
    return cut


def _status(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MOST_STATUS:
        raise UnreadableLineError
    return value
