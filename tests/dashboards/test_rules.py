"""Every alert fires when it should, with the right text, and only then. Prometheus' own tool checks it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from dashboards import generate
from dashboards.catalogue import ALERTS, INHIBITIONS, find_page, make_annotations
from dashboards.promql import find_metric_names
from streams.metrics import initialise_counters
from tests.dashboards.alert_cases import CASES, AlertCase
from tests.debian import find_program
from tests.docs.castline_commands import find_problem

RULES = generate.ROOT / generate.RULES
_BY_NAME = {alert.name: alert for alert in ALERTS}


def test_promtool_accepts_the_rules() -> None:
    result = subprocess.run([find_program("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_its_case() -> None:
    assert [case.alert for case in CASES] == list(_BY_NAME)


def make_expected_alert(case: AlertCase) -> dict[str, Any]:
    alert = _BY_NAME[case.alert]
    annotations = make_annotations(alert)
    for name, value in case.labels.items():
        annotations = {key: text.replace(f"{{{{ $labels.{name} }}}}", value) for key, text in annotations.items()}
    return {"exp_labels": {**alert.labels, **case.labels}, "exp_annotations": {**annotations, "summary": case.summary}}


def promtool_test(case: AlertCase, series: dict[str, str], alerts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{case.minute}m", "alertname": case.alert, "exp_alerts": alerts}],
    }


def write_needed_rules(alert: str, folder: Path) -> Path:
    """Writes a file with the committed rule of `alert` and the recording rules it reads. All rules would take ten times as long."""
    groups = {group["name"]: group["rules"] for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]}
    (rule,) = [rule for rules in groups.values() for rule in rules if rule.get("alert") == alert]
    names = find_metric_names(rule["expr"])
    recorded = [recording for recording in groups["castline-recorded"] if recording["record"] in names]
    all_recorded = {recording["record"] for recording in groups["castline-recorded"]}
    assert all(find_metric_names(recording["expr"]).isdisjoint(all_recorded) for recording in recorded)
    file = folder / "rules.yml"
    content = {"groups": [{"name": "castline-recorded", "rules": recorded}, {"name": "castline-alert", "rules": [rule]}]}
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def run_promtool(folder: Path, *tests: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = folder / "rules.test.yml"
    ((minute, alert),) = {(test["alert_rule_test"][0]["eval_time"], test["alert_rule_test"][0]["alertname"]) for test in tests}
    # Long series are evaluated less often, because each evaluation takes time.
    interval = f"{max(1, int(minute[:-1]) // 60)}m"
    # Without an order promtool evaluates the groups in any order. Recording rules must come before the alerts that read them.
    order = ["castline-recorded", "castline-alert"]
    content = {
        "rule_files": [str(write_needed_rules(alert, folder))],
        "evaluation_interval": interval,
        "group_eval_order": order,
        "tests": list(tests),
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return subprocess.run([find_program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES, ids=[case.alert for case in CASES])
def test_an_alert_fires_with_the_right_text_and_only_when_it_should(tmp_path: Path, case: AlertCase) -> None:
    result = run_promtool(tmp_path, promtool_test(case, case.fires, [make_expected_alert(case)]), promtool_test(case, case.quiet, []))
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    """The cases rely on promtool, so promtool must be able to fail."""
    case = CASES[0]
    assert run_promtool(tmp_path, promtool_test(case, case.fires, [])).returncode == 1
    assert run_promtool(tmp_path, promtool_test(case, case.quiet, [make_expected_alert(case)])).returncode == 1


def test_every_alert_leads_to_a_panel_that_leads_back_to_its_runbook() -> None:
    for alert in ALERTS:
        page = find_page(alert.dashboard_uid)
        panel = page.panels[page.panel_id(alert.panel_title) - 1]
        assert alert.name in panel.alerts, f"{alert.name} leads to {alert.panel_title!r}, which does not name the alert"
    named = {name for page in map(find_page, {alert.dashboard_uid for alert in ALERTS}) for panel in page.panels for name in panel.alerts}
    assert named == set(_BY_NAME)


def test_every_alert_has_a_complete_runbook() -> None:
    for alert in ALERTS:
        book = alert.runbook
        assert all(len(text) > 20 for text in (book.meaning, book.first_look, book.fix)), alert.name
        assert book.impact, alert.name


@pytest.mark.parametrize("name", ["PicturesUnmatched", "CameraLatencyUnknown", "CameraLatencyWrong", "CameraLatencyDrifts"])
def test_the_runbooks_of_unmatched_pictures_advise_to_measure_the_latency_and_not_to_widen_the_window(name: str) -> None:
    """Release 0.1.0 advised to raise match_window_s, which gave more pictures to the neighbours of their parts."""
    fix = _BY_NAME[name].runbook.fix
    assert "castline gateway measure" in fix
    advice = [sentence for sentence in fix.split(". ") if "match_window_s" in sentence]
    assert all("Do not raise" in sentence or "only if the part reports come late" in sentence for sentence in advice), advice


def test_the_runbooks_commands_exist() -> None:
    commands = set(re.findall(r"`(castline [^`]+)`", (generate.ROOT / "dashboards/RUNBOOK.md").read_text(encoding="utf-8")))
    assert len(commands) > 8
    assert {command: problem for command in commands if (problem := find_problem(command.split()))} == {}


def test_inhibitions_name_alerts_that_exist() -> None:
    named = {name for inhibition in INHIBITIONS for name in (inhibition.source, *inhibition.targets)}
    assert named <= set(_BY_NAME)
    assert all(inhibition.source not in inhibition.targets for inhibition in INHIBITIONS)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        *((action, "unmatched") for action in ("diverted", "passed", "stopped")),
        *(("untracked", reason) for reason in ("board-restarted", "unmatched", "fault", "late-verdict")),
    ],
)
def test_the_alert_about_lost_castings_sees_the_first_one(action: str, reason: str) -> None:
    """If a counter began with the first lost casting, Prometheus would see no increase."""
    initialise_counters("sorter", "line-9")
    labels = {"line": "line-9", "action": action, "reason": reason}
    assert REGISTRY.get_sample_value("castline_parts_sorted_total", labels) == 0
