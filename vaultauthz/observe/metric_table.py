"""The one table of metrics: names, types, labels, what they mean and how many series there are at most.

``/metrics`` shows what is listed here and nothing else, docs/metrics.md is made from it (``make docs``),
and the names in the alert rules and the dashboard (``deploy/``) are held against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from vaultauthz.core import events
from vaultauthz.core.decision import Reason
from vaultauthz.core.events import Operation
from vaultauthz.core.grant import FAILURE_WORDS


class MetricType(StrEnum):
    """A metric's type, as its ``# TYPE`` line has it; ``INFO`` is a gauge of 1 with labels."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class MetricInfo(NamedTuple):
    """A metric as dashboards know it; ``name`` of a counter is without ``_total``, of an info without ``_info``.

    ``times``: how many series there are at most for each of what its labels ``stage`` and ``upstream`` say.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    type: MetricType = MetricType.GAUGE
    group: str = ""
    times: int = 1

    @property
    def shown(self) -> str:
        """Its name in a query; a histogram's has ``_bucket``, ``_sum`` or ``_count`` after it."""
        ending = {MetricType.COUNTER: "_total", MetricType.INFO: "_info"}.get(self.type, "")
        return self.name + ending

    def most(self, stages: int, upstreams: int) -> int:
        """How many series there may be; ``upstreams`` are those of each stage, added up.

        What the configuration does not name, or not any more, is one more of each, with an empty name.
        """
        if "upstream" in self.labels:
            return self.times * (upstreams + stages + 1)
        return self.times * (stages + 1 if "stage" in self.labels else 1)


HEALTH, CREDENTIALS, VAULT, CHECKING = "health", "credentials", "vault", "checks"
AUDIT, CERTIFICATES, GATEWAYS, PROCESS = "audit", "certificates", "gateways", "process"
GROUPS: Final = (HEALTH, CREDENTIALS, VAULT, CHECKING, AUDIT, CERTIFICATES, GATEWAYS, PROCESS)

