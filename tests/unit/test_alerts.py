"""What watches vaultauthz names metrics that there are: the alert rules, their runbook, the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from vaultauthz.observe.metric_table import GROUPS, LISTED, MetricInfo, MetricType

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "deploy/prometheus/vaultauthz.rules.yaml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy/grafana/vaultauthz.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
_NAME = re.compile(r"\b(?:vaultauthz|process)_\w+")
_WIDTH = 24  # of Grafana's grid


def shown(metric: MetricInfo) -> set[str]:
    """The names of its series."""
    if metric.type is MetricType.HISTOGRAM:
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.shown}


KNOWN = {name: metric for metric in LISTED for name in shown(metric)}


def labels_asked(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric with each label that its selector names."""
    for name, selector in re.findall(r"\b((?:vaultauthz|process)_\w+)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            yield name, label


def expressions() -> list[str]:
    """Of the rules, the panels and the variables."""
    panels = [target["expr"] for panel in PANELS for target in panel["targets"]]
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"][1:]]
    return [*(rule["expr"] for rule in ALERTS), *panels, *variables]


@pytest.mark.parametrize("expression", expressions())
def test_each_metric_and_label_is_one(expression: str) -> None:
    """Metrics of the table, which a live /metrics is held against; labels of theirs, or of a scrape."""
    assert set(_NAME.findall(expression)) <= set(KNOWN)
    for name, label in labels_asked(expression):
        assert label in (*KNOWN[name].labels, "instance", "job"), f"{name}: {label}"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """How bad it is, what is so, and the paragraph that says what it means, what to look at and what to do."""
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    page, anchor = notes["runbook_url"].split("#")
    assert anchor == rule["alert"].lower()
    text = (ROOT / page).read_text().split("\n## Alerts\n")[1].split("\n## ")[0]
    section = text.split(f"\n### {rule['alert']}\n")[1].split("\n### ")[0]
    parts = re.findall(r"^\*(Means|Look at|Do)\*: \S", section, re.MULTILINE)
    assert parts == ["Means", "Look at", "Do"]


def test_no_paragraph_is_about_an_alert_that_there_is_not() -> None:
    """In the order of the rules."""
    text = (ROOT / "docs/operations.md").read_text().split("\n## Alerts\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == [rule["alert"] for rule in ALERTS]


def test_the_dashboard_shows_every_metric() -> None:
    """By one of its series at least."""
    asked = {
        name for panel in PANELS for one in panel["targets"] for name in _NAME.findall(one["expr"])
    }
    assert [metric.name for metric in LISTED if not shown(metric) & asked] == []


def test_the_dashboard_has_its_parts() -> None:
    """A row for each group of metrics, health first; the source of data and what is looked at can be chosen."""
    rows = [panel["title"].lower() for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert tuple(rows) == GROUPS
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "instance", "stage", "upstream"]
    for name, one in variables.items():
        assert one["type"] == ("datasource" if name == "datasource" else "query")
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert [one["datasource"] for one in panel["targets"]] == [source] * len(panel["targets"])
        assert panel["datasource"] == source
    assert DASHBOARD["id"] is None  # else it would take another's place


def test_no_panel_covers_another() -> None:
    """Each has an id and a place of its own."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    for title, at in places:
        assert at["x"] + at["w"] <= _WIDTH, title
    for (one, a), (other, b) in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one, other)
