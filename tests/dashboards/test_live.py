"""A running plant under a real Prometheus: every question of the dashboards has its answer, and no alert fires."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dashboards import generate
from dashboards.alerts.catalogue import ALERTS
from dashboards.catalogue import EMPTY_IN_HEALTH, Asked, asked
from dashboards.inventory import declared
from dashboards.queries import names_in
from dashboards.scraping import Remote, Scraping, prometheus_config
from deploy.supervisor.ports import free_ports
from tests.dashboards.running import CASTLINE, HostedStack, Plant, Prometheus

pytestmark = [pytest.mark.real, pytest.mark.timeout(280)]

_TOKEN = "of-the-hosted-stack"
_REFUSALS = 2
_WATCHED_S = 18  # longer than the time that a panel's rate looks back here
# Grafana's variables as they are with `All` chosen.
_CHOSEN = {"$plant": ".*", "$line": ".*", "$__rate_interval": "16s", "$__range": "1m"}


@dataclass(frozen=True)
class Observed:
    """A plant that runs and what watches it."""

    plant: Plant
    prometheus: Prometheus
    stack: HostedStack


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """One run for all questions."""
    folder = tmp_path_factory.mktemp("plant")
    token = folder / "token"
    token.write_text(_TOKEN)
    stack = HostedStack(_REFUSALS)
    plant = Plant(folder)
    prometheus: Prometheus | None = None
    try:
        plant.wait_until(lambda: bool(list(folder.glob("castline-demo-*/run/targets/inspector-1.json"))), 120)
        rules = str(generate.ROOT / generate.RULES)
        files = (f"{plant.run_folder}/run/targets/*.json",)
        config = folder / "prometheus.yml"
        config.write_text(prometheus_config(Scraping("north", files, rules, remote=Remote(stack.url, str(token)), every_s=2)))
        prometheus = Prometheus(folder, config, free_ports())
        plant.wait_until(lambda: " running; " in plant.said and "; verdicts 0 " not in plant.said.splitlines()[-1], 180)
        time.sleep(_WATCHED_S)
        yield Observed(plant, prometheus, stack)
    finally:
        if prometheus:
            prometheus.stop()
        plant.stop()
        stack.stop()


def in_force(expression: str) -> str:
    for name, value in _CHOSEN.items():
        expression = expression.replace(name, value)
    return expression


def returns_data(prometheus: Prometheus, one: Asked) -> bool:
    return any(series["value"][1] != "NaN" for series in prometheus.ask(in_force(one.expression)))


def test_every_process_is_found_by_its_file(observed: Observed) -> None:
    up = {series["metric"]["instance_name"]: series for series in observed.prometheus.ask("up")}
    assert set(up) == {"gateway-1", "inspector-1", "archivist-1", "station-1", "sorter-line-1-1", "sorter-line-2-1"}
    assert {series["value"][1] for series in up.values()} == {"1"}
    assert {series["metric"]["plant"] for series in up.values()} == {"north"}
    assert all("pid" not in series["metric"] for series in up.values())


def test_every_expression_of_panels_and_recorded_series_returns_data_or_is_listed(observed: Observed) -> None:
    questions = [one for one in asked() if not one.where.startswith("alert: ")]
    assert len(questions) > 90
    empty = [one.where for one in questions if not returns_data(observed.prometheus, one)]
    assert set(empty) - set(EMPTY_IN_HEALTH) == set()


def test_what_is_listed_as_empty_in_health_exists_and_has_a_reason() -> None:
    assert set(EMPTY_IN_HEALTH) <= {one.where for one in asked()}
    assert all(EMPTY_IN_HEALTH.values())


def test_no_alert_fires_in_health(observed: Observed) -> None:
    assert observed.prometheus.get("/api/v1/alerts")["alerts"] == []
    firing = [alert.name for alert in ALERTS if observed.prometheus.ask(alert.expression)]
    assert firing == []


def test_every_metric_that_an_alert_reads_is_there_before_the_trouble(observed: Observed) -> None:
    """An alert on a series that begins with the trouble misses its first occurrence."""
    read = {name for alert in ALERTS for name in names_in(alert.expression)}
    absent = {name for name in read if not observed.prometheus.ask(name)}
    # Which reasons a version may be refused for is known when it is.
    assert absent - {"castline_model_refused_total"} == set()


def test_prometheus_has_taken_all_rules_without_an_error(observed: Observed) -> None:
    rules = [rule for group in observed.prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= len(ALERTS)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_what_the_processes_show_is_declared(observed: Observed) -> None:
    known = {name for one in declared() for name in one.series} | {f"{one.name.removesuffix('_total')}_created" for one in declared()}
    names = {name for name in observed.prometheus.get("/api/v1/label/__name__/values") if name.startswith("castline_")}
    assert len(names) > 40
    assert {name for name in names - known if not name.endswith("_created")} == set()


def test_labels_are_bounded_in_number(observed: Observed) -> None:
    """A label of parts or pictures would make more series with every casting."""
    found = observed.prometheus.ask('topk(3, count by (__name__, instance_name) ({__name__=~"castline_.*"}))')
    assert max(int(series["value"][1]) for series in found) < 150


def test_a_hosted_stack_that_refused_at_first_gets_its_samples_with_the_token(observed: Observed) -> None:
    assert observed.stack.refused == _REFUSALS
    assert observed.stack.taken > 0
    assert observed.stack.tokens == {f"Bearer {_TOKEN}"}


def test_top_shows_the_lines_of_the_running_plant(observed: Observed) -> None:
    settings = observed.plant.run_folder / "castline.toml"
    call = [sys.executable, str(CASTLINE), "--settings", str(settings), "top", "--plain", "--seconds", "7"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert " running; " in said[-1]
    assert "; parts 0;" not in said[-1]
    assert "verdicts 0 " not in said[-1]
    assert "waiting for" not in said[-1]
    # Ages are those of the verdicts between two looks: on a busy machine there may be none between the last two.
    assert any("age p50/p99 " in line and "age p50/p99 -/-" not in line for line in said), done.stdout


def test_top_without_a_running_plant_says_what_it_looked_for(tmp_path: Path) -> None:
    call = [sys.executable, str(CASTLINE), "top", "--targets", str(tmp_path / "*.json")]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert f"No running process is listed in {tmp_path / '*.json'}" in done.stderr
