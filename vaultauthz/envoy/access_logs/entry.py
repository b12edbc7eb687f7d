"""Envoy's HTTPAccessLogEntry, read: what one finished request was, and what came of it.

Nothing here is believed that a client can set, except to describe its own request. Upstream
and stage come from ext_authz's metadata, which is our own answer, or from custom tags, which
the gateway's configuration fills from the metadata of a cluster or route.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from google.protobuf.struct_pb2 import Struct

from vaultauthz._pb.accesslog_pb2 import AccessLogCommon, HTTPAccessLogEntry
from vaultauthz.core.decision import Reason
from vaultauthz.core.events import Access
from vaultauthz.core.request import REQUEST_ID_LIMIT
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
