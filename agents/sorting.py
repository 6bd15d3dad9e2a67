"""What a verdict asks of the gate, and what is recorded of each part. Pure: time is passed in."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from agents.gate_events import PartSorted
from agents.notes import Note
from firmware.board.codes import number
from firmware.board.lane_settings import LaneSettings
from streams.records import Action, Sorting, SortingReason, Verdict
from streams.settings import GateSettings

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


def order_for(verdict: Verdict, gate: GateSettings) -> Literal["keep", "divert"]:
    """What the board is told: a defect is diverted, a `review` as the line's settings say."""
    if verdict.label == "review":
        return "divert" if gate.on_review == "divert" else "keep"
    return "divert" if verdict.label == "defect" else "keep"


def deadline_of(counted_at: datetime, gate: GateSettings) -> datetime:
    """Until when telling makes sense, for a part counted (or photographed) at `counted_at`."""
    return counted_at + timedelta(seconds=gate.travel_s) - TELLING


def sorting_of(event: PartSorted, note: Note, line: str, board: str, code: int, now: datetime) -> Sorting:
    """The record of what the board did. `code` is the fault in force, for a part that a fault decided."""
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
        reason=reason,
        code=code if event.reason == "safe" else number("late") if note.late else 0,
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
        "code": recorded.code or number("late"),
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
