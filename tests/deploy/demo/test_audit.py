"""The audit must be able to fail: each kind of harm is constructed, and found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.audit import audit, percentile
from deploy.demo.evidence import Evidence
from deploy.demo.physical import Fall, compare
from deploy.demo.report import report_on
from streams.identity import PartId
from tests.deploy.demo.constructed import judged, picture, sorting

LINES = frozenset({"line-1", "line-2"})


def whole(parts: int = 10, line: str = "line-1") -> Evidence:
    """A run in which nothing went wrong: every third part is defective, called so, and diverted by one movement."""
    evidence = Evidence()
    moves = 0
    for part in range(1, parts + 1):
        bad = part % 3 == 0
        moves += bad
        evidence = Evidence(
            (*evidence.pictures, picture(part, line, "defect" if bad else "ok")),
            (*evidence.judged, judged(part, line, "defect" if bad else "ok", age_ms=part * 10)),
            (*evidence.sortings, sorting(part, line, moves, action="diverted" if bad else "passed", gate_moved=bad)),
        )
    return evidence


def test_a_run_without_harm_has_no_findings() -> None:
    found = audit(whole(), LINES)
    assert (found.parts, found.pictures, found.verdicts, found.sorted) == (10, 10, 10, 10)
    assert (found.diverted, found.lost, found.repeated_moves, found.late, found.unexplained_moves) == (3, 0, 0, 0, 0)
    assert found.accuracy == 1
    assert (found.p50_ms, found.p99_ms) == (50, 100)
    assert found.confusion == {"ok": {"ok": 7}, "defect": {"defect": 3}}


@pytest.mark.parametrize("what", ["picture", "verdict", "sorting"])
def test_a_part_that_lacks_something_is_lost(what: str) -> None:
    evidence = whole()
    harmed = {
        "picture": replace(evidence, pictures=evidence.pictures[1:]),
        "verdict": replace(evidence, judged=evidence.judged[1:]),
        "sorting": replace(evidence, sortings=evidence.sortings[1:]),
    }[what]
    found = audit(harmed, LINES)
    assert found.lost == 1
    assert found.lost_for == {"picture": 0, "verdict": 0, "sorting": 0, what: 1}
    assert found.lost_parts == ("line-1:7:1",)


def test_a_part_that_only_the_board_counted_is_lost() -> None:
    found = audit(whole(), LINES, counted=[PartId("line-1", 7, 1), PartId("line-1", 7, 11)])
    assert (found.parts, found.lost, found.lost_parts) == (11, 1, ("line-1:7:11",))


def test_a_part_that_lacks_two_things_is_lost_once() -> None:
    evidence = whole()
    found = audit(replace(evidence, judged=evidence.judged[1:], sortings=evidence.sortings[1:]), LINES)
    assert found.lost == 1


def test_a_line_without_a_gate_owes_no_sorting() -> None:
    evidence = replace(whole(), sortings=())
    assert audit(evidence, frozenset()).lost == 0
    assert audit(evidence, LINES).lost == 10


def test_a_second_movement_for_one_part_is_found() -> None:
    evidence = whole()
    again = sorting(3, moves=4, event=99, action="diverted", gate_moved=True)
    found = audit(replace(evidence, sortings=(*evidence.sortings, again)), LINES)
    assert found.repeated_moves == 1
    assert found.sorted == 10


def test_the_same_event_again_is_no_second_movement() -> None:
    evidence = whole()
    again = replace(evidence, sortings=evidence.sortings + evidence.sortings[:4])
    found = audit(again, LINES)
    assert (found.repeated_moves, found.repeated_sortings, found.diverted) == (0, 4, 3)


def test_an_event_number_used_for_two_movements_is_found() -> None:
    evidence = whole()
    other = sorting(3, moves=7, event=3, action="diverted", gate_moved=True)
    assert audit(replace(evidence, sortings=(*evidence.sortings, other)), LINES).repeated_moves == 1


def test_a_movement_that_belongs_to_no_part_is_found() -> None:
    evidence = whole(9)
    assert audit(replace(evidence, sortings=(*evidence.sortings, sorting(10, moves=5))), LINES).unexplained_moves == 2


@pytest.mark.parametrize(
    "fields",
    [{"reason": "no-verdict", "action": "diverted"}, {"reason": "late-verdict", "action": "diverted"}, {"late": True}],
)
def test_a_verdict_that_steered_nothing_is_late(fields: dict[str, Any]) -> None:
    evidence = whole()
    changed = (sorting(1, **fields), *evidence.sortings[1:])
    found = audit(replace(evidence, sortings=changed), LINES)
    assert (found.late, found.lost) == (1, 0)


def test_a_movement_told_again_with_its_late_verdict_is_late_and_no_second_movement() -> None:
    evidence = whole()
    told_again = evidence.sortings[2].model_copy(update={"late": True, "reason": "fault"})
    found = audit(replace(evidence, sortings=(*evidence.sortings, told_again)), LINES)
    assert (found.late, found.repeated_moves, found.repeated_sortings) == (1, 0, 1)


def test_a_part_that_the_board_did_not_know_has_its_record() -> None:
    evidence = whole()
    unknown = sorting(1, event=0, action="untracked", reason="unmatched")
    assert audit(replace(evidence, sortings=(unknown, *evidence.sortings[1:])), LINES).lost == 0


def test_a_part_without_any_verdict_is_lost_and_not_late() -> None:
    evidence = whole()
    harmed = replace(
        evidence, judged=evidence.judged[1:], sortings=(sorting(1, reason="no-verdict", action="diverted"), *evidence.sortings[1:])
    )
    found = audit(harmed, LINES)
    assert (found.late, found.lost) == (0, 1)


def test_repeats_are_counted_and_harmless() -> None:
    evidence = whole()
    found = audit(replace(evidence, pictures=evidence.pictures * 2, judged=evidence.judged * 2), LINES)
    assert (found.parts, found.repeated_pictures, found.repeated_verdicts, found.lost) == (10, 10, 10, 0)
    assert found.accuracy == 1


def test_verdicts_that_contradict_each_other_are_found() -> None:
    evidence = whole()
    found = audit(replace(evidence, judged=(*evidence.judged, judged(1, label="defect", age_ms=500, model="other"))), LINES)
    assert (found.contradicting_verdicts, found.verdicts) == (1, 10)
    assert found.accuracy == 1, "the first verdict counts, it moved the gate"


def test_accuracy_counts_misses_and_false_alarms_and_leaves_reviews_out() -> None:
    pictures = (picture(1), picture(2), picture(3, truth="defect"), picture(4, truth="defect"), picture(5, truth=None))
    verdicts = (judged(1), judged(2, label="defect"), judged(3), judged(4, label="review"), judged(5))
    found = audit(Evidence(pictures, verdicts, ()), frozenset())
    assert found.accuracy == pytest.approx(1 / 3)
    assert (found.misses, found.false_alarms) == (1, 1)
    assert found.confusion == {"ok": {"ok": 1, "defect": 1}, "defect": {"ok": 1, "review": 1}}


def test_an_unmatched_piece_is_no_part() -> None:
    evidence = whole()
    stray = sorting(1, event=50, reason="unmatched", action="diverted")
    found = audit(replace(evidence, sortings=(*evidence.sortings, stray)), LINES)
    assert (found.parts, found.diverted, found.reasons["unmatched"]) == (10, 3, 1)


def test_an_empty_run_has_nothing_and_no_figures() -> None:
    found = audit(Evidence(), LINES)
    assert (found.parts, found.lost, found.accuracy, found.p50_ms) == (0, 0, None, None)
    assert report_on(Evidence(), {"line-1": []}, (0, 0), {}).bad == ["no part was seen"]


def test_equal_part_numbers_of_two_lines_are_two_parts() -> None:
    one, other = whole(4, "line-1"), whole(4, "line-2")
    both = Evidence(one.pictures + other.pictures, one.judged + other.judged, one.sortings + other.sortings)
    assert audit(both, LINES).parts == 8


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_lost_is_what_is_not_everywhere(pictured: set[int], with_verdict: set[int], with_sorting: set[int]) -> None:
    evidence = Evidence(tuple(map(picture, pictured)), tuple(map(judged, with_verdict)), tuple(map(sorting, with_sorting)))
    assert audit(evidence, LINES).lost == len(pictured | with_verdict | with_sorting) - len(pictured & with_verdict & with_sorting)


def fall(part: int | None, side: str = "passed", struck: bool = False) -> Fall:
    return Fall(PartId("line-1", 7, part) if part else None, side, struck)


def test_a_casting_that_fell_to_another_side_than_recorded_is_found() -> None:
    found = compare([fall(1), fall(2, "diverted")], [sorting(1), sorting(2)])
    assert (found.fallen, found.mismatches) == (2, 1)
    assert "line-1:7:2" in found.examples[0]


def test_a_casting_without_a_record_is_found() -> None:
    found = compare([fall(1), fall(2), fall(None)], [sorting(1)])
    assert (found.mismatches, found.unrecorded) == (0, 2)


def test_a_casting_that_the_blade_struck_is_counted() -> None:
    assert compare([fall(1, struck=True)], [sorting(1)]).struck == 1


Harm = Callable[[Evidence], Evidence]


@pytest.mark.parametrize(
    ("harm", "falls", "words"),
    [
        (lambda evidence: replace(evidence, judged=evidence.judged[1:]), [], "1 parts were lost, they lack 1 a verdict"),
        (
            lambda evidence: replace(
                evidence, sortings=(*evidence.sortings, sorting(3, moves=4, event=99, action="diverted", gate_moved=True))
            ),
            [],
            "1 times a gate moved again",
        ),
        (lambda evidence: evidence, [fall(3, "passed")], "1 castings fell to another side"),
    ],
)
def test_each_harm_is_a_reason_for_exit_status_1(harm: Harm, falls: list[Fall], words: str) -> None:
    assert report_on(whole(), {"line-1": []}, (0, 0), {}).bad == []
    (sentence,) = report_on(harm(whole()), {"line-1": falls}, (0, 0), {}).bad
    assert words in sentence
