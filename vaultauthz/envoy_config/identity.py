"""The filter that verifies tokens, where a rule asks for claims."""

from __future__ import annotations

from typing import Final

from vaultauthz.envoy_config.claims import PAYLOAD
from vaultauthz.envoy_config.text import fill

_FILTER: Final = """
# Verifies tokens; the rules with `claims` look at what it found. It goes before what asks for them.
- name: envoy.filters.http.jwt_authn
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
    providers:
      identity_provider:
        # REPLACE: who issues tokens, whom they must be for, and where the issuer's keys are.
        issuer: https://login.example/
        audiences: [gateway.example]
        remote_jwks:
          http_uri: {uri: "https://login.example/keys", cluster: identity_provider, timeout: 2s}
          cache_duration: 300s
        # Where the claims are found afterwards. Another provider beside this one: the same name.
        payload_in_metadata: $payload
        # The token is for the gateway and ends here.
        forward: false
        require_expiration: true
    rules:
      - match: {prefix: /}
        # A token that is there must be good. One that is missing leaves the caller without claims.
        requires:
          requires_any:
            requirements: [{provider_name: identity_provider}, {allow_missing: {}}]
"""

_CLUSTER: Final = """
# REPLACE: where the keys of the tokens' issuer are fetched, three times.
- name: identity_provider
  type: LOGICAL_DNS
  dns_lookup_family: V4_PREFERRED
  connect_timeout: 2s
  load_assignment:
    cluster_name: identity_provider
    endpoints:
      - lb_endpoints:
          - endpoint: {address: {socket_address: {address: login.example, port_value: 443}}}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: login.example
      common_tls_context:
        validation_context:
          trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}
          match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: login.example}}]
"""


def http_filter() -> str:
    """The jwt_authn filter."""
    return fill(_FILTER, payload=PAYLOAD)


def cluster() -> str:
    """Where it fetches the issuer's keys."""
    return fill(_CLUSTER)
