"""``--mode sds``: Envoy puts the credential in by itself, and asks nobody about a request.

Each upstream's cluster has its rules, its secret and its removals in filters of its own, so
no route leads past them.
"""

from __future__ import annotations

import textwrap
from typing import Any, Final

from vaultauthz.config.sds_slots import TLS, Obstacle, kept_back, secret_name, slots, unfit
from vaultauthz.config.values import Upstream
from vaultauthz.core.readings import folded_header
from vaultauthz.envoy_config import services
from vaultauthz.envoy_config.expressions import either
from vaultauthz.envoy_config.plan import Target, cleared
from vaultauthz.envoy_config.rbac import Filters, Policies, UnsayableError, filters
from vaultauthz.envoy_config.templates import block, comment, fill, flow, join, scalar

_DEPTH: Final = 22  # columns in front of a policy

_FILTERS: Final = """
# In the cluster, so that they hold for each request that gets the credential, whatever route it came by.
# A path is compared as the service gets it, after a prefix_rewrite of the route.
http_filters:
  $deny
  $allow
  $removal
  $injectors
  - name: envoy.filters.http.upstream_codec
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec
"""

_RBAC: Final = """
$why
- name: $name
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules:
      action: $action
      policies:
        $policies
"""

_REMOVAL: Final = """
# The client's own: what is set below, also as servers may spell it, and what `strip` names.
- name: envoy.filters.http.header_mutation
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    mutations:
      request_mutations: $removed
"""

_INJECTOR: Final = """
- name: $name
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector
    # The default is false: then the client's header would win.
    overwrite: true
    # Without a credential nothing goes on (503 by the local_reply_config of the listener).
    allow_request_without_credential: false
    credential:
      name: envoy.http.injected_credentials.generic
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic
        header: $header
        # The secret is the whole value, `Bearer …` and `Basic …` included.
        credential:
          $secret
"""

_SECRET: Final = """
name: $name
sds_config:
  resource_api_version: V3
  # After so long Envoy begins to serve without it, with 503.
  initial_fetch_timeout: 5s
  # A stream for each secret. By `ads`, Envoy (1.40) would fall over a cluster that stands in its bootstrap.
  api_config_source:
    api_type: GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
      - envoy_grpc:
          cluster_name: vaultauthz
          # How soon Envoy asks again when vaultauthz is back. By default the waits grow to 30 s, and until
          # then it uses what it has.
          retry_policy: {retry_back_off: {base_interval: 0.2s, max_interval: 2s}}
"""

_CERTIFICATE: Final = """
# Who we are to the service: certificate and key come from Vault, and are replaced while Envoy runs.
$withheld
tls_certificate_sds_secret_configs:
  - $secret
"""

METADATA: Final = """
# Tells vaultauthz's access log whose credential it was.
metadata: {filter_metadata: {vaultauthz: $named}}
"""

LOGGED: Final = """
# Whose credential it was. Which one, vaultauthz's audit log says: Envoy does not know.
upstream: "%CLUSTER_METADATA(vaultauthz:upstream)%"
stage: "%CLUSTER_METADATA(vaultauthz:stage)%"
request_id: "%REQ(X-REQUEST-ID)%"
"""

UNKNOWN: Final = """
# Any other host has no service and no credential.
"""

# The same answers as vaultauthz's own.
LOCAL_REPLIES: Final = """
# Envoy's own answers in the form of vaultauthz's. No credential would be 401 without this, which tells
# the client that it is to blame.
local_reply_config:
  mappers:
    - filter: $no_credential
      status_code: 503
      headers_to_add: [{header: {key: retry-after, value: "1"}}]
      body_format_override: {json_format: {error: no_credential, request_id: "%REQ(X-REQUEST-ID)%"}}
    - filter: $denied
      body_format_override: {json_format: {error: caller_denied, request_id: "%REQ(X-REQUEST-ID)%"}}
"""


