"""What Envoy is told to write of each request, over gRPC and into a file, and by which names.

``envoy_config`` prints these, ``entry`` and ``line`` read them. The names of stage and upstream
are metadata, which no client can set.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from vaultauthz.core.request import REQUEST_ID_LIMIT

LONGEST_TEXT: Final = 1100  # of a text; the audit log shows 1024 characters

# Custom tags of the log over gRPC, for stage and upstream: from the cluster's metadata, and from the
# route's. The cluster's win, since its filters are what puts the credential on. A request that was
# refused before a cluster was chosen has the route's only.
CLUSTER_TAGS: Final = ("vaultauthz.stage", "vaultauthz.upstream")
ROUTE_TAGS: Final = ("vaultauthz.route.stage", "vaultauthz.route.upstream")

# Keys of a line of the file.
NODE: Final = "node"
TIME: Final = "time"
SENT_US: Final = "sent_us"
ATTEMPTS: Final = "attempts"
STATUS: Final = "status"
DETAILS: Final = "details"
REQUEST_ID: Final = "request_id"
METHOD: Final = "method"
HOST: Final = "host"
PATH: Final = "path"
UPSTREAM: Final = "upstream"
STAGE: Final = "stage"
ROUTE_UPSTREAM: Final = "route_upstream"
ROUTE_STAGE: Final = "route_stage"
CHECKED: Final = "checked"
CALLER: Final = "caller"
SUB: Final = "sub"

# What Envoy fills each of them with; but for the node's name, which is the printed one, and the
# claim, whose place depends on the filter that verifies tokens.
OPERATORS: Final = MappingProxyType(
    {
        TIME: "%START_TIME(%s.%6f)%",
        SENT_US: "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:us)%",
        ATTEMPTS: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        STATUS: "%RESPONSE_CODE%",
        DETAILS: "%RESPONSE_CODE_DETAILS%",
        REQUEST_ID: f"%REQ(X-REQUEST-ID):{REQUEST_ID_LIMIT}%",
        METHOD: f"%REQ(:METHOD):{LONGEST_TEXT}%",
        HOST: f"%REQ(:AUTHORITY):{LONGEST_TEXT}%",
        PATH: f"%PATH(NQ:PATH):{LONGEST_TEXT}%",
        UPSTREAM: "%CLUSTER_METADATA(vaultauthz:upstream)%",
        STAGE: "%CLUSTER_METADATA(vaultauthz:stage)%",
        ROUTE_UPSTREAM: "%METADATA(ROUTE:vaultauthz:upstream)%",
        ROUTE_STAGE: "%METADATA(ROUTE:vaultauthz:stage)%",
        CHECKED: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:credential_id)%",
        CALLER: (
            "%CEL(has(connection.uri_san_peer_certificate) ? connection.uri_san_peer_certificate : "
            "has(connection.dns_san_peer_certificate) ? connection.dns_san_peer_certificate : "
            f"connection.subject_peer_certificate):{LONGEST_TEXT}%"
        ),
    }
)


def claim_operator(metadata_filter: str, payload: str) -> str:
    """What ``SUB`` is filled with: of the token that this filter has filed under ``payload``."""
    return f"%DYNAMIC_METADATA({metadata_filter}:{payload}:sub):{LONGEST_TEXT}%"
