"""The live view's numbers, from metrics pages as a process shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.cli.plant_metrics import Look, PlantWatch, Target, quantile_s, read, targets
from deploy.demo.view import alarms, plain

INSPECTOR, SORTER = Target("inspector-1", "inspector", "127.0.0.1:1"), Target("sorter-line-1-1", "sorter", "127.0.0.1:2")


def page(verdicts: int, late: int = 0) -> str:
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


def seen(now: float, inspector: str, silent: frozenset[str] = frozenset()) -> Look:
    samples = [*read(inspector, "inspector", "inspector-1"), *read(GATE, "sorter", "sorter-line-1-1")]
    return Look(now, samples, (INSPECTOR, SORTER), silent)


def test_a_lines_numbers_come_from_all_its_processes() -> None:
    watch = PlantWatch()
    watch.add(seen(100, page(10)))
    watch.add(seen(110, page(20)))
    snapshot = watch.snapshot()
    (row,) = snapshot.rows
    numbers = row.numbers
    assert (row.name, row.parts, row.queue, row.gate) == ("line-1", 24, 3, "running")
    assert (numbers.verdicts, numbers.sorted, numbers.diverted, numbers.no_verdict) == (20, 20, 1, 1)
    assert numbers.per_s == 1.0
    assert snapshot.cores == pytest.approx(0.01)
    assert snapshot.memory_mb == 1.0
    assert "Ctrl-C: leave the view" in snapshot.hint


def test_ages_are_those_of_the_last_minute() -> None:
    watch = PlantWatch()
    for second in range(0, 200, 10):
        # All late in the beginning, none after.
        watch.add(seen(second, page(10 + second, late=10)))
    (row,) = watch.snapshot().rows
    assert row.numbers.p99_ms is not None
    assert row.numbers.p99_ms <= 100


def test_late_verdicts_and_silence_are_alarms() -> None:
    watch = PlantWatch()
    watch.add(seen(100, page(10)))
    watch.add(seen(110, page(20, late=10)))
    watch.add(seen(125, page(20, late=10)))
    found = alarms(watch.snapshot())
    assert any("3 pictures wait and no verdict for 15 s" in one for one in found)
    assert any("verdicts come later than 2.8 s" in one for one in found)


def test_a_process_that_does_not_answer_is_named() -> None:
    watch = PlantWatch()
    watch.add(Look(100, list(read(GATE, "sorter", "sorter-line-1-1")), (INSPECTOR, SORTER), frozenset({"inspector-1"})))
    snapshot = watch.snapshot()
    assert snapshot.news == ["inspector-1 does not answer on its metrics page"]
    assert "waiting for inspector-1" in plain(snapshot)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.45, 0.5), (0.9, 1.0), (0.95, 1.5), (0.999, 2.0)],
)
def test_a_quantile_is_what_prometheus_would_say(share: float, expected: float) -> None:
    assert quantile_s(share, {1.0: 90, 2.0: 100, float("inf"): 100}) == pytest.approx(expected, rel=0.01)


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile_s(0.5, {}) is None
    assert quantile_s(0.5, {1.0: 0, float("inf"): 0}) is None


def test_beyond_the_last_bound_its_bound_is_said() -> None:
    assert quantile_s(0.5, {1.0: 1, float("inf"): 10}) == 1.0


def test_a_file_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    whole = [{"targets": ["127.0.0.1:1"], "labels": {"role": "inspector", "instance_name": "inspector-1", "pid": "7"}}]
    (tmp_path / "inspector-1.json").write_text(json.dumps(whole))
    (tmp_path / "gateway-1.json").write_text('[{"targets": [')
    assert targets([str(tmp_path / "*.json")]) == [INSPECTOR]