_PLACE: Final = ("stage", "upstream")
_EVENTS: Final = sum(name.isupper() for name in vars(events))
# A check takes tens of microseconds; what takes longer is worth seeing apart.
CHECK_BUCKETS: Final = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 5e-3, 25e-3, 0.1)
# A call to Vault takes milliseconds, or all of vault.timeout, 10 s if not set.
CALL_BUCKETS: Final = (5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# How a credential stands, the worst first.
STATES: Final = ("none", "refused", "failing", "usable")
_STATUS_CLASSES: Final = 7
_BESIDES: Final = 3  # +Inf, _sum and _count of a histogram

READY: Final = MetricInfo(
    "vaultauthz_ready",
    "1 while every upstream that is not optional has a credential for a request of now, the audit log is "
    "written, and gateways are not turned away before a stop (listen.drain).",
    group=HEALTH,
)
RELOAD_TAKEN: Final = MetricInfo(
    "vaultauthz_config_last_reload_successful",
    "1 while the last reload was carried out, or there was none; 0 while what it read was refused.",
    group=HEALTH,
)
RELOAD_TIME: Final = MetricInfo(
    "vaultauthz_config_last_reload_success_timestamp_seconds",
    "When the configuration in use was read, in seconds since 1970.",
    group=HEALTH,
)
RELOADS: Final = MetricInfo(
    "vaultauthz_config_reloads",
    "Reloads of the configuration, by what became of them.",
    ("result",),
    MetricType.COUNTER,
    HEALTH,
    2,
)
BUILD: Final = MetricInfo(
    "vaultauthz_build",
    "The version that runs.",
    ("version", "python"),
    MetricType.INFO,
    HEALTH,
)

CREDENTIALS_BY_STATE: Final = MetricInfo(
    "vaultauthz_credentials",
    "Credentials by how they stand, each caller's or request's own (per), too.",
    ("stage", "state"),
    group=CREDENTIALS,
    times=len(STATES),
)
LEASE_SECONDS: Final = MetricInfo(
    "vaultauthz_lease_seconds_left",
    "Seconds for which the credential in use stays usable; 0 without one.",
    _PLACE,
    group=CREDENTIALS,
)
LEASE_TTL: Final = MetricInfo(
    "vaultauthz_lease_ttl_seconds",
    "Seconds for which the credential in use was last granted; no series without one, nor where it has no "
    "end or Vault changes it at times of its own.",
    _PLACE,
    group=CREDENTIALS,
)
LEASE_FAILED: Final = MetricInfo(
    "vaultauthz_lease_failed_calls",
    "Calls to Vault for the credential that failed in a row; 0 once one works.",
    _PLACE,
    group=CREDENTIALS,
)
REFUSED: Final = MetricInfo(
    "vaultauthz_credentials_refused",
    "Credentials in use that their upstream answers 401 to; 0 again once it answers otherwise (but 5xx).",
    _PLACE,
    group=CREDENTIALS,
)
REJECTIONS: Final = MetricInfo(
    "vaultauthz_rejections",
    "Times that an upstream's 401 to the credential in use was passed on; once a second at most.",
    _PLACE,
    MetricType.COUNTER,
    CREDENTIALS,
)
OWN_LEASES: Final = MetricInfo(
    "vaultauthz_own_leases",
    "Leases of each caller's or request's own (per) that are alive at Vault, draining ones too.",
    _PLACE,
    group=CREDENTIALS,
)
LEASE_EVENTS: Final = MetricInfo(
    "vaultauthz_lease_events",
    "What happened to logins and leases; the events of the audit log.",
    (*_PLACE, "event"),
    MetricType.COUNTER,
    CREDENTIALS,
    _EVENTS,
)

LOGIN_SECONDS: Final = MetricInfo(
    "vaultauthz_login_seconds_left",
    "Seconds until the login to Vault ends; 0 without one.",
    ("stage",),
    group=VAULT,
)
LOGIN_TTL: Final = MetricInfo(
    "vaultauthz_login_ttl_seconds",
    "Seconds for which the login token was last granted; no series without one, nor for one without an end.",
    ("stage",),
    group=VAULT,
)
LOGIN_FAILED: Final = MetricInfo(
    "vaultauthz_login_failed_calls",
    "Logins and renewals of the token that failed in a row; 0 once one works.",
    ("stage",),
    group=VAULT,
)
VAULT_CALLS: Final = MetricInfo(
    "vaultauthz_vault_calls",
    "Calls to Vault, by what they asked for and the answer; one for each node that was asked.",
    ("stage", "operation", "status"),
    MetricType.COUNTER,
    VAULT,
    len(Operation) * _STATUS_CLASSES,
)
VAULT_CALL_SECONDS: Final = MetricInfo(
    "vaultauthz_vault_call_duration_seconds",
    "Seconds that calls to Vault took, with a new connection where there was none.",
    ("stage", "operation"),
    MetricType.HISTOGRAM,
    VAULT,
    len(Operation) * (len(CALL_BUCKETS) + _BESIDES),
)
VAULT_FAILURES: Final = MetricInfo(
    "vaultauthz_vault_failures",
    "Calls to Vault that did not work.",
    ("stage", "reason"),
    MetricType.COUNTER,
    VAULT,
    len(FAILURE_WORDS) + 1,
)

CHECKS: Final = MetricInfo(
    "vaultauthz_checks",
    "Checks answered, by decision; reason is empty for allowed ones.",
    (*_PLACE, "decision", "reason"),
    MetricType.COUNTER,
    CHECKING,
    len(Reason) + 1,
)
CHECK_SECONDS: Final = MetricInfo(
    "vaultauthz_check_duration_seconds",
    "Seconds from a decoded check to its decision.",
    type=MetricType.HISTOGRAM,
    group=CHECKING,
    times=len(CHECK_BUCKETS) + _BESIDES,
)
CHECKS_UNREAD: Final = MetricInfo(
    "vaultauthz_checks_unread",
    "Checks that failed before a decision: too_large (over 4 MiB), ended (before it was read).",
    ("reason",),
    MetricType.COUNTER,
    CHECKING,
    2,
)
ANSWERS: Final = MetricInfo(
    "vaultauthz_upstream_answers",
    "Answers of upstreams that a gateway told of (Envoy's access log, Kong's log phase).",
    (*_PLACE, "status"),
    MetricType.COUNTER,
    CHECKING,
    _STATUS_CLASSES,
)

AUDIT_WORKING: Final = MetricInfo(
    "vaultauthz_audit_working",
    "1 while lines of the audit log are written, and in time; at 0 checks are refused.",
    group=AUDIT,
)
AUDIT_BEHIND: Final = MetricInfo(
    "vaultauthz_audit_behind_lines",
    "Lines of the audit log that wait to be written; at 5,000 checks are refused.",
    group=AUDIT,
)
AUDIT_DROPPED: Final = MetricInfo(
    "vaultauthz_audit_dropped",
    "Checks, events and reported requests that the audit log could not take; such checks are refused.",
    type=MetricType.COUNTER,
    group=AUDIT,
)
ACCESS_LOG_BEHIND: Final = MetricInfo(
    "vaultauthz_access_log_behind_bytes",
    "Bytes of the access log that Envoy writes (audit.access_log) that wait to be read.",
    group=AUDIT,
)
ACCESS_IGNORED: Final = MetricInfo(
    "vaultauthz_access_log_ignored",
    "Entries of Envoy's access log that were passed over; too_large counts messages.",
    ("reason",),
    MetricType.COUNTER,
    AUDIT,
    7,
)

CERTIFICATE_LEFT: Final = MetricInfo(
    "vaultauthz_certificate_seconds_left",
    "Seconds until a certificate in use ends; 0 once it has. Of an upstream's callers' own (per) the first to end.",
    ("use", *_PLACE),
    group=CERTIFICATES,
    times=2,
)
CERTIFICATE_END: Final = MetricInfo(
    "vaultauthz_certificate_expiration_timestamp_seconds",
    "When a certificate in use ends (notAfter), since unix epoch in seconds.",
    ("use", *_PLACE),
    group=CERTIFICATES,
    times=2,
)
TLS_SECONDS: Final = MetricInfo(
    "vaultauthz_tls_seconds_left",
    "Seconds until the certificate that new connections are shown ends; 0 once it has.",
    ("listener",),
    group=CERTIFICATES,
    times=2,
)
TLS_CURRENT: Final = MetricInfo(
    "vaultauthz_tls_current",
    "1 while that is the certificate in the files; 0 while what is there is refused.",
    ("listener",),
    group=CERTIFICATES,
    times=2,
)
TLS_REPLACED: Final = MetricInfo(
    "vaultauthz_tls_replacements",
    "Times that other files were found, by what became of them.",
    ("listener", "result"),
    MetricType.COUNTER,
    CERTIFICATES,
    4,
)

CONNECTIONS: Final = MetricInfo(
    "vaultauthz_gateway_connections",
    "Connections that gateways have open; Envoy has one or more for each of its threads.",
    ("door",),
    group=GATEWAYS,
)
STREAMS: Final = MetricInfo(
    "vaultauthz_streams",
    "Streams that Envoys have open: secrets (SDS) and access logs (ALS).",
    group=GATEWAYS,
)
STREAMS_REFUSED: Final = MetricInfo(
    "vaultauthz_streams_refused",
    "Streams that were one too many, and were refused.",
    type=MetricType.COUNTER,
    group=GATEWAYS,
)
CLIENTS_REFUSED: Final = MetricInfo(
    "vaultauthz_clients_refused",
    "Calls refused to clients whose certificate has none of listen.grpc_tls.client_names.",
    ("service",),
    MetricType.COUNTER,
    GATEWAYS,
    4,
)

ADMIN_REFUSED: Final = MetricInfo(
    "vaultauthz_admin_refused",
    "Requests to the admin address that were refused, by its answer's `error`; slow: connections hung up on.",
    ("reason",),
    MetricType.COUNTER,
    GATEWAYS,
    40,
)

# Those of prometheus_client's own collector, on Linux.
_PROCESS: Final = (
    ("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ("process_resident_memory_bytes", "Resident memory size in bytes."),
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
    ("process_open_fds", "Number of open file descriptors."),
    ("process_max_fds", "Maximum number of open file descriptors."),
)
CPU_SECONDS: Final = MetricInfo(
    "process_cpu_seconds",
    "Total user and system CPU time spent in seconds.",
    type=MetricType.COUNTER,
    group=PROCESS,
)

LISTED: Final = (
    *(one for one in tuple(globals().values()) if isinstance(one, MetricInfo)),
    *(MetricInfo(name, text, group=PROCESS) for name, text in _PROCESS),
)

# What a label says, and what its values are: stable words, never what a client, Envoy or Vault wrote.
LABELS: Final[Mapping[str, str]] = {
    "stage": "a stage of the configuration",
    "upstream": "an upstream of the configuration; empty for a login, and where no upstream of it was asked for",
    "state": "`none`: there is none, requests are answered 503; `refused`: its service answers it with 401; `failing`: "
    "it is good, and the last call to Vault for it failed; `usable`. The first that holds",
    "operation": ", ".join(f"`{one}`" for one in Operation),
    "decision": "`allowed`, `denied`",
    "reason": "of a check: as in [Answers to the gateway](architecture.md#answers-to-the-gateway). Of "
    "`vaultauthz_vault_failures_total`: `away` (Vault cannot be reached, or cannot serve), `retry` (what passes by "
    "itself), `refused` (it does not), `locked` (not tried again by itself), `lease_gone`, `secret_gone`, "
    "`token_dead`, `other`; the log has the sentence. Else the words that the metric's line and "
    "[envoy.md](envoy.md) name",
    "event": "as in the [audit log](configuration.md#audit)",
    "status": "the class of an HTTP status: `1xx` to `5xx`, `other`; `none` where there was no answer",
    "use": "what for: `grpc` and `admin` (a listener shows it), `vault` (we show it to Vault), `upstream` "
    "(Envoy shows it to an upstream, by SDS)",
    "listener": "`grpc` (`listen.grpc_tls`), `admin` (`listen.admin_tls`)",
    "result": "`taken`, `refused`",
    "service": "a gRPC service: Envoy's for checks, secrets (SDS), all discovery (ADS) or access logs (ALS)",
    "door": "`envoy` (`listen.grpc`), `kong` (our plugin server)",
    "version": "vaultauthz's",
    "python": "Python's",
}
