"""Dashboards are up to date, complete, laid out without overlaps, and query metrics that exist."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate
from dashboards.catalogue import METRICS_WITHOUT_PANEL, PAGES, build_dashboards, list_expressions
from dashboards.panels import COLUMNS, DATASOURCE_UID, DashboardPage
from dashboards.promql import FOREIGN_METRICS, find_metric_names, list_declared_metrics
from dashboards.rules import RECORDING_RULES

DOCUMENTS = build_dashboards()
QUERY_PAGES = [page for page in PAGES if any(panel.queries for panel in page.panels)]


def test_the_committed_files_are_those_of_the_code() -> None:
    assert generate.find_stale_files() == [], "Write them again with: make dashboards"


def test_changed_and_orphaned_files_are_found(tmp_path: Path) -> None:
    generate.write_files(tmp_path)
    assert generate.find_stale_files(tmp_path) == []
    (tmp_path / generate.RULES).write_text("groups: []")
    (tmp_path / "dashboards/json/castline-old.json").write_text("{}")
    assert generate.find_stale_files(tmp_path) == ["dashboards/json/castline-old.json", generate.RULES]
    generate.write_files(tmp_path)
    assert generate.find_stale_files(tmp_path) == []


def test_the_same_code_gives_the_same_bytes() -> None:
    assert generate.generate_files() == generate.generate_files()


@pytest.mark.parametrize("uid", DOCUMENTS)
def test_panels_stand_beside_each_other_on_24_columns(uid: str) -> None:
    places = [panel["gridPos"] for panel in DOCUMENTS[uid]["panels"]]
    assert all(place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= COLUMNS for place in places)

    def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        return not (beside or below)

    assert [pair for pair in combinations(places, 2) if overlap(*pair)] == []


@pytest.mark.parametrize("uid", DOCUMENTS)
def test_a_dashboard_loads_in_grafana_9_3(uid: str) -> None:
    document = DOCUMENTS[uid]
    # 37 is the schema of Grafana 9.3. Grafana migrates older documents, but cannot read all newer ones.
    assert document["schemaVersion"] <= 37
    assert document["uid"] == uid
    assert len(uid) <= 40
    assert {panel["type"] for panel in document["panels"]} <= {"timeseries", "stat", "text"}
    ids = [panel["id"] for panel in document["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    for panel in document["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": DATASOURCE_UID}


@pytest.mark.parametrize("page", QUERY_PAGES, ids=[page.uid for page in QUERY_PAGES])
def test_every_panel_has_a_question_and_a_description(page: DashboardPage) -> None:
    for panel, document in zip(page.panels, DOCUMENTS[page.uid]["panels"], strict=True):
        assert panel.title.endswith("?")
        assert len(panel.description) > 20
        assert document["description"] == panel.description
        defaults: dict[str, Any] = document["fieldConfig"]["defaults"]
        assert defaults["unit"]
        assert defaults["thresholds"]["steps"]
        assert len(document["targets"]) == len(panel.queries) >= 1
        assert len(document.get("links") or []) == len(panel.alerts)
    titles = [panel.title for panel in page.panels]
    assert len(titles) == len(set(titles))


def test_dashboards_are_chosen_by_plant_and_line() -> None:
    for page in QUERY_PAGES:
        assert [variable["name"] for variable in DOCUMENTS[page.uid]["templating"]["list"]] == ["plant", "line"]
        for panel in page.panels:
            for query in panel.queries:
                chosen = 'plant=~"$plant"' in query.expression or "ALERTS{" in query.expression
                assert chosen, f"{panel.title} shows other plants than the chosen one"


def test_a_link_to_the_runbook_leads_to_the_alert_of_its_name() -> None:
    runbook = {panel["id"]: panel["title"] for panel in DOCUMENTS["castline-runbook"]["panels"]}
    links = [link for document in DOCUMENTS.values() for panel in document["panels"] for link in panel.get("links") or []]
    assert len(links) > 20
    for link in links:
        place = re.fullmatch(r"/d/castline-runbook\?viewPanel=(\d+)", link["url"])
        assert place
        assert link["title"] == f"Runbook: {runbook[int(place[1])]}"


def find_shown_metrics() -> set[str]:
    placed = [placed for placed in list_expressions() if placed.place.startswith("castline-")]
    return {name for panel in placed for name in find_metric_names(panel.expression)}


def test_every_metric_on_a_dashboard_or_in_a_rule_is_declared() -> None:
    known = {name for metric in list_declared_metrics() for name in metric.series} | set(FOREIGN_METRICS)
    known |= {rule.name for rule in RECORDING_RULES}
    unknown = {placed.place: names for placed in list_expressions() if (names := find_metric_names(placed.expression) - known)}
    assert unknown == {}


def test_every_declared_metric_is_on_a_dashboard_or_has_a_reason() -> None:
    missing = {metric.name for metric in list_declared_metrics() if not metric.series & find_shown_metrics()}
    assert missing == set(METRICS_WITHOUT_PANEL)
    assert all(METRICS_WITHOUT_PANEL.values())


def test_names_are_found_in_an_expression() -> None:
    expression = 'sum by (castline_x) (rate(castline_a_total{line="castline_b"}[5m])) / line:castline_c:ratio_rate1h > up{job="x"}'
    assert find_metric_names(expression) == {"castline_x", "castline_a_total", "line:castline_c:ratio_rate1h", "up"}


def test_the_files_for_provisioning_have_the_uids_of_the_dashboards() -> None:
    source = yaml.safe_load((generate.ROOT / "dashboards/provisioning/datasource.yml").read_text())
    assert [entry["uid"] for entry in source["datasources"]] == [DATASOURCE_UID]
    for file in (generate.ROOT / "dashboards/json").glob("*.json"):
        assert json.loads(file.read_text())["uid"] == file.stem
