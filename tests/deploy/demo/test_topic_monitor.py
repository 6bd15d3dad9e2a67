"""Tests of the figures of a line, counted from its verdicts and sortings."""

from __future__ import annotations

import pytest

from deploy.demo.topic_monitor import LineCounters
from streams.records import Verdict
from tests.deploy.demo.records import make_sorting, make_verdict


def verdict_and_time(part: int, label: str = "ok", age_ms: float = 100) -> tuple[Verdict, float]:
    record = make_verdict(part, label=label, age_ms=age_ms)
    return record.verdict, record.appended_at.timestamp()


def test_a_part_counts_once_even_if_its_records_are_repeated() -> None:
    counters = LineCounters()
    for part in (1, 2, 2, 1):
        counters.add_verdict(*verdict_and_time(part), now=10)
        counters.add_sorting(make_sorting(part, action="diverted", gate_moved=True))
    figures = counters.compute_figures(now=11)
    assert (figures.verdicts, figures.sorted, figures.diverted, figures.labels) == (2, 2, 2, {"ok": 2})


def test_ages_end_when_the_broker_appends_the_record() -> None:
    counters = LineCounters()
    for part, age_ms in enumerate((100, 200, 900), 1):
        counters.add_verdict(*verdict_and_time(part, age_ms=age_ms), now=10)
    figures = counters.compute_figures(now=10)
    assert figures.p50_ms == pytest.approx(200, abs=0.01)
    assert figures.p99_ms == pytest.approx(900, abs=0.01)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    counters = LineCounters()
    for part in range(1, 21):
        counters.add_verdict(*verdict_and_time(part), now=float(part))
    assert counters.compute_figures(now=20).verdicts_per_s == pytest.approx(1.1)
    assert counters.compute_figures(now=200).verdicts_per_s == 0
