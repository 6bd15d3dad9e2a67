"""Tests of the figures that `castline top` shows, computed from metrics pages like those of the processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.demo.plant_monitor import PlantMetrics, PlantMonitor, ScrapeTarget, compute_quantile_s, find_targets, parse_metrics
from deploy.demo.terminal_view import find_alarms, format_line
from streams.plant_states import PlantState
from streams.settings import Settings

WALL_S = 1_800_000_000.0
INSPECTOR, SORTER = ScrapeTarget("inspector-1", "inspector", "127.0.0.1:1"), ScrapeTarget("sorter-line-1-1", "sorter", "127.0.0.1:2")


def make_page(verdicts: int, late: int = 0) -> str:
    return f"""
castline_process_ready{{role="inspector"}} 1
castline_verdict_deadline_seconds{{line="line-1"}} 2.8
castline_verdicts_total{{label="ok",line="line-1",model="a"}} {verdicts}
castline_verdict_age_seconds_bucket{{le="0.1",line="line-1"}} {verdicts - late}
castline_verdict_age_seconds_bucket{{le="5.0",line="line-1"}} {verdicts}
castline_verdict_age_seconds_bucket{{le="+Inf",line="line-1"}} {verdicts}
castline_consumer_lag_records{{line="line-1"}} 3
castline_decode_seconds_bucket{{le="0.1"}} 7
process_resident_memory_bytes 1048576
process_cpu_seconds_total {verdicts / 100}
"""


GATE = """
castline_process_ready{role="sorter"} 1
castline_parts_counted_total{line="line-1"} 24
castline_parts_sorted_total{action="diverted",line="line-1",reason="no-verdict"} 1
castline_parts_sorted_total{action="passed",line="line-1",reason="verdict"} 19
castline_gate_state{line="line-1",state="running"} 1
castline_gate_state{line="line-1",state="away"} 0
castline_consumer_lag_records{line="line-1"} 50
"""


def make_metrics(now: float, inspector: str, silent: frozenset[str] = frozenset()) -> PlantMetrics:
    samples = [*parse_metrics(inspector, "inspector", "inspector-1"), *parse_metrics(GATE, "sorter", "sorter-line-1-1")]
    return PlantMetrics(now, samples, (INSPECTOR, SORTER), silent)


def test_the_figures_of_a_line_come_from_all_its_processes() -> None:
    monitor = PlantMonitor(Settings())
    monitor.add(make_metrics(100, make_page(10)), WALL_S)
    monitor.add(make_metrics(110, make_page(20)), WALL_S)
    snapshot = monitor.make_snapshot()
    (row,) = snapshot.rows
    figures = row.figures
    assert (row.name, row.parts, row.queue) == ("line-1", 24, 3)
    assert (figures.verdicts, figures.sorted, figures.diverted, figures.no_verdict) == (20, 20, 1, 1)
    assert figures.verdicts_per_s == 1.0
    assert snapshot.cores == pytest.approx(0.01)
    assert snapshot.memory_mb == 1.0
    assert "Ctrl-C: leave the view" in snapshot.hint


def test_ages_are_those_of_the_last_minute() -> None:
    monitor = PlantMonitor(Settings())
    for second in range(0, 200, 10):
        # The first verdicts are late, and all others are in time.
        monitor.add(make_metrics(second, make_page(10 + second, late=10)), WALL_S)
    (row,) = monitor.make_snapshot().rows
    assert row.figures.p99_ms is not None
    assert row.figures.p99_ms <= 100


def make_plant(second: int, verdicts: int, gate: str = "running", until_s: float = 0.0) -> PlantMetrics:
    """Returns the metrics of a line on which one casting comes each second."""
    page = f"""
