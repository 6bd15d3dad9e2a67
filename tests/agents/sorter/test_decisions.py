"""The sorter's decisions: from a verdict to the board's command, from the board's event to the record, and the states of parts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from agents.gate.lane import PartSorted
from agents.sorter.decisions import (
    BoardVerdict,
    board_verdict,
    lane_settings,
    make_late_sorting,
    make_sorting,
    make_untracked_sorting,
    verdict_deadline,
)
from agents.sorter.part_states import PartState, PartStates, join_states
from firmware.protocol import WORDS
from streams.records import Label, Sorting
from streams.settings import GateSettings
from tests.fake_inspector import make_verdict

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
GATE = GateSettings(port="/dev/null")


def gate_event(action: str = "divert", reason: str = "verdict", moved: bool = True, part: int = 7) -> PartSorted:
    return PartSorted(3, 2, part, action, reason, moved, 11, NOW - timedelta(seconds=2), NOW)


def record_of(event: PartSorted, state: PartState) -> Sorting:
    return make_sorting(event, state, "line-1", "board", 41, NOW)


@pytest.mark.parametrize(
    ("label", "on_review", "word"),
    [("ok", "divert", "keep"), ("defect", "pass", "divert"), ("review", "divert", "divert"), ("review", "pass", "keep")],
)
def test_a_verdict_is_sent_as_the_lines_settings_say(label: Label, on_review: str, word: Literal["keep", "divert"]) -> None:
    gate = GateSettings.model_validate({"port": "p", "on_review": on_review})
    assert board_verdict(make_verdict("line-1", 1, 1, label, NOW), gate) == BoardVerdict(word)


def test_a_verdict_is_sent_until_just_before_the_part_is_at_the_gate() -> None:
    assert verdict_deadline(PartState(counted_at=NOW, counted_s=5.0), NOW, GATE, NOW, 5.0) == pytest.approx(6.97)


def test_a_step_of_the_wall_clock_shifts_no_deadline_of_a_counted_part() -> None:
    """The part is counted, then the wall clock is set an hour forward, then the verdict comes."""
    state, later = PartState(counted_at=NOW, counted_s=5.0), NOW + timedelta(hours=1)
    assert verdict_deadline(state, later, GATE, later, 5.5) == pytest.approx(6.97)


def test_the_deadline_follows_from_the_picture_if_the_count_was_not_seen() -> None:
    assert verdict_deadline(PartState(), NOW, GATE, NOW + timedelta(seconds=0.5), 100.0) == pytest.approx(101.47)


@pytest.mark.parametrize("step", [timedelta(hours=1), -timedelta(hours=1)])
def test_a_step_of_the_wall_clock_makes_no_other_part_of_a_counted_one(step: timedelta) -> None:
    states, verdict = PartStates(), make_verdict("line-1", 1, 1, "defect", NOW)
    states.set_counted(1, 1, NOW, 5.0).set_verdict(verdict)
    state = states.set_counted(1, 1, NOW + step, 5.01)
    assert (state.verdict_id, state.counted_at) == (verdict.verdict_id, NOW)


def test_a_part_that_was_sorted_by_its_verdict_is_recorded_with_the_verdict() -> None:
    state, verdict = PartState(answered_at=NOW), make_verdict("line-1", 2, 7, "defect", NOW)
    state.set_verdict(verdict)
    record = record_of(gate_event(), state)
    assert (record.action, record.reason, record.label, record.verdict_id) == ("diverted", "verdict", "defect", verdict.verdict_id)
    assert (record.gate_moved, record.move_count, record.event, record.late, record.code) == (True, 11, 3, False, 0)
    assert record.counted_at == NOW - timedelta(seconds=2)


@pytest.mark.parametrize(
    ("action", "seen", "confirmed"),
    [("divert", True, "yes"), ("divert", False, "no"), ("divert", None, "not-equipped"), ("pass", None, None), ("none", None, None)],
)
def test_the_record_says_whether_the_chutes_eye_saw_the_part(action: str, seen: bool | None, confirmed: str | None) -> None:
    record = record_of(replace(gate_event(action), is_confirmed=seen), PartState())
    assert record.confirmed == confirmed
    assert Sorting.decode(record.encode()).confirmed == confirmed


def test_a_part_whose_verdict_was_not_sent_is_recorded_without_it() -> None:
    state = PartState()
    state.set_verdict(make_verdict("line-1", 2, 7, "ok", NOW))  # on Kafka, but never sent
    record = record_of(gate_event(reason="no-verdict"), state)
    assert (record.reason, record.label, record.verdict_id, record.late) == ("no-verdict", None, None, False)


def test_a_late_verdict_changes_the_record_and_not_the_movement() -> None:
    first = record_of(gate_event(reason="no-verdict"), PartState())
    verdict = make_verdict("line-1", 2, 7, "ok", NOW)
    second = make_late_sorting(first, verdict, NOW + timedelta(seconds=1))
    assert (second.reason, second.late, second.label, second.code) == ("late-verdict", True, "ok", 20)
    assert (second.board, second.run, second.event, second.move_count) == (first.board, first.run, first.event, first.move_count)


def test_a_late_verdict_leaves_the_fault_that_decided_about_the_part_in_the_record() -> None:
    first = record_of(gate_event(action="pass", reason="safe", moved=False), PartState())
    second = make_late_sorting(first, make_verdict("line-1", 2, 7, "ok", NOW), NOW + timedelta(seconds=1))
    assert (second.reason, second.code, second.late, second.label) == ("fault", 41, True, "ok")


def test_an_event_after_a_late_verdict_is_recorded_as_late() -> None:
    record = record_of(gate_event(reason="no-verdict"), PartState(label="ok", is_late=True))
    assert (record.reason, record.late, record.label) == ("late-verdict", True, "ok")


def test_a_part_that_a_fault_decided_is_recorded_with_the_fault() -> None:
    record = record_of(gate_event(action="pass", reason="safe", moved=False), PartState())
    assert (record.action, record.reason, record.code) == ("passed", "fault", 41)


def test_a_part_that_was_taken_off_the_belt_was_never_at_the_gate() -> None:
    record = record_of(gate_event(action="none", reason="missing", moved=False), PartState())
    assert (record.action, record.reason, record.at_gate_at) == ("untracked", "taken-off", None)


@pytest.mark.parametrize("reason", WORDS["reason"])
@pytest.mark.parametrize("action", WORDS["action"])
def test_every_word_of_the_protocol_has_its_record(action: str, reason: str) -> None:
    assert record_of(gate_event(action, reason), PartState()).encode()


def test_a_part_of_an_earlier_run_is_untracked() -> None:
    record = make_untracked_sorting(PartState(counted_at=NOW), "line-1", 2, 7, "board", "board-restarted", 21, NOW)
    assert (record.action, record.gate_moved, record.event, record.late) == ("untracked", False, 0, False)


def test_the_board_is_configured_from_the_lines_settings() -> None:
    settings = lane_settings(GateSettings(port="p", travel_mm=1500, belt_mm_per_s=250, safe="stop"))
    assert [settings.values[key] for key in ("eye_gap_mm", "step_um", "safe", "no_verdict")] == [1500, 250, "stop", "stop"]
    with pytest.raises(ValueError, match="eye_gap_mm"):
        lane_settings(GateSettings(port="p", travel_mm=20_001))


def test_the_states_are_bounded_and_the_oldest_is_dropped() -> None:
    states = PartStates(max_parts=10)
    for part in range(1, 31):
        states.get(1, part).counted_at = NOW
        states.add_sorting(make_untracked_sorting(PartState(), "line-1", 1, part, "board", "taken-off", 0, NOW))
    assert states.last_sorting(1, 20) is None
    assert states.last_sorting(1, 21) is not None
    assert states.unrecorded_parts(2) == []


def untracked(part: int, at: datetime = NOW) -> Sorting:
    return make_untracked_sorting(PartState(), "line-1", 1, part, "board", "taken-off", 0, at)


def test_counted_or_judged_parts_of_an_earlier_run_without_a_record_are_found() -> None:
    states = PartStates()
    for part in (1, 2, 3):
        states.get(1, part).counted_at = NOW
    states.get(1, 4)  # nothing is known of this part
    states.get(1, 5).set_verdict(make_verdict("line-1", 1, 5, "ok", NOW))
    states.add_sorting(untracked(2))
    states.get(2, 1).counted_at = NOW
    assert states.unrecorded_parts(2) == [(1, 1), (1, 3), (1, 5)]


def test_after_a_restart_the_judged_parts_without_a_record_are_known_and_no_others() -> None:
    """Part 3 was judged and not sorted. Part 4 was sorted without a verdict, and part 2 has two records."""
    verdicts = [make_verdict("line-1", 1, part, "ok", NOW) for part in (1, 2, 3)]
    sortings = [untracked(part, NOW + timedelta(seconds=2)) for part in (1, 2, 4, 2)]
    states = join_states(verdicts, sortings)
    assert states.unrecorded_parts(2) == [(1, 3)]
    assert states.last_sorting(1, 4) is not None


def test_a_verdict_whose_record_may_not_have_been_read_is_no_unrecorded_part() -> None:
    verdicts = [make_verdict("line-1", 1, part, "ok", NOW + timedelta(seconds=part)) for part in (1, 9)]
    sortings = [untracked(part, NOW + timedelta(seconds=part)) for part in (5, 6)]
    assert join_states(verdicts, sortings, sortings[0].sorted_at).unrecorded_parts(2) == [(1, 9)]


@pytest.mark.parametrize(("run", "counted", "unused"), [(13, 0, 13), (12, 4, 12), (12, 3, 13), (1, 0, 13), (1, 9, 13)])
def test_an_exchanged_board_is_recognised_by_its_run_and_its_count(run: int, counted: int, unused: int) -> None:
    """The line's board has counted four parts in run 12. The verdict names a part that no board has counted."""
    states = PartStates()
    for known_run, part in ((11, 50), (12, 4)):
        states.set_counted(known_run, part, NOW)
    states.get(12, 99).set_verdict(make_verdict("line-1", 12, 99, "ok", NOW))
    states.get(1_700_000_000, 1).counted_at = NOW
    assert states.unused_run(run, counted) == unused


