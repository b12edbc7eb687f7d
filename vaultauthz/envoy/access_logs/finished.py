"""One finished request, as Envoy tells of it: what it was, and what came of it.

An HTTPAccessLogEntry over gRPC, or a line of a file; what the one means, the other means too. Nothing
here is believed that a client can set, except to describe its own request. Upstream and stage come
from ext_authz's metadata, which is our own answer, or from custom tags (over gRPC) and keys (of a line),
which the gateway's configuration fills from the metadata of a cluster or route: see ``fields``. Envoy
escapes what clients send; still anything may stand in a file, so whatever does not fit is unreadable
and nothing more.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.struct_pb2 import Struct

from vaultauthz._pb.accesslog_pb2 import AccessLogCommon, HTTPAccessLogEntry
from vaultauthz.core.decision import Reason
from vaultauthz.core.events import Access
from vaultauthz.core.request import REQUEST_ID_LIMIT
from vaultauthz.envoy.access_logs import fields
from vaultauthz.envoy.access_logs.fields import CLUSTER_TAGS, LONGEST_TEXT, ROUTE_TAGS
from vaultauthz.envoy.access_logs.history import SKEW
from vaultauthz.envoy.request import JWT_NAMESPACE

EXT_AUTHZ_NAMESPACE: Final = "envoy.filters.http.ext_authz"
# Envoy's reports of a request that goes on, or has just begun, are not its end.
_ENDS: Final = (0, 6)
BY_UPSTREAM: Final = "via_upstream"
_BY_UPSTREAM: Final = BY_UPSTREAM.encode()
# How Envoy's filters say (1.40) that they refused a request themselves.
_REFUSALS: Final = (
    (b"failed_to_inject_credential", Reason.NO_CREDENTIAL),
    (b"rbac_access_denied", Reason.CALLER_DENIED),
    (b"jwt_authn_access_denied", Reason.CALLER_DENIED),
)
# envoy.config.core.v3.RequestMethod
_METHODS: Final = (
    "", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
)  # fmt: skip
_LONGEST: Final = 30 * 86400.0  # seconds of one request


Span = tuple[float, float]  # seconds since 1970
_MOST_STATUS: Final = 999
# How a line begins, as Envoy sorts the keys. Nobody's text has it, since quotes are escaped there.
_BEGINS: Final = f'{{"{min(fields.OPERATORS)}":'.encode()
_REQUEST_ID: Final = 5  # where it stands among a line's texts


class Checked(NamedTuple):
    """What we ourselves had answered about the request, by ext_authz."""

    stage: str
    upstream: str
    credential_id: str  # "" when it was denied


def ended(common: AccessLogCommon) -> bool:
    """Whether the entry is the one that tells of the request's end."""
    return common.access_log_type in _ENDS


def checked(common: AccessLogCommon) -> Checked | None:
    """Our check's answer, where there was a check that gave or denied a credential."""
    data = common.metadata.filter_metadata.get(EXT_AUTHZ_NAMESPACE)
    if not data:
        return None
    fields = Struct.FromString(data).fields
    if "credential_id" not in fields and "reason" not in fields:
        return None

    def text(name: str) -> str:
        return fields[name].string_value if name in fields else ""

    return Checked(text("stage"), text("upstream"), text("credential_id"))


def tagged(common: AccessLogCommon) -> tuple[str, str]:
    """Stage and upstream by the gateway's configuration; ("", "") where it names none."""
    tags = common.custom_tags
    for stage, upstream in (CLUSTER_TAGS, ROUTE_TAGS):
        if upstream in tags:
            return _text(tags.get(stage, b"")), _text(tags[upstream])
    return "", ""


def was_sent(common: AccessLogCommon) -> bool:
    """Whether the request went to its upstream, in the last attempt or, perhaps, one before."""
    tried_again = common.upstream_request_attempt_count > 1
    return tried_again or common.HasField("time_to_first_upstream_tx_byte")


def upstream_status(entry: HTTPAccessLogEntry) -> int:
    """The status that the upstream itself answered; 0 when it did not."""
    response = entry.response
    if response.response_code_details != _BY_UPSTREAM or not was_sent(entry.common_properties):
        return 0
    return response.response_code.value


