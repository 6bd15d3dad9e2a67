"""The card of a line: counts and alarms."""

from __future__ import annotations

from typing import Any

import pytest

from station.live.line_card import find_alarms, make_card
from station.live.live_consumer import LiveConsumer
from streams.plant_states import PlantState
from tests.station.live.records import NOW, make_kafka_record, make_raw_record, make_sorting, make_verdict


def test_repeated_verdicts_are_counted_once(consumer: LiveConsumer) -> None:
    for part, label in ((1, "ok"), (2, "defect"), (2, "defect"), (3, "review"), (1, "ok")):
        consumer.add_record(make_kafka_record("verdicts", make_verdict(part, label)))
    card = make_card(consumer.lines["line-1"], PlantState.RUNNING, NOW, consumer.lines["line-1"].last_parts(5))
    assert (card.ok, card.defect, card.review) == (1, 1, 1)
    assert [part.part for part in card.parts] == [3, 2, 1]


@pytest.mark.parametrize(
    ("records", "text"),
    [
        (
            [make_kafka_record("sorted", make_sorting(1, "late-verdict")), make_kafka_record("sorted", make_sorting(2, "late-verdict"))],
            "2 verdicts too late for the gate",
        ),
        ([make_kafka_record("sorted", make_sorting(1, "no-verdict"))], "1 part at the gate without a verdict"),
    ],
    ids=["late", "no verdict"],
)
def test_an_alarm_says_what_is_wrong(consumer: LiveConsumer, records: list[Any], text: str) -> None:
    for record in records:
        consumer.add_record(record)
    (alarm,) = find_alarms(consumer.lines["line-1"], PlantState.RUNNING, NOW)
    assert text in alarm.text


def test_the_state_of_the_line_is_the_first_alarm_and_names_the_fault(consumer: LiveConsumer) -> None:
    consumer.add_record(make_kafka_record("sorted", make_sorting(1, "no-verdict")))
    consumer.add_record(make_kafka_record("sorted", make_sorting(2, "fault", 41)))
    alarms = find_alarms(consumer.lines["line-1"], PlantState.GATE_HELD, NOW)
    assert [alarm.level for alarm in alarms] == ["defect", "review"]
    assert "fault 41: photo-eye 1 is blocked" in alarms[0].text
    assert "acknowledge the fault" in alarms[0].text


@pytest.mark.parametrize("state", [PlantState.RUNNING, PlantState.NO_CASTINGS, PlantState.PLANNED_STOP, None])
def test_a_line_that_needs_nobody_has_no_alarm(consumer: LiveConsumer, state: PlantState | None) -> None:
    assert find_alarms(consumer.lines["line-1"], state, NOW) == []


def test_dead_letters_of_the_last_hour_are_an_alarm(consumer: LiveConsumer) -> None:
    headers = [("dead-topic", b"castings.images.line-1"), ("dead-reason", b"truncated")]
    consumer.add_record(make_raw_record("castings.dead-letters", b"", headers=headers))
    (alarm,) = find_alarms(consumer.lines["line-1"], PlantState.RUNNING, NOW)
    assert "1 picture could not be judged in the last hour (the picture ended too early: 1)" in alarm.text
