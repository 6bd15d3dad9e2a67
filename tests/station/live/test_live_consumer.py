"""The consumer adds records to the states of the lines, skips invalid ones, and resets the counts with each shift."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta

import pytest

from station.live.live_consumer import ArchivedCounts, LiveConsumer
from streams import metrics
from streams.identity import PartId
from streams.records import Box, Finding
from streams.settings import Settings
from tests.station.live.conftest import LINE
from tests.station.live.records import NOW, make_kafka_record, make_raw_record, make_verdict


def test_a_finding_that_comes_later_adds_its_box_to_the_part(consumer: LiveConsumer) -> None:
    verdict = make_verdict(4, "defect")
    consumer.add_record(make_kafka_record("verdicts", verdict))
    box = Box(left_px=10, top_px=20, width_px=30, height_px=40, score=0.9, kind="blow hole")
    finding = Finding(
        line="line-1",
        run=7,
        part=4,
        verdict_id=verdict.verdict_id,
        method="grad-cam",
        model="demo",
        boxes=(box,),
        heat_map=f"maps/aa/{'aa' * 32}",
        found_at=NOW,
    )
    consumer.add_record(make_kafka_record("findings", finding))
    part = consumer.find_part(PartId("line-1", 7, 4))
    assert part is not None
    assert part.boxes == (box,)


def test_an_invalid_record_is_skipped(consumer: LiveConsumer) -> None:
    for value in (b"", b"\xff", b"{}", b'{"line": "line-1"}'):
        consumer.add_record(make_raw_record("castings.verdicts.line-1", value))
    consumer.add_record(make_kafka_record("verdicts", make_verdict(1)))
    assert consumer.lines["line-1"].counts == Counter(ok=1)


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2026-11-22T10:00:00", "2019-12-31T23:59:59Z"])
def test_a_verdict_with_an_odd_time_is_skipped_and_counted_and_the_wall_goes_on(consumer: LiveConsumer, at: str) -> None:
    skipped = metrics.records_skipped.labels("station", "verdicts")._value
    before = skipped.get()
    for field in ("captured_at", "decided_at"):
        content = json.loads(make_verdict(1).encode()) | {field: at}
        consumer.add_record(make_raw_record("castings.verdicts.line-1", json.dumps(content).encode()))
    consumer.add_record(make_kafka_record("verdicts", make_verdict(2)))
    assert consumer.lines["line-1"].counts == Counter(ok=1)
    assert skipped.get() == before + 2


def test_counts_begin_with_those_of_the_archive_and_are_reset_with_the_next_shift() -> None:
    def count_archive(line: str, since: datetime, now: datetime) -> ArchivedCounts:
        return ArchivedCounts(now - timedelta(minutes=5), Counter(ok=100, defect=3))

    consumer = LiveConsumer(Settings(lines=(LINE,)), count_archive)
    consumer.update_shift(NOW)
    consumer.add_record(make_kafka_record("verdicts", make_verdict(1, at=NOW - timedelta(minutes=6))))
    consumer.add_record(make_kafka_record("verdicts", make_verdict(2, at=NOW - timedelta(minutes=4))))
    assert consumer.lines["line-1"].counts == Counter(ok=101, defect=3)
    consumer.update_shift(NOW + timedelta(hours=5))
    assert consumer.lines["line-1"].counts == Counter()
