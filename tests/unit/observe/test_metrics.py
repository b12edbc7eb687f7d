"""The metrics as Prometheus reads them."""

from __future__ import annotations

import math
import platform
import re
from threading import Thread

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.decision import Allowed, Denied, Reason
from vaultauthz.core.events import FAILED, ISSUED, LOGIN, Event, Exchange, Operation
from vaultauthz.core.grant import FAILURE_WORDS, Failure, Verdict
from vaultauthz.core.lease_row import LeaseRow
from vaultauthz.observe.gauges import DoorGauges, Gauges, Reloads
from vaultauthz.observe.metric_table import LABELS, LISTED
from vaultauthz.observe.metrics import Metrics

FAR = 1e12  # seconds since 1970
PAIRS = [("production", "payments"), ("staging", "payments")]
RELOADS = Reloads(1000.0, taken=2, refused=1, last_taken=False)
ROWS = [
    LeaseRow("production", "", "held", ttl=None),
    LeaseRow("staging", "", "empty", failures=3, usable=False),
    LeaseRow("production", "payments", "held", seconds_left=12.5, ttl=60.0, refused=4),
    LeaseRow("staging", "payments", "lapsed", usable=False, failures=2, ttl=60.0),
    LeaseRow("staging", "payments", "renewing", caller="a", shared=False, failures=1, refused=2),
    LeaseRow("staging", "payments", "held", caller="b", shared=False, failures=1),
    LeaseRow("staging", "payments", "held", caller="c", shared=False, refused=1),
]


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of a small configuration, with gauges."""
    made = Metrics(PAIRS, "1.2.3")
    made.watch(
        Gauges(
            rows=lambda: ROWS,
            known=lambda: [*PAIRS, ("staging", "quiet")],
            ready=lambda: True,
            reloads=RELOADS,
            audit_dropped=lambda: 3,
            audit_behind=lambda: 7,
            audit_working=lambda: False,
            own_leases=lambda: [("staging", "payments", 7)],
            door=DoorGauges(
                connections=lambda: {"envoy": 6},
                clients_refused=lambda: {"envoy.service.auth.v3.Authorization": 4},
            ),
            certificates=lambda _: [
                EndingCertificate("grpc", FAR, taken=2, refused=1),
                EndingCertificate("admin", 1.0, trouble="it is being written", refused=5),
                EndingCertificate("vault", math.inf, "production"),
                EndingCertificate("upstream", FAR, "production", "payments"),
            ],
        )
    )
    return made


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Each sample under its name and label values (labels in the order of their names)."""
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_every_listed_metric_is_there(metrics: Metrics) -> None:
    """What the table promises is in the text, with its type and help, and nothing else is."""
    text = metrics.text()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert types == {m.shown: str(m.type).replace("info", "gauge") for m in LISTED}
    for metric in LISTED:
        assert f"# HELP {metric.shown} {metric.help}\n" in text
    assert "_created" not in text


def test_certificates_and_clients(metrics: Metrics) -> None:
    """One that has ended has nothing left; what is refused is told apart from what was taken."""
    found = samples(metrics)
    assert 0 < found["vaultauthz_tls_seconds_left", "grpc"] < FAR
    assert found["vaultauthz_tls_seconds_left", "admin"] == 0
    assert ("vaultauthz_tls_seconds_left", "vault") not in found
    left, end = (
        "vaultauthz_certificate_seconds_left",
        "vaultauthz_certificate_expiration_timestamp_seconds",
    )
    # The labels in the order of their names: stage, upstream, use.
    assert found[end, "production", "payments", "upstream"] == FAR
    assert (
        found[left, "production", "payments", "upstream"]
        == found["vaultauthz_tls_seconds_left", "grpc"]
    )
    assert (found[left, "", "", "admin"], found[end, "", "", "admin"]) == (0, 1)
    assert found[left, "production", "", "vault"] == math.inf
    current = [found["vaultauthz_tls_current", name] for name in ("grpc", "admin")]
    assert current == [1, 0]
    assert found["vaultauthz_tls_replacements_total", "grpc", "taken"] == 2
    assert found["vaultauthz_tls_replacements_total", "admin", "refused"] == 5
    assert found["vaultauthz_clients_refused_total", "envoy.service.auth.v3.Authorization"] == 4


def test_checks(metrics: Metrics) -> None:
    """Checks are counted by stage, upstream, decision and reason, and timed."""
    metrics.count(Allowed("payments", "production", None), 3e-5)
    metrics.count(Allowed("payments", "production", None), 3e-5)
    metrics.count(Denied(Reason.NO_CREDENTIAL, "payments", "staging"), 2.0)
    found = samples(metrics)
    name = "vaultauthz_checks_total"
    assert found[name, "allowed", "", "production", "payments"] == 2
    assert found[name, "denied", "no_credential", "staging", "payments"] == 1
    assert found["vaultauthz_check_duration_seconds_bucket", "5e-05"] == 2
    assert found["vaultauthz_check_duration_seconds_count",] == 3


