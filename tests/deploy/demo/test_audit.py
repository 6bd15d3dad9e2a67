"""Tests of the audit: each kind of damage is constructed and must be found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

from deploy.demo.audit import TopicRecords, audit_records, compute_percentile, read_topic_records
from streams.identity import PartId
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.deploy.demo.records import make_picture, make_sorting, make_verdict

LINES = frozenset({"line-1", "line-2"})


def make_run(parts: int = 10, line: str = "line-1") -> TopicRecords:
    """Returns the records of a run without damage. Every third part is defective, is labelled so, and is diverted by one movement."""
    records = TopicRecords()
    moves = 0
    for part in range(1, parts + 1):
        bad = part % 3 == 0
        moves += bad
        records = TopicRecords(
            (*records.pictures, make_picture(part, line, "defect" if bad else "ok")),
            (*records.verdicts, make_verdict(part, line, "defect" if bad else "ok", age_ms=part * 10)),
            (*records.sortings, make_sorting(part, line, moves, action="diverted" if bad else "passed", gate_moved=bad)),
        )
    return records


def test_a_run_without_damage_is_good() -> None:
    found = audit_records(make_run(), LINES)
    assert (found.parts, found.pictures, found.verdicts, found.sorted) == (10, 10, 10, 10)
    assert (found.diverted, found.lost, found.repeated_moves, found.late, found.unexplained_moves) == (3, 0, 0, 0, 0)
    assert found.accuracy == 1
    assert (found.p50_ms, found.p99_ms) == (50, 100)
    assert found.confusion == {"ok": {"ok": 7}, "defect": {"defect": 3}}


@pytest.mark.parametrize("kind", ["picture", "verdict", "sorting"])
def test_a_part_that_lacks_something_is_lost(kind: str) -> None:
    records = make_run()
    damaged = {
        "picture": replace(records, pictures=records.pictures[1:]),
        "verdict": replace(records, verdicts=records.verdicts[1:]),
        "sorting": replace(records, sortings=records.sortings[1:]),
    }[kind]
    found = audit_records(damaged, LINES)
    assert found.lost == 1
    assert found.lost_for == {"picture": 0, "verdict": 0, "sorting": 0, kind: 1}
    assert found.lost_parts == ("line-1:7:1",)


def test_a_part_that_only_the_board_counted_is_lost() -> None:
    found = audit_records(make_run(), LINES, counted_parts=[PartId("line-1", 7, 1), PartId("line-1", 7, 11)])
    assert (found.parts, found.lost, found.lost_parts) == (11, 1, ("line-1:7:11",))


def test_a_part_that_lacks_two_things_is_lost_once() -> None:
    records = make_run()
    found = audit_records(replace(records, verdicts=records.verdicts[1:], sortings=records.sortings[1:]), LINES)
    assert found.lost == 1


def test_a_line_without_a_gate_needs_no_sorting() -> None:
    records = replace(make_run(), sortings=())
    assert audit_records(records, frozenset()).lost == 0
    assert audit_records(records, LINES).lost == 10


def test_a_second_movement_for_one_part_is_found() -> None:
    records = make_run()
    again = make_sorting(3, moves=4, event=99, action="diverted", gate_moved=True)
    found = audit_records(replace(records, sortings=(*records.sortings, again)), LINES)
    assert found.repeated_moves == 1
    assert found.sorted == 10


def test_a_redelivered_event_is_no_second_movement() -> None:
    records = make_run()
    again = replace(records, sortings=records.sortings + records.sortings[:4])
    found = audit_records(again, LINES)
    assert (found.repeated_moves, found.repeated_sortings, found.diverted) == (0, 4, 3)


def test_an_event_number_used_for_two_movements_is_found() -> None:
    records = make_run()
    other = make_sorting(3, moves=7, event=3, action="diverted", gate_moved=True)
    assert audit_records(replace(records, sortings=(*records.sortings, other)), LINES).repeated_moves == 1


def test_a_movement_that_belongs_to_no_part_is_found() -> None:
    records = make_run(9)
    assert audit_records(replace(records, sortings=(*records.sortings, make_sorting(10, moves=5))), LINES).unexplained_moves == 2


@pytest.mark.parametrize(
    "fields",
    [{"reason": "no-verdict", "action": "diverted"}, {"reason": "late-verdict", "action": "diverted"}, {"late": True}],
)
def test_a_verdict_after_the_gate_has_acted_is_late(fields: dict[str, Any]) -> None:
    records = make_run()
    changed = (make_sorting(1, **fields), *records.sortings[1:])
    found = audit_records(replace(records, sortings=changed), LINES)
    assert (found.late, found.lost) == (1, 0)


def test_an_event_repeated_with_its_late_verdict_is_late_and_no_second_movement() -> None:
    records = make_run()
    repeated = records.sortings[2].model_copy(update={"late": True, "reason": "fault"})
    found = audit_records(replace(records, sortings=(*records.sortings, repeated)), LINES)
    assert (found.late, found.repeated_moves, found.repeated_sortings) == (1, 0, 1)


def test_a_part_that_the_board_did_not_know_has_its_record() -> None:
    records = make_run()
    unknown = make_sorting(1, event=0, action="untracked", reason="unmatched")
    assert audit_records(replace(records, sortings=(unknown, *records.sortings[1:])), LINES).lost == 0


def test_a_part_without_any_verdict_is_lost_and_not_late() -> None:
    records = make_run()
    damaged = replace(
        records, verdicts=records.verdicts[1:], sortings=(make_sorting(1, reason="no-verdict", action="diverted"), *records.sortings[1:])
    )
    found = audit_records(damaged, LINES)
    assert (found.late, found.lost) == (0, 1)


def test_repeated_records_are_counted_and_do_no_harm() -> None:
    records = make_run()
    found = audit_records(replace(records, pictures=records.pictures * 2, verdicts=records.verdicts * 2), LINES)
    assert (found.parts, found.repeated_pictures, found.repeated_verdicts, found.lost) == (10, 10, 10, 0)
    assert found.accuracy == 1


def test_verdicts_that_contradict_each_other_are_found() -> None:
    records = make_run()
    found = audit_records(replace(records, verdicts=(*records.verdicts, make_verdict(1, label="defect", age_ms=500, model="other"))), LINES)
    assert (found.contradicting_verdicts, found.verdicts) == (1, 10)
    assert found.accuracy == 1, "the first verdict counts, it moved the gate"


def test_accuracy_counts_misses_and_false_alarms_and_leaves_reviews_out() -> None:
    pictures = (
        make_picture(1),
        make_picture(2),
        make_picture(3, truth="defect"),
        make_picture(4, truth="defect"),
        make_picture(5, truth=None),
    )
    verdicts = (make_verdict(1), make_verdict(2, label="defect"), make_verdict(3), make_verdict(4, label="review"), make_verdict(5))
    found = audit_records(TopicRecords(pictures, verdicts, ()), frozenset())
    assert found.accuracy == pytest.approx(1 / 3)
    assert (found.misses, found.false_alarms) == (1, 1)
    assert found.confusion == {"ok": {"ok": 1, "defect": 1}, "defect": {"ok": 1, "review": 1}}


def test_an_unmatched_piece_is_no_part() -> None:
    records = make_run()
    stray = make_sorting(1, event=50, reason="unmatched", action="diverted")
    found = audit_records(replace(records, sortings=(*records.sortings, stray)), LINES)
    assert (found.parts, found.diverted, found.reasons["unmatched"]) == (10, 3, 1)


def test_an_empty_run_has_no_figures() -> None:
    found = audit_records(TopicRecords(), LINES)
    assert (found.parts, found.lost, found.accuracy, found.p50_ms) == (0, 0, None, None)


def test_equal_part_numbers_of_two_lines_are_two_parts() -> None:
    one, other = make_run(4, "line-1"), make_run(4, "line-2")
    both = TopicRecords(one.pictures + other.pictures, one.verdicts + other.verdicts, one.sortings + other.sortings)
    assert audit_records(both, LINES).parts == 8


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = compute_percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_a_part_is_lost_if_it_is_missing_anywhere(pictured: set[int], with_verdict: set[int], with_sorting: set[int]) -> None:
    records = TopicRecords(
        tuple(map(make_picture, pictured)), tuple(map(make_verdict, with_verdict)), tuple(map(make_sorting, with_sorting))
    )
    assert audit_records(records, LINES).lost == len(pictured | with_verdict | with_sorting) - len(pictured & with_verdict & with_sorting)


def test_all_records_of_all_topics_are_read(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("line-1", "line-2"))
    names = TopicNames(settings.topics.prefix)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for part in range(1, 101):
        key = f"line-1:7:{part}".encode()
        producer.send(names.images("line-1"), b"picture", key, [("truth", b"defect")])
        producer.send(names.verdicts("line-1"), make_verdict(part).verdict.encode(), key)
        producer.send(names.sorted("line-1"), make_sorting(part).encode(), key)
    producer.send(names.images("line-2"), b"nobody knows whose")
    producer.send(names.verdicts("line-2"), b"no verdict")
    producer.send(names.dead_letters, b"bytes")
    producer.send(names.dead_letters, None, b"", [("dead-reason", b"expired"), ("expired-records", b"16")])
    producer.flush()
    producer.close()
    records = read_topic_records(settings)
    assert {picture.part.part for picture in records.pictures} == set(range(1, 101))
    assert {picture.truth for picture in records.pictures} == {"defect"}
    assert len(records.verdicts) == len(records.sortings) == 100
    assert (records.dead_letters, records.unreadable, records.expired) == (2, 2, 16)
