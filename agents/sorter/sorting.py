"""What a verdict asks of the gate, and what is recorded of each part. Pure: time is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from agents.gate.events import PartSorted
from agents.sorter.part_states import Note
from firmware.board.lane_settings import LaneSettings
from firmware.fault_table import code_of
from streams.records import Action, Sorting, SortingReason, Verdict
from streams.settings import GateSettings, GradeSettings

# On the wire and at the board a verdict needs less than this; one that has less left is not sent.
TELLING = timedelta(milliseconds=30)
LATE: SortingReason = "late-verdict"

ACTIONS: dict[str, Action] = {"divert": "diverted", "pass": "passed", "stop": "stopped", "none": "untracked"}
_REASONS: dict[str, SortingReason] = {
    "verdict": "verdict",
    "no-verdict": "no-verdict",
    "cancelled": "no-verdict",
    "safe": "fault",
    "missing": "taken-off",
    "unmatched": "unmatched",
    "spacing": "spacing",
    "touching": "touching",
}


def lane_settings(gate: GateSettings) -> LaneSettings:
    """The board's configuration for a line; what the line's settings do not name has the protocol's default.

    Raises ValueError: when the settings are beyond the board's bounds.
    """
    return LaneSettings(
        {
            "eye_gap_mm": round(gate.travel_mm),
            "step_um": round(gate.belt_mm_per_s),  # without encoder a step is a millisecond: um/ms = mm/s
            "no_verdict": gate.safe,
            "safe": gate.safe,
            **gate.board,
        }
    )


def grade_settings(gate: GateSettings) -> dict[int, LaneSettings]:
    """The board's configuration for each further gate of a line, by the lane whose servo moves it.

    Raises ValueError: when the settings are beyond the board's bounds.
    """
    return {grade.lane: _grade(gate, grade) for grade in gate.grades}


def _grade(gate: GateSettings, grade: GradeSettings) -> LaneSettings:
    return LaneSettings({"gate_mm": round(grade.gate_mm), "safe": gate.safe, **grade.board, "lane_of": gate.lane})


@dataclass(frozen=True)
class Wanted:
    """What the board is told of a part; `gate` is the lane of the further gate that is to take it, None: the line's own."""

    word: Literal["keep", "divert"]
    gate: int | None = None


KEEP = Wanted("keep")


def wanted_for(verdict: Verdict, gate: GateSettings) -> Wanted:
    """A defect is diverted, a `review` as the line's settings say: each at the first grade that takes it, else at the line's own gate."""
    if verdict.label == "ok" or (verdict.label == "review" and gate.on_review == "pass"):
        return KEEP
    sure = verdict.defect_probability or 0.0
    takers = (grade.lane for grade in gate.grades if verdict.label in grade.takes and sure >= grade.least_probability)
    return Wanted("divert", next(takers, None))


def deadline_of(counted_at: datetime, gate: GateSettings) -> datetime:
    """Until when telling makes sense, for a part counted (or photographed) at `counted_at`."""
    return counted_at + timedelta(seconds=gate.travel_s) - TELLING


def sorting_of(event: PartSorted, note: Note, line: str, board: str, code: int, now: datetime, grade: str | None = None) -> Sorting:
    """The record of what the board did. `code` is the fault in force, for a part that a fault decided; `grade` the further gate's name."""
    reason = _REASONS[event.reason]
    if note.late and reason == "no-verdict":
        reason = LATE
    told = note.told_at is not None or note.late or event.reason == "verdict"
    return Sorting(
        line=line,
        run=event.run,
        part=event.part,
        board=board,
        event=event.event,
        action=ACTIONS[event.action],
        grade=grade,
        reason=reason,
        code=code if event.reason == "safe" else code_of("late") if note.late else 0,
        label=note.label if told else None,
        verdict_id=note.verdict_id if told else None,
        gate_moved=event.moved,
        move_count=event.moves,
        late=note.late and event.reason != "verdict",
        counted_at=event.counted_at or note.counted_at,
        told_at=note.told_at,
        at_gate_at=event.at_gate_at if event.action != "none" else None,
        sorted_at=now,
    )


def late_sorting(recorded: Sorting, verdict: Verdict, now: datetime) -> Sorting:
    """The record of a part again, after its verdict came too late. It repeats board, run and event: no second movement."""
    reason: SortingReason = LATE if recorded.reason == "no-verdict" else recorded.reason
    change = {
        "reason": reason,
        "code": recorded.code or code_of("late"),
        "label": verdict.label,
        "verdict_id": verdict.verdict_id,
        "late": True,
        "sorted_at": now,
    }
    return recorded.model_copy(update=change)


def untracked_sorting(note: Note, line: str, run: int, part: int, board: str, reason: SortingReason, code: int, now: datetime) -> Sorting:
    """The record of a part that the board cannot report: of a run that is over, or never counted."""
    return Sorting(
        line=line,
        run=run,
        part=part,
        board=board,
        event=0,
        action="untracked",
        reason=reason,
        code=code,
        label=note.label,
        verdict_id=note.verdict_id,
        gate_moved=False,
        move_count=0,
        late=reason == LATE,
        counted_at=note.counted_at,
        told_at=note.told_at,
        at_gate_at=None,
        sorted_at=now,
    )