def test_durations_are_a_histogram(metrics: Metrics) -> None:
    """Each bucket holds all that took no longer than its bound says, the last one everything."""
    for seconds in (25e-6, 26e-6, 0.1, 7.0):
        metrics.count(Allowed("payments", "production", None), seconds)
    found = samples(metrics)
    name = "vaultauthz_check_duration_seconds"
    buckets = [found[f"{name}_bucket", bound] for bound in ("2.5e-05", "5e-05", "0.1", "+Inf")]
    assert buckets == [1, 2, 3, 4]
    assert found[f"{name}_sum",] == pytest.approx(7.100051)


def test_checks_go_by_the_names_of_their_time(metrics: Metrics) -> None:
    """A check is shown under the upstream that it was for, though a reload drops it afterwards."""
    metrics.count(Allowed("payments", "production", None), 0.0)
    metrics.configured([("production", "other")])
    metrics.count(Allowed("payments", "production", None), 0.0)
    found = samples(metrics)
    assert found["vaultauthz_checks_total", "allowed", "", "production", "payments"] == 1
    assert found["vaultauthz_checks_total", "allowed", "", "production", ""] == 1


def test_unknown_names_make_no_series(metrics: Metrics) -> None:
    """An upstream or stage that the configuration lacks is counted under an empty name."""
    for number in range(100):
        metrics.count(Denied(Reason.NO_UPSTREAM, f"u{number}", "production"), 0.0)
        metrics.count(Denied(Reason.NO_UPSTREAM, "payments", f"s{number}"), 0.0)
    found = {key: value for key, value in samples(metrics).items() if "checks_total" in key[0]}
    assert found == {
        ("vaultauthz_checks_total", "denied", "no_upstream", "production", ""): 100,
        ("vaultauthz_checks_total", "denied", "no_upstream", "", ""): 100,
    }


def test_events(metrics: Metrics) -> None:
    """Events of leases and logins are counted; a failed call also by a word, however long its reason."""
    metrics.record_event(Event(ISSUED, "production", "payments"))
    metrics.record_event(Event(LOGIN, "production"))
    metrics.record_event(Event(FAILED, "staging", reason="Vault is sealed", failure="away"))
    found = samples(metrics)
    assert found["vaultauthz_lease_events_total", "lease.issued", "production", "payments"] == 1
    assert found["vaultauthz_lease_events_total", "login", "production", ""] == 1
    assert found["vaultauthz_vault_failures_total", "away", "staging"] == 1


def test_answers_of_upstreams(metrics: Metrics) -> None:
    """Answers are counted by class of status, names that nobody configured under none."""
    for status in (200, 204, 401, 0, 999):
        metrics.count_answer("production", "payments", status)
    metrics.count_answer("production", "made-up", 200)
    metrics.count_rejection("production", "payments")
    metrics.count_ignored("too_many", 7)
    found = samples(metrics)
    name = "vaultauthz_upstream_answers_total"
    counts = {key[1:]: value for key, value in found.items() if key[0] == name}
    ours = {status: counts["production", status, "payments"] for status in ("4xx", "none", "other")}
    assert ours == {"4xx": 1, "none": 1, "other": 1}
    assert counts["production", "2xx", "payments"] == 2
    assert counts["production", "2xx", ""] == 1
    assert found["vaultauthz_rejections_total", "production", "payments"] == 1
    assert found["vaultauthz_access_log_ignored_total", "too_many"] == 7


def test_reasons_are_bounded(metrics: Metrics) -> None:
    """Should reasons ever vary without end, the series don't."""
    for number in range(1000):
        made = Event(FAILED, "staging", "payments", reason=f"try {number}", failure=f"f{number}")
        metrics.record_event(made)
    found = {k: v for k, v in samples(metrics).items() if "failures_total" in k[0]}
    assert found == {("vaultauthz_vault_failures_total", "other", "staging"): 1000}


def test_a_failure_has_a_word_of_a_few() -> None:
    """By its verdict; but Vault's own absence is told apart from what one engine says."""
    of_verdicts = {Failure(verdict, "a sentence").word for verdict in Verdict}
    away = Failure(Verdict.RETRY, "a sentence", away=True).word
    assert (away, *sorted(of_verdicts)) == ("away", *sorted(set(FAILURE_WORDS) - {"away"}))
    assert all(re.fullmatch("[a-z_]+", word) for word in FAILURE_WORDS)
    assert all(f"`{word}`" in LABELS["reason"] for word in FAILURE_WORDS)