castline_verdicts_total{{label="ok",line="line-1",model="a"}} {verdicts}
castline_pictures_received_total{{line="line-1"}} {second}
castline_parts_counted_total{{line="line-1"}} {second}
castline_parts_sorted_total{{action="passed",line="line-1",reason="verdict"}} {second}
castline_gate_state{{line="line-1",state="{gate}"}} 1
castline_planned_stop_until_seconds{{line="line-1"}} {until_s}
"""
    return PlantMetrics(second, list(parse_metrics(page, "sorter", "all")), (SORTER,))


def test_the_state_of_a_line_follows_from_its_metrics() -> None:
    monitor = PlantMonitor(Settings())

    def read_state(metrics: PlantMetrics) -> PlantState:
        monitor.add(metrics, WALL_S)
        (row,) = monitor.make_snapshot().rows
        return row.state

    for second in range(20):
        state = read_state(make_plant(second, second))
    assert state is PlantState.RUNNING
    assert read_state(make_plant(20, 20, gate="safe")) is PlantState.GATE_HELD
    assert read_state(make_plant(21, 21, gate="away")) is PlantState.DISCONNECTED
    assert read_state(make_plant(22, 22, until_s=WALL_S + 60)) is PlantState.PLANNED_STOP
    assert read_state(make_plant(23, 23, until_s=WALL_S - 60)) is PlantState.RUNNING
    for second in range(24, 40):
        state = read_state(make_plant(second, 23))
    assert state is PlantState.RUNNING_BLIND
    (alarm,) = find_alarms(monitor.make_snapshot())
    assert alarm.startswith("line-1: running blind.")


@pytest.mark.parametrize("first_with_sorter", [0, 5], ids=["from-the-beginning", "later"])
def test_a_line_whose_gate_is_not_in_the_settings_is_not_late_because_of_old_castings(first_with_sorter: int) -> None:
    """The settings of the view can lack lines. Its sorters then say that a line has a gate, and how many castings had no verdict before."""
    monitor = PlantMonitor(Settings())

    def read_state(second: int, without_verdict: int) -> PlantState:
        gate = f"""
castline_parts_counted_total{{line="line-1"}} {second}
castline_parts_sorted_total{{action="passed",line="line-1",reason="verdict"}} {second}
castline_parts_sorted_total{{action="diverted",line="line-1",reason="no-verdict"}} {without_verdict}
castline_gate_state{{line="line-1",state="running"}} 1
"""
        page = f"""
castline_verdicts_total{{label="ok",line="line-1",model="a"}} {second}
castline_verdicts_overdue_total{{line="line-1"}} 0
castline_pictures_received_total{{line="line-1"}} {second}
{gate if second >= first_with_sorter else ""}"""
        monitor.add(PlantMetrics(second, list(parse_metrics(page, "sorter", "all")), (SORTER,)), WALL_S)
        return monitor.make_snapshot().rows[0].state

    assert [read_state(second, 40) for second in range(10)][-1] is PlantState.RUNNING
    assert read_state(10, 42) is PlantState.RUNNING
    assert read_state(11, 43) is PlantState.LATE


def test_a_process_that_does_not_answer_is_named() -> None:
    monitor = PlantMonitor(Settings())
    monitor.add(
        PlantMetrics(100, list(parse_metrics(GATE, "sorter", "sorter-line-1-1")), (INSPECTOR, SORTER), frozenset({"inspector-1"})), WALL_S
    )
    snapshot = monitor.make_snapshot()
    assert snapshot.warnings == ["inspector-1 does not answer on its metrics page"]
    assert "waiting for inspector-1" in format_line(snapshot)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.45, 0.5), (0.9, 1.0), (0.95, 1.5), (0.999, 2.0)],
)
def test_a_quantile_is_that_of_prometheus(share: float, expected: float) -> None:
    assert compute_quantile_s(share, {1.0: 90, 2.0: 100, float("inf"): 100}) == pytest.approx(expected, rel=0.01)


def test_without_observations_there_is_no_quantile() -> None:
    assert compute_quantile_s(0.5, {}) is None
    assert compute_quantile_s(0.5, {1.0: 0, float("inf"): 0}) is None


def test_a_quantile_above_the_last_bound_is_that_bound() -> None:
    assert compute_quantile_s(0.5, {1.0: 1, float("inf"): 10}) == 1.0


def test_a_file_that_is_being_written_is_skipped(tmp_path: Path) -> None:
    whole = [{"targets": ["127.0.0.1:1"], "labels": {"role": "inspector", "instance_name": "inspector-1", "pid": "7"}}]
    (tmp_path / "inspector-1.json").write_text(json.dumps(whole))
    (tmp_path / "gateway-1.json").write_text('[{"targets": [')
    assert find_targets([str(tmp_path / "*.json")]) == [INSPECTOR]
