"""The metrics' names, what they mean, and their labels: each that is listed here is shown."""

from __future__ import annotations

from typing import Final, NamedTuple


class MetricInfo(NamedTuple):
    """A metric as dashboards know it; ``name`` of a counter is without ``_total``."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


CHECKS: Final = MetricInfo(
    "vaultauthz_checks",
    "Checks answered, by decision; reason is empty for allowed ones.",
    ("stage", "upstream", "decision", "reason"),
)
CHECK_SECONDS: Final = MetricInfo(
    "vaultauthz_check_duration_seconds", "Seconds from a decoded check to its decision."
)
LEASE_EVENTS: Final = MetricInfo(
    "vaultauthz_lease_events",
    "What happened to logins and leases; the events of the audit log.",
    ("stage", "upstream", "event"),
)
VAULT_FAILURES: Final = MetricInfo(
    "vaultauthz_vault_failures", "Calls to Vault that did not work.", ("stage", "reason")
)
ANSWERS: Final = MetricInfo(
    "vaultauthz_upstream_answers",
    "Answers of upstreams that Envoy's access log told of, by class of status; none for no answer.",
    ("stage", "upstream", "status"),
)
REJECTIONS: Final = MetricInfo(
    "vaultauthz_rejections",
    "Times that an upstream's 401 to the credential in use was passed on; once a second at most.",
    ("stage", "upstream"),
)
ACCESS_IGNORED: Final = MetricInfo(
    "vaultauthz_access_log_ignored",
    "Entries of Envoy's access log that were passed over; too_large counts messages.",
    ("reason",),
)
ACCESS_LOG_BEHIND: Final = MetricInfo(
    "vaultauthz_access_log_behind_bytes",
    "Bytes of the access log that Envoy writes (audit.access_log) that wait to be read.",
)
LEASE_SECONDS: Final = MetricInfo(
    "vaultauthz_lease_seconds_left",
    "Seconds for which the credential in use stays usable; 0 without one.",
    ("stage", "upstream"),
)
REFUSED: Final = MetricInfo(
    "vaultauthz_credentials_refused",
    "Credentials in use that their upstream answers 401 to; 0 again once it answers otherwise (but 5xx).",
    ("stage", "upstream"),
)
OWN_LEASES: Final = MetricInfo(
    "vaultauthz_own_leases",
    "Leases of each caller's or request's own (per) that are alive at Vault, draining ones too.",
    ("stage", "upstream"),
)
LOGIN_SECONDS: Final = MetricInfo(
    "vaultauthz_login_seconds_left",
    "Seconds until the login to Vault ends; 0 without one.",
    ("stage",),
)
READY: Final = MetricInfo(
    "vaultauthz_ready",
    "1 while every upstream that is not optional has a credential for a request of now, the audit log is "
    "written, and gateways are not turned away before a stop (listen.drain).",
)
AUDIT_DROPPED: Final = MetricInfo(
    "vaultauthz_audit_dropped",
    "Checks, events and reported requests that the audit log could not take; such checks are refused.",
)
AUDIT_BEHIND: Final = MetricInfo(
    "vaultauthz_audit_behind_lines", "Lines of the audit log that wait to be written."
)
AUDIT_WORKING: Final = MetricInfo(
    "vaultauthz_audit_working",
    "1 while lines of the audit log are written, and in time; at 0 checks are refused.",
)
STREAMS: Final = MetricInfo(
    "vaultauthz_streams", "Streams that Envoys have open: secrets (SDS) and access logs (ALS)."
)
STREAMS_REFUSED: Final = MetricInfo(
    "vaultauthz_streams_refused", "Streams that were one too many, and were refused."
)
CHECKS_UNREAD: Final = MetricInfo(
    "vaultauthz_checks_unread",
    "Checks that failed before a decision: too_large (over 4 MiB), ended (before it was read).",
    ("reason",),
)
CLIENTS_REFUSED: Final = MetricInfo(
    "vaultauthz_clients_refused",
    "Calls refused to clients whose certificate has none of listen.grpc_tls.client_names.",
    ("service",),
)
TLS_SECONDS: Final = MetricInfo(
    "vaultauthz_tls_seconds_left",
    "Seconds until the certificate that new connections are shown ends; 0 once it has.",
    ("listener",),
)
TLS_CURRENT: Final = MetricInfo(
    "vaultauthz_tls_current",
    "1 while that is the certificate in the files; 0 while what is there is refused.",
    ("listener",),
)
TLS_REPLACED: Final = MetricInfo(
    "vaultauthz_tls_replacements",
    "Times that other files were found, by what became of them: taken, refused.",
    ("listener", "result"),
)
BUILD: Final = MetricInfo("vaultauthz_build", "The version that runs.", ("version", "python"))

LISTED: Final = tuple(one for one in tuple(globals().values()) if isinstance(one, MetricInfo))