def test_gauges(metrics: Metrics) -> None:
    """Gauges are asked for at the scrape; what is not to be used has 0 seconds, what has no end is infinite."""
    found = samples(metrics)
    assert found["vaultauthz_lease_seconds_left", "production", "payments"] == 12.5
    assert found["vaultauthz_lease_seconds_left", "staging", "payments"] == 0
    assert found["vaultauthz_own_leases", "staging", "payments"] == 7
    assert found["vaultauthz_lease_ttl_seconds", "production", "payments"] == 60
    assert ("vaultauthz_lease_ttl_seconds", "staging", "payments") not in found
    assert found["vaultauthz_lease_failed_calls", "staging", "payments"] == 2
    assert found["vaultauthz_credentials_refused", "production", "payments"] == 1
    assert found["vaultauthz_credentials_refused", "staging", "payments"] == 2
    assert found["vaultauthz_credentials_refused", "staging", "quiet"] == 0
    assert found["vaultauthz_login_seconds_left", "production"] == math.inf
    assert found["vaultauthz_login_seconds_left", "staging"] == 0
    assert ("vaultauthz_login_ttl_seconds", "production") not in found
    assert found["vaultauthz_login_failed_calls", "staging"] == 3
    assert found["vaultauthz_gateway_connections", "envoy"] == 6
    assert found["vaultauthz_ready",] == 1
    assert found["vaultauthz_audit_dropped_total",] == 3
    assert found["vaultauthz_build_info", platform.python_version(), "1.2.3"] == 1


def test_a_credential_is_in_the_worst_state_that_holds(metrics: Metrics) -> None:
    """Each is counted once, and a state that none is in is there with 0."""
    found = {
        key[1:]: v for key, v in samples(metrics).items() if key[0] == "vaultauthz_credentials"
    }
    states = ("none", "refused", "failing", "usable")
    assert [found["production", state] for state in states] == [0, 1, 0, 0]
    assert [found["staging", state] for state in states] == [1, 2, 1, 0]
    assert len(found) == 8


def test_reloads() -> None:
    """The last one's outcome, when the configuration in use was read, and how many of each there were."""
    reloads = Reloads(1000.0)
    metrics = Metrics(PAIRS, "1.2.3")
    metrics.watch(Gauges(tuple, tuple, lambda: True, reloads, lambda: 0))

    def told() -> list[float]:
        found, name = samples(metrics), "vaultauthz_config_"
        counts = [found[f"{name}reloads_total", result] for result in ("taken", "refused")]
        last = found[f"{name}last_reload_successful",]
        return [last, found[f"{name}last_reload_success_timestamp_seconds",], *counts]

    assert told() == [1, 1000, 0, 0]
    reloads.refuse()
    assert told() == [0, 1000, 0, 1]
    reloads.took(2000.0)
    assert told() == [1, 2000, 1, 1]


def test_calls_to_vault(metrics: Metrics) -> None:
    """Counted by what they asked for and the class of the answer, timed by the first; of no stage that is gone."""
    for status, seconds in ((200, 0.02), (204, 0.3), (503, 0.02), (0, 60.0)):
        metrics.record_call(Exchange("staging", Operation.ISSUE, status, seconds))
    metrics.record_call(Exchange("gone", Operation.TOKEN_REVOKE, 403, 0.02))
    found, name = samples(metrics), "vaultauthz_vault_calls_total"
    counts = {key[1:]: value for key, value in found.items() if key[0] == name}
    assert counts == {
        ("issue", "staging", "2xx"): 2,
        ("issue", "staging", "5xx"): 1,
        ("issue", "staging", "none"): 1,
        ("token_revoke", "", "4xx"): 1,
    }
    name = "vaultauthz_vault_call_duration_seconds"
    bounds = ("0.01", "0.025", "0.5", "30.0", "+Inf")
    buckets = [found[f"{name}_bucket", bound, "issue", "staging"] for bound in bounds]
    assert buckets == [0, 2, 3, 3, 4]
    assert found[f"{name}_sum", "issue", "staging"] == pytest.approx(60.34)


def test_new_configuration(metrics: Metrics) -> None:
    """After a reload new upstreams have names and the counts go on."""
    metrics.count(Allowed("payments", "production", None), 0.0)
    metrics.configured([*PAIRS, ("production", "geocoder")])
    metrics.count(Allowed("payments", "production", None), 0.0)
    metrics.count(Allowed("geocoder", "production", None), 0.0)
    found = samples(metrics)
    assert found["vaultauthz_checks_total", "allowed", "", "production", "payments"] == 2
    assert found["vaultauthz_checks_total", "allowed", "", "production", "geocoder"] == 1


def test_no_count_is_lost_between_threads(metrics: Metrics) -> None:
    """Counts from several threads add up, the first ones of a series too."""

    def work() -> None:
        for _ in range(2000):
            metrics.count(Denied(Reason.CALLER_DENIED, "payments", "staging"), 0.0)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    key = ("vaultauthz_checks_total", "denied", "caller_denied", "staging", "payments")
    assert samples(metrics)[key] == 8000


def test_default_registry_is_left_alone(metrics: Metrics) -> None:
    """An embedding program's own registry has nothing of ours, and two of us can live together."""
    Metrics(PAIRS, "1.2.3")
    assert metrics.text()
    assert not any(family.name.startswith("vaultauthz") for family in REGISTRY.collect())
