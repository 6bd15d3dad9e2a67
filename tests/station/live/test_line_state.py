"""The state of a line: the parts that its card shows, latencies, and a bounded size."""

from __future__ import annotations

from datetime import timedelta

import pytest

from station.live.line_state import LivePart
from station.live.live_consumer import LiveConsumer
from tests.station.live.records import NOW, make_kafka_record, make_sorting, make_verdict


def test_a_card_on_a_fast_line_takes_two_new_parts_at_a_time_one_of_them_faulty(consumer: LiveConsumer) -> None:
    state = consumer.lines["line-1"]
    for part in range(1, 21):
        consumer.add_record(make_kafka_record("verdicts", make_verdict(part, "defect" if part < 10 else "ok")))
    first = state.update_selection((), 5)
    for part in range(21, 41):
        consumer.add_record(make_kafka_record("verdicts", make_verdict(part, "defect" if part == 31 else "ok")))
    assert [one.part for one in first] == [20, 19, 18, 17, 16]
    assert [one.part for one in state.update_selection(first, 5)] == [40, 31, 20, 19, 18]


def test_a_card_on_a_slow_line_shows_every_part_and_later_records_about_it(consumer: LiveConsumer) -> None:
    state = consumer.lines["line-1"]
    shown: list[LivePart] = []
    for part in range(1, 9):
        consumer.add_record(make_kafka_record("verdicts", make_verdict(part)))
        shown = state.update_selection(shown, 5)
    assert [one.part for one in shown] == [8, 7, 6, 5, 4]
    assert state.update_selection(shown, 5) == shown
    consumer.add_record(make_kafka_record("sorted", make_sorting(6)))
    assert [one.sorting is not None for one in state.update_selection(shown, 5)] == [False, False, True, False, False]


def test_the_latency_is_that_of_the_last_minute(consumer: LiveConsumer) -> None:
    for part in range(1, 101):
        consumer.add_record(make_kafka_record("verdicts", make_verdict(part, latency_s=part / 100), NOW))
    latency = consumer.lines["line-1"].latency(NOW)
    assert latency.p50_s == pytest.approx(0.51)
    assert latency.p99_s == pytest.approx(1.0)
    assert consumer.lines["line-1"].latency(NOW + timedelta(minutes=2)).p50_s is None


def test_the_state_does_not_grow_in_a_week(consumer: LiveConsumer) -> None:
    state = consumer.lines["line-1"]
    verdict, sorting = make_verdict(1, "defect"), make_sorting(1, "late-verdict")
    for part in range(1, 12_000):
        at = NOW + timedelta(seconds=part * 50)
        state.add_verdict(verdict.model_copy(update={"part": part, "captured_at": at, "decided_at": at}), at, NOW)
        state.add_sorting(sorting.model_copy(update={"part": part, "sorted_at": at}))
    names = ("_parts", "_counted", "_sorted", "_trend", "_latencies", "_missed_verdicts", "faulty_parts")
    sizes = [len(getattr(state, name)) for name in names]
    assert sizes[0] == 60
    assert max(sizes) <= 6000
