"""The alert rules and the dashboard's expressions by Prometheus's own promtool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.prometheus import DASHBOARD, RULES, filled_in, promtool

pytestmark = pytest.mark.integration

TESTS = RULES.with_name("vaultauthz.rules.test.yaml")


def test_promtool_takes_the_rules() -> None:
    """As it would those of anybody who copies them."""
    status, said = promtool("check", "rules", RULES)
    assert status == 0, said


def test_promtool_runs_their_tests() -> None:
    """Each alert is silent while all is well, and is there when it is not."""
    status, said = promtool("test", "rules", TESTS)
    assert status == 0, said


def test_promtool_takes_the_dashboard(tmp_path: Path) -> None:
    """Each expression, as Grafana asks it of Prometheus."""
    document = json.loads(DASHBOARD.read_text())
    targets = [one for panel in document["panels"] for one in panel.get("targets", ())]
    records = [
        {"record": f"panel:{number}", "expr": filled_in(one["expr"], "1m")}
        for number, one in enumerate(targets)
    ]
    assert len(records) > 40
    file = tmp_path / "records.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    status, said = promtool("check", "rules", file)
    assert status == 0, said


def test_each_alert_is_tried_both_ways() -> None:
    """On and off."""
    tried = {
        (one["alertname"], bool(one["exp_alerts"]))
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for one in test["alert_rule_test"]
    }
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert tried == {(rule["alert"], on) for rule in rules for on in (True, False)}


def test_promtool_notices_a_rule_that_is_another(tmp_path: Path) -> None:
    """The tests hold the bounds: a fifth, a third, a week."""
    text = RULES.read_text()
    for before, after in (("_seconds / 3", "_seconds / 2"), ("7 * 86400", "30 * 86400")):
        assert before in text
        (tmp_path / RULES.name).write_text(text.replace(before, after))
        (tmp_path / TESTS.name).write_text(TESTS.read_text())
        assert promtool("test", "rules", tmp_path / TESTS.name)[0] == 1, after
