"""The card of a line: counts and alarms."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from station.live.line_card import find_alarms, make_card
from station.live.live_consumer import LiveConsumer
from tests.station.live.records import NOW, make_kafka_record, make_raw_record, make_sorting, make_verdict


def test_repeated_verdicts_are_counted_once(consumer: LiveConsumer) -> None:
    for part, label in ((1, "ok"), (2, "defect"), (2, "defect"), (3, "review"), (1, "ok")):
        consumer.add_record(make_kafka_record("verdicts", make_verdict(part, label)))
    card = make_card(consumer.lines["line-1"], NOW, consumer.lines["line-1"].last_parts(5))
    assert (card.ok, card.defect, card.review) == (1, 1, 1)
    assert [part.part for part in card.parts] == [3, 2, 1]


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([make_kafka_record("sorted", make_sorting(1, "fault", 41))], "fault 41: photo-eye 1 is blocked"),
        (
            [make_kafka_record("sorted", make_sorting(1, "late-verdict")), make_kafka_record("sorted", make_sorting(2, "late-verdict"))],
            "2 verdicts too late for the gate",
        ),
        ([make_kafka_record("sorted", make_sorting(1, "no-verdict"))], "1 part at the gate without a verdict"),
        ([make_kafka_record("verdicts", make_verdict(1, at=NOW - timedelta(seconds=90)))], "No part for 89 s"),
        (
            [
                make_kafka_record("sorted", make_sorting(1, at=NOW - timedelta(minutes=3))),
                make_kafka_record("verdicts", make_verdict(2)),
            ],
            "the gate has been silent for 3 min",
        ),
    ],
    ids=["fault", "late", "no verdict", "no part", "silent gate"],
)
def test_an_alarm_says_what_is_wrong(consumer: LiveConsumer, records: list[Any], text: str) -> None:
    for record in records:
        consumer.add_record(record)
    (alarm,) = find_alarms(consumer.lines["line-1"], NOW)
    assert text in alarm.text


def test_dead_letters_of_the_last_hour_are_an_alarm(consumer: LiveConsumer) -> None:
    headers = [("dead-topic", b"castings.images.line-1"), ("dead-reason", b"truncated")]
    consumer.add_record(make_raw_record("castings.dead-letters", b"", headers=headers))
    (alarm,) = find_alarms(consumer.lines["line-1"], NOW)
    assert "1 picture could not be judged in the last hour (the picture ended too early: 1)" in alarm.text
