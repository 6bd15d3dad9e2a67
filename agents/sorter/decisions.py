"""The sorter's decisions as pure functions: the settings of a lane, the command to the board for a verdict, and the sorting records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Literal

from agents.gate.lane import PartSorted
from agents.sorter.part_states import PartState
from firmware.fault_table import code_of
from firmware.lane_settings import LaneSettings
from streams.records import Action, Confirmation, Sorting, SortingReason, Verdict
from streams.settings import GateSettings, GradeSettings

# Sending a verdict can take this long. So a verdict is not sent if its part reaches the gate in less time.
MIN_SENDING_TIME = timedelta(milliseconds=30)
LATE: SortingReason = "late-verdict"
_BYPASS = code_of("bypass")

# The words that the gate protocol uses for actions and reasons, each with the word that the sorting records use.
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


_CONFIRMATIONS: dict[bool | None, Confirmation] = {True: "yes", False: "no", None: "not-equipped"}


def lane_settings(gate: GateSettings) -> LaneSettings:
    """Returns the board's settings for the lane of a line. A value that the line's settings leave out gets the protocol's default.

    Raises ValueError if a value is outside the board's bounds, or is not a whole number in the board's unit. Also raises ValueError if
    the belt has an encoder and `step_um` is missing.
    """
    if gate.board.get("encoder") in (1, "1") and "step_um" not in gate.board:
        raise ValueError("board.encoder is 1, but board.step_um is missing. Set it to the belt travel of one encoder edge in micrometres.")
    # The board counts belt travel in steps. Without an encoder, the board counts one step each millisecond, so the length of a step depends
    # on the speed of the belt. At 200 mm/s, a step is 200 um.
    step_um, step_nm = divmod(_whole("belt_mm_per_s", gate.belt_mm_per_s, 1000, "0.001 mm/s"), 1000)
    own_step = {} if "step_um" in gate.board else {"step_um": step_um, "step_nm": step_nm}
    return LaneSettings(
        {
            "eye_gap_mm": _whole("travel_mm", gate.travel_mm, 1, "1 mm"),
            **own_step,
            "no_verdict": gate.safe,
            "safe": gate.safe,
            **gate.board,
        }
    )


def _whole(name: str, value: float, units: int, unit: str) -> int:
    """Converts `value` from millimetres to the board's unit. `units` is the number of the board's units in one millimetre.

    Raises ValueError if the result is not a whole number. The message of the error names the board's unit, `unit`.
    """
    in_units = Fraction(repr(value)) * units
    if in_units.denominator != 1:
        raise ValueError(f"{name} is {value:g}, but the board counts in units of {unit}. Choose a whole multiple of this unit.")
    return int(in_units)


def grade_settings(gate: GateSettings) -> dict[int, LaneSettings]:
    """Returns the board's settings for each additional gate on the belt of a line. The keys are the lanes whose servos move these gates.

    Raises ValueError if a value is outside the board's bounds.
    """
    return {grade.lane: _one_grade(gate, grade) for grade in gate.grades}


def _one_grade(gate: GateSettings, grade: GradeSettings) -> LaneSettings:
    return LaneSettings(
        {
            "gate_mm": _whole(f"grades.{grade.name}.gate_mm", grade.gate_mm, 1, "1 mm"),
            "safe": gate.safe,
            **grade.board,
            "lane_of": gate.lane,
        }
    )


@dataclass(frozen=True)
class BoardVerdict:
    """A verdict in the words of the gate protocol.

    `gate` is the lane number of the additional gate that diverts the part, or None if no additional gate does.
    """

    word: Literal["keep", "divert"]
    gate: int | None = None


def board_verdict(verdict: Verdict, gate: GateSettings) -> BoardVerdict:
    """Returns whether the board must divert the judged part, and at which gate.

    A bad part is diverted by the first additional gate that the settings name for its label and its defect probability. If there is no such
    gate, the line's own gate diverts the part.
    """
    if verdict.label == "ok" or (verdict.label == "review" and gate.on_review == "pass"):
        return BoardVerdict("keep")
    probability = verdict.defect_probability or 0.0
    lanes = (grade.lane for grade in gate.grades if verdict.label in grade.takes and probability >= grade.least_probability)
    return BoardVerdict("divert", next(lanes, None))


def verdict_deadline(state: PartState, captured_at: datetime, gate: GateSettings, now: datetime, now_s: float) -> float:
    """Returns the latest time of the monotonic clock at which a verdict is allowed to be sent to the board.

    The deadline is counted from the time at which the board counted the part. If this time is unknown, the deadline is counted from
    `captured_at`, the time of the picture. If `captured_at` is in the future, `now` is used instead.

    `now` and `now_s` are the present time on the wall clock and on the monotonic clock.
    """
    counted_s = state.counted_s
    if counted_s is None:
        counted_s = now_s - (now - (state.counted_at or min(captured_at, now))).total_seconds()
    return counted_s + gate.travel_s - MIN_SENDING_TIME.total_seconds()


class LaneFaults:
    """The faults of a lane since the last reset of its board."""

    def __init__(self) -> None:
        self._active: list[int] = []
        self._ended_last = 0

    def change(self, code: int, is_active: bool) -> None:
        """Adds a fault that has begun, or removes a fault that has ended."""
        if is_active:
            self._active.append(code)
            return
        self._ended_last = code
        if code in self._active:
            self._active.remove(code)

    def explain_safe_action(self, oldest_on_board: int) -> int:
        """Returns the code of the fault that made the board apply the safe action to a part, or 0.

        The result is the first fault in this list that exists:

        1. The fault `bypass`, if it is active: a person has turned the bypass key. The key controls the gate even during other faults.
        2. The newest active fault that the sorter knows.
        3. `oldest_on_board`, the oldest fault that the board reports. The sorter does not know faults that began before it was started.
        4. The fault that ended last. Perhaps this fault was still active when the board decided about the part.
        """
        if _BYPASS in self._active:
            return _BYPASS
        return self._active[-1] if self._active else oldest_on_board or self._ended_last


def make_sorting(
    event: PartSorted, state: PartState, line: str, board: str, fault: int, now: datetime, grade: str | None = None
) -> Sorting:
    """Returns the sorting record: what the gate did with a part.

    - `fault`: the code of the active fault, or 0.
    - `grade`: the name of the additional gate that diverted the part, or None.
    """
    reason = _REASONS[event.reason]
    if state.is_late and reason == "no-verdict":
        reason = LATE
    # The record names the verdict of the part in two cases: the board got the verdict, or the verdict came too late.
    has_verdict = state.answered_at is not None or state.is_late or event.reason == "verdict"
    return Sorting(
        line=line,
        run=event.run,
        part=event.part,
        board=board,
        event=event.event,
        action=ACTIONS[event.action],
        grade=grade,
        reason=reason,
        code=fault if event.reason == "safe" else code_of("late") if state.is_late else 0,
        label=state.label if has_verdict else None,
        verdict_id=state.verdict_id if has_verdict else None,
        gate_moved=event.moved,
        move_count=event.moves,
        confirmed=_CONFIRMATIONS[event.is_confirmed] if event.action == "divert" else None,
        late=state.is_late and event.reason != "verdict",
        counted_at=event.counted_at or state.counted_at,
        told_at=state.answered_at,
        at_gate_at=event.at_gate_at if event.action != "none" else None,
        sorted_at=now,
    )


def make_late_sorting(previous: Sorting, verdict: Verdict, now: datetime) -> Sorting:
    """Returns a second sorting record of a part, which adds a verdict that came too late.

    The second record has the board, run and event number of the first record. So a reader knows that the gate did not move a second time.
    """
    reason: SortingReason = LATE if previous.reason == "no-verdict" else previous.reason
    change = {
        "reason": reason,
        "code": previous.code or code_of("late"),
        "label": verdict.label,
        "verdict_id": verdict.verdict_id,
        "late": True,
        "sorted_at": now,
    }
    return previous.model_copy(update=change)


def make_obeyed_sorting(previous: Sorting, verdict: Verdict | PartState, now: datetime) -> Sorting:
    """Returns a second sorting record of a part. The second record names the verdict that the board obeyed."""
    return previous.model_copy(update={"label": verdict.label, "verdict_id": verdict.verdict_id, "sorted_at": now})


def make_untracked_sorting(
    state: PartState, line: str, run: int, part: int, board: str, reason: SortingReason, code: int, now: datetime
) -> Sorting:
    """Returns the sorting record of a part that the board will not report, for example a part of an earlier run."""
    return Sorting(
        line=line,
        run=run,
        part=part,
        board=board,
        event=0,
        action="untracked",
        reason=reason,
        code=code,
        label=state.label,
        verdict_id=state.verdict_id,
        gate_moved=False,
        move_count=0,
        late=reason == LATE,
        counted_at=state.counted_at,
        told_at=state.answered_at,
        at_gate_at=None,
        sorted_at=now,
    )
