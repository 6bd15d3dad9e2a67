"""The state of a line: each state, its limit, the order of the states, and the changes from one state to another."""

from __future__ import annotations

from itertools import pairwise

import pytest

from streams.plant_states import LineActivity, LineCondition, LineCounts, PlantState, compute_state
from streams.settings import PlantStateSettings

LIMITS = PlantStateSettings()
TRAVEL_S = 2.0
FINE = LineCondition()
HELD = LineCondition(is_gate_held=True)
STOPPED = LineCondition(is_stop_planned=True)
CUT_OFF = LineCondition(is_connected=False)


class Line:
    """A line on which one casting comes each second. `run` says which of its devices work."""

    def __init__(self, travel_s: float | None = TRAVEL_S) -> None:
        self.activity = LineActivity(travel_s)
        self.now = 1000.0

    def run(
        self, seconds: int, castings: bool = True, camera: bool = True, inspector: bool = True, board: bool = True, late: bool = False
    ) -> None:
        """Lets the line run. With `castings=False`, the belt is empty. With `late=True`, each verdict misses its casting."""
        for _ in range(seconds):
            self.now += 1
            if castings and board and self.activity.travel_s is not None:
                self.activity.add_casting(self.now)
            if castings and camera:
                self.activity.add_picture(self.now)
            if castings and camera and inspector:
                self.activity.add_verdict(self.now)
            if castings and board:
                self.activity.add_report(self.now)
            if castings and late:
                self.activity.add_missed(self.now)

    def state(self, condition: LineCondition = FINE) -> PlantState:
        return compute_state(self.activity, condition, LIMITS, self.now)


@pytest.fixture
def line() -> Line:
    """A line that has run for a minute without a fault."""
    line = Line()
    line.run(60)
    return line


def test_a_line_on_which_everything_works_is_running(line: Line) -> None:
    assert line.state() is PlantState.RUNNING


def test_a_line_that_has_seen_nothing_has_no_castings() -> None:
    assert Line().state() is PlantState.NO_CASTINGS


@pytest.mark.parametrize(
    ("faults", "limit_s", "state"),
    [
        ({"castings": False}, LIMITS.no_castings_s + 1, PlantState.NO_CASTINGS),
        ({"inspector": False, "late": True}, LIMITS.blind_s + 1, PlantState.RUNNING_BLIND),
        ({"camera": False, "late": True}, LIMITS.camera_silent_s + 1, PlantState.CAMERA_SILENT),
        ({"late": True}, LIMITS.late_castings, PlantState.LATE),
        ({"board": False}, LIMITS.board_silent_s + TRAVEL_S + 1, PlantState.DISCONNECTED),
    ],
    ids=lambda value: value.value if isinstance(value, PlantState) else None,
)
def test_a_state_begins_at_its_limit_and_ends_when_the_fault_ends(
    line: Line, faults: dict[str, bool], limit_s: float, state: PlantState
) -> None:
    line.run(int(limit_s) - 1, **faults)
    assert line.state() is not state
    line.run(1, **faults)
    assert line.state() is state
    line.run(int(LIMITS.late_window_s) + 1)
    assert line.state() is PlantState.RUNNING


@pytest.mark.parametrize(
    ("condition", "state"),
    [(CUT_OFF, PlantState.DISCONNECTED), (HELD, PlantState.GATE_HELD), (STOPPED, PlantState.PLANNED_STOP)],
    ids=["disconnected", "gate held", "planned stop"],
)
def test_a_condition_counts_at_once_and_only_while_it_lasts(line: Line, condition: LineCondition, state: PlantState) -> None:
    assert line.state(condition) is state
    assert line.state() is PlantState.RUNNING