def obstacle(upstream: Upstream) -> Obstacle | None:
    """Why Envoy cannot put this upstream's credential in by itself; None when it can."""
    found = kept_back(upstream)
    if found:
        return found
    other = unfit(upstream.inject)
    if other:
        why = "where Envoy by itself sets headers and certificates only"
        return Obstacle("inject", f"injects {' and '.join(other)}, {why}")
    try:
        filters(upstream.callers)
    except UnsayableError as exc:
        return Obstacle(
            "callers", f"has a rule that Envoy cannot enforce as vaultauthz does: {exc}"
        )
    return None


def metadata(target: Target) -> str:
    """The names that the access log sends along."""
    named = flow({"upstream": target.upstream.name, "stage": target.stage})
    return fill(METADATA, named=named)


def protocol(target: Target) -> str:
    """The cluster's filters: who may, what goes, what comes in its place."""
    made = filters(target.upstream.callers)
    removed = _removed(target.upstream)
    own = fill(
        _FILTERS,
        deny=_deny(made) if made.deny else "",
        allow=_allow(made) if made.allow is not None else "",
        removal=fill(_REMOVAL, removed=flow(removed)) if removed else "",
        injectors=_injectors(target),
    )
    return services.protocols(target, own)


def _removed(upstream: Upstream) -> list[dict[str, Any]]:
    """What is dropped of the client's, each name with its aliases."""
    names = cleared(upstream)
    aliased = {folded_header(name) for name in names if "-" in name}
    spelt = ({"remove_on_match": {"key_matcher": _regex(either(n))}} for n in sorted(aliased))
    return [*spelt, *({"remove": name} for name in names if folded_header(name) not in aliased)]


def _regex(regex: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": regex}}


def certificate(target: Target) -> str:
    """The client certificate of the cluster's TLS; "" where the upstream wants none."""
    if TLS not in slots(target.upstream):
        return ""
    return fill(
        _CERTIFICATE,
        withheld=_withheld(target.upstream),
        secret=_secret(target, TLS),
    )


def _withheld(upstream: Upstream) -> str:
    """What the reader has to know where no certificate will come."""
    found = kept_back(upstream)
    if found is None:
        return ""
    return comment(f"NONE COMES, and requests are answered 503: {upstream.name} {found.why}.")


def _deny(made: Filters) -> str:
    why = "# `deny`, which wins over `callers`."
    if any(not name.startswith("deny[") for name in made.deny):
        why += "\n# First of all what servers read in more than one way, paths or methods, as the rules compare them."
    return _rbac("vaultauthz.deny", why, "DENY", made.deny)


def _allow(made: Filters) -> str:
    why = "# `callers`: one of these, or 403."
    again = "# Again by the method that a service may take from this header, if it is there."
    return join(
        _rbac("vaultauthz.callers", why, "ALLOW", made.allow or {}),
        *(
            _rbac(f"vaultauthz.callers.{header}", again, "ALLOW", policies)
            for header, policies in made.again.items()
        ),
    )


def _rbac(name: str, why: str, action: str, policies: Policies) -> str:
    parts = [
        f"{scalar(key)}:\n{textwrap.indent(block(policy, _DEPTH), '  ')}"
        for key, policy in policies.items()
    ]
    return fill(_RBAC, why=why, name=name, action=action, policies=join(*parts) or "{}")


def _injectors(target: Target) -> str:
    return join(
        *(
            fill(
                _INJECTOR,
                name=scalar(f"vaultauthz.{slot}"),
                header=scalar(slot),
                secret=_secret(target, slot),
            )
            for slot in slots(target.upstream)
            if slot != TLS
        )
    )


def _secret(target: Target, slot: str) -> str:
    """The reference to a secret."""
    return fill(_SECRET, name=scalar(secret_name(target.stage, target.upstream, slot)))


def local_replies() -> str:
    """The mapping from Envoy's own answers to ours."""
    return fill(
        LOCAL_REPLIES,
        no_credential=flow(_details("response.code_details == 'failed_to_inject_credential'")),
        denied=flow(_details("response.code_details.startsWith('rbac_access_denied')")),
    )


def _details(expression: str) -> dict[str, Any]:
    name = "envoy.access_loggers.extension_filters.cel"
    kind = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {
        "extension_filter": {
            "name": name,
            "typed_config": {"@type": kind, "expression": expression},
        }
    }
