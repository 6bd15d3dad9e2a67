"""A running plant with a real Prometheus: every panel has data, and no alert fires."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from dashboards import generate
from dashboards.catalogue import ALERTS, EMPTY_IN_HEALTH, PlacedExpression, list_expressions
from dashboards.prometheus import RemoteWrite, ScrapeConfig, make_prometheus_config
from dashboards.promql import find_metric_names, list_declared_metrics
from deploy.supervisor.ports import free_ports
from tests.dashboards.live_plant import CASTLINE, DemoPlant, HostedStack, PrometheusServer, StallWatch

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

_TOKEN = "of-the-hosted-stack"
_REFUSALS = 2
# Broker, gateway, inspector, localiser, archivist, station and two sorters.
_PROCESSES = 8
# Longer than the range of the rates in the panels.
_RUN_S = 18
# A board reports a fault if it hears nothing from its sorter for 2 s. Then a plant is not in health.
_HARMFUL_STALL_S = 1.0
_ATTEMPTS = 3
# Values of Grafana's variables when `All` is chosen.
_VARIABLES = {"$plant": ".*", "$line": ".*", "$__rate_interval": "16s", "$__range": "1m"}


@dataclass(frozen=True)
class MonitoredPlant:
    """A running plant with its monitoring."""

    plant: DemoPlant
    prometheus: PrometheusServer
    stack: HostedStack
    # What `castline top` printed while the plant ran.
    top: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredPlant]:
    """Runs one plant for all tests. If the machine stands still meanwhile, runs another one, because the gates rightly report that."""
    for _ in range(_ATTEMPTS):
        with ExitStack() as stack, StallWatch() as watch:
            plant = _start_plant(tmp_path_factory.mktemp("plant"), stack)
            if watch.longest_stall_s < _HARMFUL_STALL_S:
                yield plant
                return
    pytest.fail(f"in each of {_ATTEMPTS} attempts the machine stood still for more than {_HARMFUL_STALL_S} s")


def _start_plant(folder: Path, stack: ExitStack) -> MonitoredPlant:
    token = folder / "token"
    token.write_text(_TOKEN)
    hosted = HostedStack(_REFUSALS)
    stack.callback(hosted.stop)
    plant = DemoPlant(folder)
    stack.callback(plant.stop)
    plant.wait_until(lambda: bool(list(folder.glob("castline-demo-*/run/targets/inspector-1.json"))), 120)
    rules = str(generate.ROOT / generate.RULES)
    files = (f"{plant.run_folder}/run/targets/*.json",)
    config = folder / "prometheus.yml"
    config.write_text(
        make_prometheus_config(ScrapeConfig("north", files, rules, remote_write=RemoteWrite(hosted.url, str(token)), interval_s=2))
    )
    prometheus = PrometheusServer(folder, config, free_ports())
    stack.callback(prometheus.stop)
    plant.wait_until(lambda: " running; " in plant.output and "; verdicts 0 " not in plant.output.splitlines()[-1], 180)
    # Sorters do not wait for the station, so the station may be ready later than they are.
    plant.wait_until(lambda: _count_targets_up(prometheus) >= _PROCESSES, 120)
    call = [
        sys.executable,
        str(CASTLINE),
        "--settings",
        str(plant.run_folder / "castline.toml"),
        "top",
        "--plain",
        "--seconds",
        str(_RUN_S),
    ]
    began_s = time.monotonic()
    top = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
    time.sleep(max(0.0, began_s + _RUN_S - time.monotonic()))
    return MonitoredPlant(plant, prometheus, hosted, top)


def _count_targets_up(prometheus: PrometheusServer) -> int:
    return sum(series["value"][1] == "1" for series in prometheus.query("up"))


def fill_variables(expression: str) -> str:
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def returns_data(prometheus: PrometheusServer, placed: PlacedExpression) -> bool:
    return any(series["value"][1] != "NaN" for series in prometheus.query(fill_variables(placed.expression)))


def test_every_process_is_found_by_its_file(monitored: MonitoredPlant) -> None:
    up = {series["metric"]["instance_name"]: series for series in monitored.prometheus.query("up")}
    assert set(up) == {
        "broker-1",
        "gateway-1",
        "inspector-1",
        "localiser-1",
        "archivist-1",
        "station-1",
        "sorter-line-1-1",
        "sorter-line-2-1",
    }
    assert {series["value"][1] for series in up.values()} == {"1"}
    assert {series["metric"]["plant"] for series in up.values()} == {"north"}
    assert all("pid" not in series["metric"] for series in up.values())


def test_every_expression_of_panels_and_recorded_series_returns_data_or_is_listed(monitored: MonitoredPlant) -> None:
    expressions = [placed for placed in list_expressions() if not placed.place.startswith("alert: ")]
    assert len(expressions) > 90
    empty = [placed.place for placed in expressions if not returns_data(monitored.prometheus, placed)]
    assert set(empty) - set(EMPTY_IN_HEALTH) == set()


def test_expressions_listed_as_empty_in_health_exist_and_have_a_reason() -> None:
    assert set(EMPTY_IN_HEALTH) <= {placed.place for placed in list_expressions()}
    assert all(EMPTY_IN_HEALTH.values())


def test_no_alert_fires_in_health(monitored: MonitoredPlant) -> None:
    assert monitored.prometheus.get("/api/v1/alerts")["alerts"] == []
    firing = [alert.name for alert in ALERTS if monitored.prometheus.query(alert.expression)]
    assert firing == []


def test_every_metric_that_an_alert_reads_is_there_before_the_trouble(monitored: MonitoredPlant) -> None:
    """If a series begins with the trouble, its alert misses the first occurrence."""
    names = {name for alert in ALERTS for name in find_metric_names(alert.expression)}
    absent = {name for name in names if not monitored.prometheus.query(name)}
    # The reasons for refusing a version are not known before one is refused. Signatures are counted only where keys are set.
    assert absent - {"castline_model_refused_total", "castline_signatures_refused_total"} == set()


def test_prometheus_evaluates_all_rules_without_an_error(monitored: MonitoredPlant) -> None:
    rules = [rule for group in monitored.prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= len(ALERTS)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_all_exposed_metrics_are_declared(monitored: MonitoredPlant) -> None:
    known = {name for metric in list_declared_metrics() for name in metric.series}
    names = {name for name in monitored.prometheus.get("/api/v1/label/__name__/values") if name.startswith("castline_")}
    assert len(names) > 40
    assert {name for name in names - known if not name.endswith("_created")} == set()


def test_labels_are_bounded_in_number(monitored: MonitoredPlant) -> None:
    """A label with part ids would add series with every casting."""
    largest = monitored.prometheus.query('topk(3, count by (__name__, instance_name) ({__name__=~"castline_.*"}))')
    assert max(int(series["value"][1]) for series in largest) < 150


def test_a_hosted_stack_that_refused_at_first_gets_its_samples_with_the_token(monitored: MonitoredPlant) -> None:
    assert monitored.stack.refused == _REFUSALS
    assert monitored.stack.accepted > 0
    assert monitored.stack.tokens == {f"Bearer {_TOKEN}"}


def test_top_shows_the_lines_of_the_running_plant(monitored: MonitoredPlant) -> None:
    result = monitored.top
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert " running; " in lines[-1]
    assert "; parts 0;" not in lines[-1]
    assert "verdicts 0 " not in lines[-1]
    assert "waiting for" not in lines[-1]
    # An age needs verdicts since the line before. On a busy machine there may be none before the last line.
    assert any("age p50/p99 " in line and "age p50/p99 -/-" not in line for line in lines), result.stdout


def test_an_interrupted_demo_checks_its_parts_before_it_ends(monitored: MonitoredPlant) -> None:
    """This test ends the plant, so no later test can use the plant."""
    demo = monitored.plant.process
    demo.send_signal(signal.SIGINT)
    # The status would be 1 if a part were lost, and 130 if the demo had not checked its parts.
    assert demo.wait(120) == 0, monitored.plant.output


def test_top_without_a_running_plant_names_the_missing_files(tmp_path: Path) -> None:
    call = [sys.executable, str(CASTLINE), "top", "--targets", str(tmp_path / "*.json")]
    result = subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 3
    assert f"No running process is listed in {tmp_path / '*.json'}" in result.stderr
