"""A live /metrics against the table from which docs/metrics.md is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

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