def test_the_first_state_that_holds_counts() -> None:
    # A dead inspector, a camera that fails later, and castings that miss their verdicts.
    line = Line()
    line.run(5)
    line.run(20, inspector=False, late=True)
    line.run(20, camera=False, late=True)
    everything = LineCondition(is_connected=False, is_gate_held=True, is_stop_planned=True)
    assert line.state(everything) is PlantState.DISCONNECTED
    assert line.state(LineCondition(is_gate_held=True, is_stop_planned=True)) is PlantState.GATE_HELD
    assert line.state(STOPPED) is PlantState.PLANNED_STOP
    assert line.state() is PlantState.RUNNING_BLIND
    # When no picture has come for a while, only the camera is to blame.
    line.run(20, camera=False, late=True)
    assert line.state() is PlantState.CAMERA_SILENT
    line.run(1, late=True)
    assert line.state() is PlantState.LATE
    # The belt stops: the line is late as long as the castings lie within the window.
    line.run(int(LIMITS.late_window_s) + 1, castings=False)
    assert line.state() is PlantState.NO_CASTINGS


def test_a_belt_that_stops_ends_the_states_of_moving_castings(line: Line) -> None:
    line.run(20, inspector=False)
    assert line.state() is PlantState.RUNNING_BLIND
    line.run(int(LIMITS.no_castings_s) + 1, castings=False)
    assert line.state() is PlantState.NO_CASTINGS


def test_the_first_casting_after_a_break_is_not_blind(line: Line) -> None:
    line.run(3600, castings=False)
    line.run(1, inspector=False)
    assert line.state() is PlantState.RUNNING
    line.run(60)
    assert line.state() is PlantState.RUNNING


def test_reports_about_castings_that_were_still_on_the_belt_do_not_accuse_the_camera() -> None:
    # The board reports a casting one minute after photo-eye 1 has counted it. The camera took its picture at once.
    slow = LineActivity(60.0)
    for second in range(100):
        slow.add_picture(second)
        slow.add_verdict(second)
    for second in range(100, 160):
        slow.add_casting(second - 61)
        slow.add_report(second)
        assert compute_state(slow, FINE, LIMITS, second) in (PlantState.RUNNING, PlantState.NO_CASTINGS)


def test_a_line_without_a_gate_runs_by_its_pictures() -> None:
    line = Line(travel_s=None)
    line.run(120)
    assert line.state() is PlantState.RUNNING
    line.run(11, inspector=False)
    assert line.state() is PlantState.RUNNING_BLIND


def test_counts_that_grow_are_events_and_counts_of_a_restarted_process_are_not() -> None:
    activity = LineActivity(TRAVEL_S)
    numbers = [(1000, 1000, 1000), (1001, 1001, 1001), (2, 1002, 1002), (3, 1003, 1003)]
    for now, (castings, pictures, verdicts) in enumerate(numbers):
        activity.add_counts(LineCounts(castings, pictures, verdicts, castings), now)
        state = compute_state(activity, FINE, LIMITS, now)
        assert state is (PlantState.RUNNING if now else PlantState.NO_CASTINGS)
    assert activity.newest_casting == 3


def test_missed_castings_are_counted_one_by_one() -> None:
    activity = LineActivity(TRAVEL_S)
    activity.add_counts(LineCounts(missed=40), 0)
    activity.add_counts(LineCounts(missed=42), 10)
    assert activity.count_missed(since=0) == 2
    assert activity.count_missed(since=11) == 0


def test_each_state_can_follow_each_other_state() -> None:
    """From each state, a line comes into each other state, and no memory of the first state remains."""
    faults: dict[PlantState, tuple[dict[str, bool], LineCondition]] = {
        PlantState.DISCONNECTED: ({}, CUT_OFF),
        PlantState.GATE_HELD: ({}, HELD),
        PlantState.PLANNED_STOP: ({"castings": False}, STOPPED),
        PlantState.RUNNING_BLIND: ({"inspector": False, "late": True}, FINE),
        PlantState.CAMERA_SILENT: ({"camera": False, "late": True}, FINE),
        PlantState.LATE: ({"late": True}, FINE),
        PlantState.NO_CASTINGS: ({"castings": False}, FINE),
        PlantState.RUNNING: ({}, FINE),
    }
    order = [state for first in PlantState for second in PlantState for state in (first, second)]
    line = Line()
    line.run(5)
    for before, state in pairwise(order):
        fault, condition = faults[state]
        line.run(int(LIMITS.late_window_s) + 40, **fault)
        assert line.state(condition) is state, f"after {before}"