def refusal(entry: HTTPAccessLogEntry) -> Reason | None:
    """Why Envoy refused the request itself, where that is a matter for the audit."""
    return refused_by(entry.response.response_code_details)


def refused_by(details: bytes) -> Reason | None:
    """The same by Envoy's own words for what became of the request."""
    for opening, reason in _REFUSALS:
        if details.startswith(opening):
            return reason
    return None


def span(common: AccessLogCommon, now: float) -> Span | None:
    """Between when and when the credential was put on; None for times that make no sense.

    Each attempt gets the credential anew, at some time between the request's start and its
    first byte to the upstream.
    """
    begin = common.start_time.seconds + common.start_time.nanos / 1e9
    end = now
    if common.HasField("time_to_first_upstream_tx_byte"):
        taken = common.time_to_first_upstream_tx_byte
        end = begin + taken.seconds + taken.nanos / 1e9
    return sane(begin, end, now)


def sane(begin: float, end: float, now: float) -> Span | None:
    """This span, never later than ``now``; None when it makes no sense."""
    if not now - _LONGEST <= begin <= end <= now + SKEW:
        return None
    return min(begin, now), min(end, now)


def access_of(entry: HTTPAccessLogEntry, stage: str, upstream: str, at: float) -> Access:
    """The entry as an access by whom, to what; nothing yet of the credential."""
    request = entry.request
    method = request.request_method
    return Access(
        stage,
        upstream,
        at,
        caller=_caller(entry.common_properties),
        gateway="envoy",
        request_id=_text(request.request_id)[:REQUEST_ID_LIMIT],
        method=_METHODS[method] if 0 <= method < len(_METHODS) else "",
        host=_text(request.authority),
        # At once without its query: there may be a credential of ours in it.
        path=_text(request.path.partition(b"?")[0]),
    )


def _caller(common: AccessLogCommon) -> str:
    """As in a check: the certificate's URI, or DNS name, or subject; else a token's ``sub``."""
    certificate = common.tls_properties.peer_certificate_properties
    names = certificate.subject_alt_name
    uri = next((name.uri for name in names if name.uri), b"")
    principal = uri or next((name.dns for name in names if name.dns), certificate.subject)
    if principal:
        return _text(principal)
    data = common.metadata.filter_metadata.get(JWT_NAMESPACE)
    for token in Struct.FromString(data).fields.values() if data else ():
        claims = token.struct_value.fields
        if "sub" in claims and claims["sub"].string_value:
            return claims["sub"].string_value
    return ""


def _text(value: bytes) -> str:
    return value[:LONGEST_TEXT].decode("utf-8", "replace")


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


def parse_lines(lines: Sequence[bytes]) -> list[Any]:
    """The JSON value of each line, all at once; None for one that is none."""
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        found = []
    if len(found) == len(lines):
        return list(found)
    return [_parsed_line(line) for line in lines]


def _parsed_line(line: bytes) -> Any:
    """The value; of a line behind what is left of one that was cut short, that line's."""
    for text in (line, line[max(0, line.rfind(_BEGINS)) :]):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return None


def read_line(values: Any, now: float) -> FinishedRequest | None:
    """What a line's value tells; None for a request that a check was made for.

    ``now`` is the time in seconds since 1970. Stage and upstream are "" where the gateway's
    configuration names none.

    Raises:
        UnreadableLineError: it is not as printed.
    """
    try:
        return _read_line(values.get, now)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise UnreadableLineError from None


def _read_line(get: Any, now: float) -> FinishedRequest | None:
    if get(fields.CHECKED):
        return None
    stage, upstream = get(fields.STAGE) or "", get(fields.UPSTREAM)
    if upstream is None:
        stage, upstream = get(fields.ROUTE_STAGE) or "", get(fields.ROUTE_UPSTREAM) or ""
    node, caller, details = get(fields.NODE) or "", _line_caller(get), get(fields.DETAILS) or ""
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


def _line_caller(get: Any) -> Any:
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
