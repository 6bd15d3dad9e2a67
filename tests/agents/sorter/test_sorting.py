"""From verdict to order, from the board's report to the record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from agents.gate.events import PartSorted
from agents.sorter.part_states import Note, Notes
from agents.sorter.sorting import Wanted, deadline_of, lane_settings, late_sorting, sorting_of, untracked_sorting, wanted_for
from firmware.board.words import WORDS
from streams.records import Label, Sorting
from streams.settings import GateSettings
from tests.agents.gate.oracle import made_verdict

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
GATE = GateSettings(port="/dev/null")


def report(action: str = "divert", reason: str = "verdict", moved: bool = True, part: int = 7) -> PartSorted:
    return PartSorted(3, 2, part, action, reason, moved, 11, NOW - timedelta(seconds=2), NOW)


def recorded(event: PartSorted, note: Note) -> Sorting:
    return sorting_of(event, note, "line-1", "board", 41, NOW)


@pytest.mark.parametrize(
    ("label", "on_review", "order"),
    [("ok", "divert", "keep"), ("defect", "pass", "divert"), ("review", "divert", "divert"), ("review", "pass", "keep")],
)
def test_a_verdict_is_told_as_the_lines_owner_wants_it(label: Label, on_review: str, order: Literal["keep", "divert"]) -> None:
    gate = GateSettings.model_validate({"port": "p", "on_review": on_review})
    assert wanted_for(made_verdict("line-1", 1, 1, label, NOW), gate) == Wanted(order)


def test_a_verdict_is_worth_telling_until_just_before_the_part_is_at_the_gate() -> None:
    assert deadline_of(NOW, GATE) == NOW + timedelta(seconds=1.97)


def test_a_part_carried_out_as_told_is_recorded_with_its_verdict() -> None:
    note, verdict = Note(told_at=NOW), made_verdict("line-1", 2, 7, "defect", NOW)
    note.verdict(verdict)
    record = recorded(report(), note)
    assert (record.action, record.reason, record.label, record.verdict_id) == ("diverted", "verdict", "defect", verdict.verdict_id)
    assert (record.gate_moved, record.move_count, record.event, record.late, record.code) == (True, 11, 3, False, 0)
    assert record.counted_at == NOW - timedelta(seconds=2)


def test_a_part_without_verdict_says_so_and_names_none() -> None:
    note = Note()
    note.verdict(made_verdict("line-1", 2, 7, "ok", NOW))  # on Kafka, but never told
    record = recorded(report(reason="no-verdict"), note)
    assert (record.reason, record.label, record.verdict_id, record.late) == ("no-verdict", None, None, False)


def test_a_late_verdict_changes_the_record_and_not_the_movement() -> None:
    first = recorded(report(reason="no-verdict"), Note())
    verdict = made_verdict("line-1", 2, 7, "ok", NOW)
    second = late_sorting(first, verdict, NOW + timedelta(seconds=1))
    assert (second.reason, second.late, second.label, second.code) == ("late-verdict", True, "ok", 20)
    assert (second.board, second.run, second.event, second.move_count) == (first.board, first.run, first.event, first.move_count)


def test_a_report_that_comes_after_its_late_verdict_is_late() -> None:
    record = recorded(report(reason="no-verdict"), Note(label="ok", late=True))
    assert (record.reason, record.late, record.label) == ("late-verdict", True, "ok")


def test_a_part_decided_by_a_fault_names_the_fault() -> None:
    record = recorded(report(action="pass", reason="safe", moved=False), Note())
    assert (record.action, record.reason, record.code) == ("passed", "fault", 41)


def test_a_part_taken_off_was_never_at_the_gate() -> None:
    record = recorded(report(action="none", reason="missing", moved=False), Note())
    assert (record.action, record.reason, record.at_gate_at) == ("untracked", "taken-off", None)


@pytest.mark.parametrize("reason", WORDS["reason"])
@pytest.mark.parametrize("action", WORDS["action"])
def test_every_word_of_the_protocol_has_its_record(action: str, reason: str) -> None:
    assert recorded(report(action, reason), Note()).encode()


def test_a_part_of_a_run_that_is_over_is_untracked() -> None:
    record = untracked_sorting(Note(counted_at=NOW), "line-1", 2, 7, "board", "board-restarted", 21, NOW)
    assert (record.action, record.gate_moved, record.event, record.late) == ("untracked", False, 0, False)


def test_the_board_is_configured_from_the_lines_settings() -> None:
    settings = lane_settings(GateSettings(port="p", travel_mm=1500, belt_mm_per_s=250, safe="stop"))
    assert [settings.values[key] for key in ("eye_gap_mm", "step_um", "safe", "no_verdict")] == [1500, 250, "stop", "stop"]
    with pytest.raises(ValueError, match="eye_gap_mm"):
        lane_settings(GateSettings(port="p", travel_mm=20_001))


def test_notes_are_bounded_and_the_oldest_is_forgotten() -> None:
    notes = Notes(remembered=10)
    for part in range(1, 31):
        notes.of(1, part).counted_at = NOW
        notes.record(untracked_sorting(Note(), "line-1", 1, part, "board", "taken-off", 0, NOW))
    assert notes.recorded(1, 20) is None
    assert notes.recorded(1, 21) is not None
    assert notes.unfinished(2) == []


def test_parts_of_an_old_run_without_a_record_are_unfinished() -> None:
    notes = Notes()
    for part in (1, 2, 3):
        notes.of(1, part).counted_at = NOW
    notes.of(1, 4)  # only a verdict was heard of it
    notes.record(untracked_sorting(Note(), "line-1", 1, 2, "board", "taken-off", 0, NOW))
    notes.of(2, 1).counted_at = NOW
    assert notes.unfinished(2) == [(1, 1), (1, 3)]


def test_the_numbers_of_an_exchanged_board_name_other_parts() -> None:
    """A new board begins with run 1 again; what is remembered of the old board's run 1 is not held against its parts."""
    notes, verdict = Notes(), made_verdict("line-1", 1, 1, "defect", NOW)
    notes.of(1, 1).verdict(verdict)
    notes.record(untracked_sorting(Note(counted_at=NOW), "line-1", 1, 1, "board", "taken-off", 0, NOW))
    assert notes.counted(1, 1, NOW + timedelta(seconds=2)).verdict_id == verdict.verdict_id
    assert notes.recorded(1, 1) is not None
    assert notes.counted(1, 1, NOW + timedelta(days=3)).verdict_id is None
    assert notes.recorded(1, 1) is None