def test_the_run_of_the_journal_counts_even_if_no_part_is_known() -> None:
    states = PartStates()
    states.last_run = 12
    assert [states.unused_run(run, 0) for run in (1, 12, 13)] == [13, 12, 13]
    states.last_run = 65535
    assert states.unused_run(1, 0) == 1, "the board's run has begun again"


def test_a_run_that_only_verdicts_name_is_used_unless_it_is_far_away() -> None:
    states = PartStates()
    states.last_run = 12
    for run in (13, 400, 1_700_000_000):
        states.get(run, 1).set_verdict(make_verdict("line-1", run, 1, "ok", NOW))
    assert [states.unused_run(run, 0) for run in (1, 12, 13, 14)] == [14, 14, 13, 14]


def test_an_exchanged_board_gives_the_same_numbers_to_other_parts() -> None:
    """An exchanged board begins with run 1 again. The states of the old board's run 1 do not belong to its parts."""
    states, verdict = PartStates(), make_verdict("line-1", 1, 1, "defect", NOW)
    states.get(1, 1).set_verdict(verdict)
    states.add_sorting(make_untracked_sorting(PartState(counted_at=NOW), "line-1", 1, 1, "board", "taken-off", 0, NOW))
    assert states.set_counted(1, 1, NOW + timedelta(seconds=2)).verdict_id == verdict.verdict_id
    assert states.last_sorting(1, 1) is not None
    assert states.set_counted(1, 1, NOW + timedelta(days=3)).verdict_id is None
    assert states.last_sorting(1, 1) is None


def test_the_speed_of_the_belt_is_sent_exactly() -> None:
    settings = lane_settings(GateSettings(port="p", travel_mm=1500, belt_mm_per_s=12.4))
    assert (settings.number("step_um"), settings.number("step_nm")) == (12, 400)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"belt_mm_per_s": 12.34567}, "belt_mm_per_s is 12.3457, but the board counts in units of 0.001 mm/s"),
        ({"travel_mm": 1500.5}, "travel_mm is 1500.5, but the board counts in units of 1 mm"),
        ({"board": {"encoder": 1}}, "board.step_um is missing"),
    ],
)
def test_a_setting_that_the_board_cannot_use_exactly_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        lane_settings(GateSettings(port="p", **values))
