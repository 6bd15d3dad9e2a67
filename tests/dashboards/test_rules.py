"""Every alert fires, keeps quiet and says the right thing, as Prometheus' own tool judges it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate
from dashboards.alerts.catalogue import ALERTS, INHIBITIONS, labels, notes
from dashboards.catalogue import links, page_of
from dashboards.queries import names_in
from tests.dashboards.cases import CASES, Case
from tests.debian import program
from tests.docs.castline_commands import find_problem

RULES = generate.ROOT / generate.RULES
_BY_NAME = {alert.name: alert for alert in ALERTS}


def test_promtool_takes_the_rules() -> None:
    done = subprocess.run([program("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_case() -> None:
    assert [case.alert for case in CASES] == list(_BY_NAME)


def expected(case: Case) -> dict[str, Any]:
    alert = _BY_NAME[case.alert]
    wanted = notes(alert, *links(alert))
    for name, value in case.labels.items():
        wanted = {key: text.replace(f"{{{{ $labels.{name} }}}}", value) for key, text in wanted.items()}
    return {"exp_labels": {**labels(alert), **case.labels}, "exp_annotations": {**wanted, "summary": case.summary}}


def promtool_test(case: Case, series: dict[str, str], alerts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{case.at}m", "alertname": case.alert, "exp_alerts": alerts}],
    }


def needed(alert: str, folder: Path) -> Path:
    """The committed rule of `alert` and the recorded series that it reads: to evaluate all rules at each look takes ten times as long."""
    groups = {group["name"]: group["rules"] for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]}
    (rule,) = [rule for rules in groups.values() for rule in rules if rule.get("alert") == alert]
    read = names_in(rule["expr"])
    recorded = [one for one in groups["castline-recorded"] if one["record"] in read]
    assert all(names_in(one["expr"]).isdisjoint(other["record"] for other in groups["castline-recorded"]) for one in recorded)
    file = folder / "rules.yml"
    content = {"groups": [{"name": "castline-recorded", "rules": recorded}, {"name": "castline-alert", "rules": [rule]}]}
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def judged(folder: Path, *tests: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = folder / "rules.test.yml"
    ((minute, alert),) = {(one["alert_rule_test"][0]["eval_time"], one["alert_rule_test"][0]["alertname"]) for one in tests}
    # Long stories are looked at less often: each look evaluates every rule.
    every = f"{max(1, int(minute[:-1]) // 60)}m"
    # promtool takes the groups in any order unless it is told one: what is recorded comes before what reads it.
    order = ["castline-recorded", "castline-alert"]
    content = {"rule_files": [str(needed(alert, folder))], "evaluation_interval": every, "group_eval_order": order, "tests": list(tests)}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return subprocess.run([program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES, ids=[case.alert for case in CASES])
def test_an_alert_fires_with_the_right_text_and_keeps_quiet_otherwise(tmp_path: Path, case: Case) -> None:
    done = judged(tmp_path, promtool_test(case, case.fires, [expected(case)]), promtool_test(case, case.quiet, []))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    """The tool's verdict is what the cases stand on: it must be able to say no."""
    case = CASES[0]
    assert judged(tmp_path, promtool_test(case, case.fires, [])).returncode == 1
    assert judged(tmp_path, promtool_test(case, case.quiet, [expected(case)])).returncode == 1


def test_every_alert_leads_to_a_panel_that_leads_back_to_its_runbook() -> None:
    for alert in ALERTS:
        page = page_of(alert.page)
        panel = page.panels[page.place(alert.question) - 1]
        assert alert.name in panel.alerts, f"{alert.name} leads to {alert.question!r}, which does not name it"
    named = {name for page in map(page_of, {alert.page for alert in ALERTS}) for panel in page.panels for name in panel.alerts}
    assert named == set(_BY_NAME)


def test_every_alert_says_what_to_do() -> None:
    for alert in ALERTS:
        book = alert.runbook
        assert all(len(text) > 20 for text in (book.meaning, book.first_look, book.fix)), alert.name
        assert book.impact, alert.name


def test_the_runbooks_commands_exist() -> None:
    commands = set(re.findall(r"`(castline [^`]+)`", (generate.ROOT / "dashboards/RUNBOOK.md").read_text(encoding="utf-8")))
    assert len(commands) > 8
    assert {command: problem for command in commands if (problem := find_problem(command.split()))} == {}


def test_only_alerts_that_exist_silence_others_that_exist() -> None:
    named = {name for one in INHIBITIONS for name in (one.source, *one.targets)}
    assert named <= set(_BY_NAME)
    assert all(one.source not in one.targets for one in INHIBITIONS)
