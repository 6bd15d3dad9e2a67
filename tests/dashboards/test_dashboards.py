"""Dashboards: fresh, whole, laid out without overlaps, and made of metrics that exist."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate
from dashboards.alerts.recording import RECORDINGS
from dashboards.catalogue import PAGES, UNSHOWN, asked, documents
from dashboards.inventory import declared
from dashboards.panels import COLUMNS, DATASOURCE, Page
from dashboards.queries import FOREIGN, names_in

DOCUMENTS = documents()
QUESTIONS = [page for page in PAGES if any(panel.queries for panel in page.panels)]


def test_the_committed_files_are_what_the_code_says() -> None:
    assert generate.stale() == [], "write them again with: make dashboards"


def test_a_changed_file_and_one_left_over_are_found(tmp_path: Path) -> None:
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []
    (tmp_path / generate.RULES).write_text("groups: []")
    (tmp_path / "dashboards/json/castline-old.json").write_text("{}")
    assert generate.stale(tmp_path) == ["dashboards/json/castline-old.json", generate.RULES]
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []


def test_the_same_code_gives_the_same_bytes() -> None:
    assert generate.files() == generate.files()


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
    found = DOCUMENTS[uid]
    # 37 is the schema of Grafana 9.3: an older document is migrated, a newer one may mean what it does not know.
    assert found["schemaVersion"] <= 37
    assert found["uid"] == uid
    assert len(uid) <= 40
    assert {panel["type"] for panel in found["panels"]} <= {"timeseries", "stat", "text"}
    ids = [panel["id"] for panel in found["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    for panel in found["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": DATASOURCE}


@pytest.mark.parametrize("page", QUESTIONS, ids=[page.uid for page in QUESTIONS])
def test_every_panel_asks_a_question_and_says_why(page: Page) -> None:
    for panel, shown in zip(page.panels, DOCUMENTS[page.uid]["panels"], strict=True):
        assert panel.question.endswith("?")
        assert len(panel.why) > 20
        assert shown["description"] == panel.why
        defaults: dict[str, Any] = shown["fieldConfig"]["defaults"]
        assert defaults["unit"]
        assert defaults["thresholds"]["steps"]
        assert len(shown["targets"]) == len(panel.queries) >= 1
        assert len(shown.get("links") or []) == len(panel.alerts)
    questions = [panel.question for panel in page.panels]
    assert len(questions) == len(set(questions))


def test_dashboards_are_chosen_by_plant_and_line() -> None:
    for page in QUESTIONS:
        assert [one["name"] for one in DOCUMENTS[page.uid]["templating"]["list"]] == ["plant", "line"]
        for panel in page.panels:
            for query in panel.queries:
                chosen = 'plant=~"$plant"' in query.expression or "ALERTS{" in query.expression
                assert chosen, f"{panel.question} looks at other plants than the one chosen"


def test_a_link_to_the_runbook_leads_to_the_alert_of_its_name() -> None:
    runbook = {panel["id"]: panel["title"] for panel in DOCUMENTS["castline-runbook"]["panels"]}
    links = [link for found in DOCUMENTS.values() for panel in found["panels"] for link in panel.get("links") or []]
    assert len(links) > 20
    for link in links:
        place = re.fullmatch(r"/d/castline-runbook\?viewPanel=(\d+)", link["url"])
        assert place
        assert link["title"] == f"Runbook: {runbook[int(place[1])]}"


def shown() -> set[str]:
    return {name for one in asked() if one.where.startswith("castline-") for name in names_in(one.expression)}


def test_every_metric_on_a_dashboard_or_in_a_rule_is_declared() -> None:
    known = {name for one in declared() for name in one.series} | set(FOREIGN) | {one.name for one in RECORDINGS}
    unknown = {one.where: strange for one in asked() if (strange := names_in(one.expression) - known)}
    assert unknown == {}


def test_every_declared_metric_is_on_a_dashboard_or_has_a_reason() -> None:
    missing = {one.name for one in declared() if not one.series & shown()}
    assert missing == set(UNSHOWN)
    assert all(UNSHOWN.values())


def test_names_are_found_in_an_expression() -> None:
    expression = 'sum by (castline_x) (rate(castline_a_total{line="castline_b"}[5m])) / line:castline_c:ratio_rate1h > up{job="x"}'
    assert names_in(expression) == {"castline_x", "castline_a_total", "line:castline_c:ratio_rate1h", "up"}


def test_files_for_provisioning_name_what_the_dashboards_ask_for() -> None:
    source = yaml.safe_load((generate.ROOT / "dashboards/provisioning/datasource.yml").read_text())
    assert [one["uid"] for one in source["datasources"]] == [DATASOURCE]
    for file in (generate.ROOT / "dashboards/json").glob("*.json"):
        assert json.loads(file.read_text())["uid"] == file.stem
