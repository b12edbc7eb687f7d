"""A live /metrics against the table from which docs/metrics.md is made."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.contract import faults
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.running import database, fake, kv
from tests.contract.served_bed import Asked, served
from vaultauthz.observe.metric_table import LISTED

UPSTREAMS = {"pay": database("pay"), "geo": database("geo"), "one": kv("one")}


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role, two databases and two keys."""
    with fake() as made:
        yield made


@pytest.fixture
def asked(vault: FakeVault, tmp_path: Path) -> Iterator[Asked]:
    """A whole server that is ready."""
    with served(vault, tmp_path, UPSTREAMS) as server:
        assert wait_until(lambda: server.readyz()[0] == 200)
        yield server


def scraped(asked: Asked) -> dict[str, list[Sample]]:
    """The samples by the name that a query has, as a Prometheus gets them."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.samples
        for family in text_string_to_metric_families(asked.scrape())
    }


def test_what_is_shown_is_what_is_documented(asked: Asked) -> None:
    """Each name, and each name's labels; process_* too."""
    found = scraped(asked)
    assert set(found) == {metric.shown for metric in LISTED}
    for metric in LISTED:
        for sample in found[metric.shown]:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample


def test_the_calls_of_a_start_are_counted(asked: Asked) -> None:
    """By stage, what they asked for and the answer; each has its time."""
    name, labels = "vaultauthz_vault_calls_total", ("stage", "operation", "status")
    samples = scraped(asked)
    found = {tuple(one.labels[key] for key in labels): one.value for one in samples[name]}
    done = {"login": 1, "issue": 2, "mount_lookup": 1, "read": 1}
    assert found == {("production", operation, "2xx"): count for operation, count in done.items()}
    timed = samples["vaultauthz_vault_call_duration_seconds"]
    counts = {one.labels["operation"]: one.value for one in timed if one.name.endswith("_count")}
    assert counts == done


def test_a_failure_is_counted_by_a_word(asked: Asked, vault: FakeVault) -> None:
    """Of a lease and of its revocation; the sentence is in the log."""
    name = "vaultauthz_vault_failures_total"

    def counted(word: str) -> bool:
        return f'{name}{{reason="{word}",stage="production"}}' in asked.scrape()

    vault.deny("database/creds/pay")
    asked.service.engine.keeper.rotate("pay")
    assert wait_until(lambda: counted("refused"))
    vault.fault(faults.status(503, "Vault is sealed"), "sys/leases/revoke")
    asked.service.engine.keeper.revoke("geo")
    assert wait_until(lambda: counted("away") or counted("retry"))


def test_reloads_are_counted_and_the_last_is_told(asked: Asked, tmp_path: Path) -> None:
    """A refused one until another is carried out; since when the one in use is there."""
    last, at = "vaultauthz_config_last_reload_successful", "vaultauthz_config_last_reload_success"
    file, begun = tmp_path / "c.yaml", asked.gauge(f"{at}_timestamp_seconds")
    file.write_text("upstreams: nothing\n")
    asked.service.reload(file)
    assert (asked.gauge(last), asked.gauge(f"{at}_timestamp_seconds")) == (0, begun)
    assert asked.gauge('vaultauthz_config_reloads_total{result="refused"}') == 1
    file.write_text(yaml.safe_dump(asked.document))
    asked.service.reload(file)
    assert asked.gauge(last) == 1
    assert asked.gauge(f"{at}_timestamp_seconds") > begun
    assert asked.gauge('vaultauthz_config_reloads_total{result="taken"}') == 1


def test_connections_of_envoys_are_counted(asked: Asked) -> None:
    """Those that are open, of the door's own socket; not an operator's, whose socket is in the same folder."""
    series = 'vaultauthz_gateway_connections{door="envoy"}'
    with socket.socket(socket.AF_UNIX) as operator:
        operator.connect(str(asked.folder / "a.sock"))
        asked.scrape()  # on another one, which was taken after the first
        assert asked.gauge(series) == 0
    with socket.socket(socket.AF_UNIX) as envoy:
        envoy.connect(str(asked.folder / "g.sock"))
        assert wait_until(lambda: asked.gauge(series) == 1)
    assert wait_until(lambda: asked.gauge(series) == 0)


def test_there_are_no_more_series_than_the_table_says(asked: Asked) -> None:
    """Whatever callers and gateways say: checks of every answer, upstreams that nobody has configured."""
    metrics = asked.service.metrics
    for number in range(200):
        metrics.count_answer("production", f"u{number}", number * 5)
        metrics.count_rejection(f"s{number}", "pay")
    counts = {name: len(samples) for name, samples in scraped(asked).items()}
    bounds = {metric.shown: metric.most(1, len(UPSTREAMS)) for metric in LISTED}
    assert Counter(counts) - Counter(bounds) == Counter()
    assert counts["vaultauthz_upstream_answers_total"] == 7
