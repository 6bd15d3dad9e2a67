"""Computes the state of a line, such as `running` or `gate held`, from its castings, pictures, verdicts and reports of the board.

All programs that show the state of a line, or raise an alarm about it, call `compute_state`.

The functions read no clock. The caller passes all times as seconds of the same clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from streams.settings.sections import PlantStateSettings

_MAX_MISSED = 1000


class PlantState(StrEnum):
    """The state of a line. If several states apply at the same time, the line has the first of them in the order of this list.

    The label `state` of the metric `castline_line_state` has the same values.
    """

    # Kafka or the board does not answer, or the board reports no castings although verdicts arrive.
    DISCONNECTED = "disconnected"
    # A fault of the board holds the gate in its safe state.
    GATE_HELD = "gate-held"
    # A person has planned a stop of the line for the present time.
    PLANNED_STOP = "planned-stop"
    # Pictures come, but no verdict. The board applies the line's safe action (divert, pass or stop) to each casting.
    RUNNING_BLIND = "running-blind"
    # Photo-eye 1 counts castings, but no picture comes.
    CAMERA_SILENT = "camera-silent"
    # Verdicts come, but too late for the gate.
    LATE = "late"
    NO_CASTINGS = "no-castings"
    RUNNING = "running"

    @property
    def display_name(self) -> str:
        """The name of the state for people, such as "gate held"."""
        return self.value.replace("-", " ")


@dataclass(frozen=True)
class StateAlarm:
    """The texts of the alarm for a state in which a person must act. The wall, `castline top` and the alerts of Grafana show these texts.

    - `alert`: the name of the alert.
    - `severity`: `critical` if somebody must act at once, otherwise `warning`.
    - `meaning`: a sentence that says what happens on the line.
    - `impact`: a sentence about the consequences for the castings.
    - `first_step`: a sentence that says what to do first.
    """

    alert: str
    severity: Literal["critical", "warning"]
    meaning: str
    impact: str
    first_step: str


# The alarms of all states in which a person must act.
STATE_ALARMS: Mapping[PlantState, StateAlarm] = {
    PlantState.DISCONNECTED: StateAlarm(
        "LineDisconnected",
        "critical",
        "The line is disconnected: Kafka or the board does not answer.",
        "Without verdicts, the board applies the line's safe action (divert, pass or stop) to every casting.",
        "Check that the broker and the sorter run. Then check the power and the USB cable of the board.",
    ),
    PlantState.GATE_HELD: StateAlarm(
        "LineGateHeld",
        "critical",
        "A fault holds the gate in its safe state.",
        "The gate follows no verdict until a person ends the fault.",
        "Find the fault on the page of the line, and remove its cause. Then acknowledge the fault.",
    ),
    PlantState.RUNNING_BLIND: StateAlarm(
        "LineRunningBlind",
        "critical",
        "The line is running blind: pictures come, but no verdict.",
        "No casting is judged, so the board applies the line's safe action (divert, pass or stop) to every casting.",
        "Check that an inspector runs and is ready.",
    ),
    PlantState.CAMERA_SILENT: StateAlarm(
        "LineCameraSilent",
        "critical",
        "The camera is silent: castings come, but no picture.",
        "No casting is judged, so the board applies the line's safe action (divert, pass or stop) to every casting.",
        "Check the power, the lamp and the trigger cable of the camera. Then check the gateway.",
    ),
    PlantState.LATE: StateAlarm(
        "LineLate",
        "warning",
        "The line is late: castings reach the gate before their verdicts.",
        "The board applies the line's safe action (divert, pass or stop) to these castings.",
        "Start another inspector, or end other programs that use the processors of its machine.",
    ),
}


@dataclass(frozen=True)
class LineCounts:
    """How many castings, pictures, verdicts and reports a line has had so far.

    - `castings`: castings that photo-eye 1 counted.
    - `pictures`: pictures of the line.
    - `verdicts`: verdicts on these pictures.
    - `reports`: reports of the board about castings at the gate.
    - `missed`: castings that got their verdict too late or not at all.
    """

    castings: int = 0
    pictures: int = 0
    verdicts: int = 0
    reports: int = 0
    missed: int = 0


@dataclass(frozen=True)
class LineCondition:
    """Facts about a line that its counts do not show.

    - `is_connected`: whether data arrives from the line, and the sorter has a connection to the board.
    - `is_gate_held`: whether a fault holds the gate in its safe state.
    - `is_stop_planned`: whether the present time lies within a planned stop.
    """

    is_connected: bool = True
    is_gate_held: bool = False
    is_stop_planned: bool = False


class LineActivity:
    """Remembers when the newest casting, picture and verdict of a line came, and whether reports of the board are missing.

    `travel_s` is the time that a casting takes from photo-eye 1 to the gate, or None if the line has no gate. On a line without a gate,
    each picture counts as a casting.
    """

    def __init__(self, travel_s: float | None) -> None:
        self.travel_s = travel_s
        self._counts: LineCounts | None = None
        self.forget_times()

    def forget_times(self) -> None:
        """Forgets when castings, pictures, verdicts and reports came. Keeps the counts. Call this method after the clock was set."""
        self.newest_casting: float | None = None
        self.newest_picture: float | None = None
        self.newest_verdict: float | None = None
        # The time of the first casting that came after the newest picture.
        self.without_picture_since: float | None = None
        # The time of the first picture that came after the newest verdict.
        self.without_verdict_since: float | None = None
        # The time of the first verdict that came after the newest report of the board.
        self.without_report_since: float | None = None
        self._missed: deque[float] = deque(maxlen=_MAX_MISSED)

    def add_counts(self, counts: LineCounts, now: float) -> None:
        """Compares `counts` with the counts of the last call. A higher count means that something has come at the time `now`.

        For example, a higher count of pictures means that a picture has come. A lower count is ignored, because it only means that a
        process was restarted. The first call only stores the counts.
        """
        before, self._counts = self._counts, counts
        if before is None:
            return
        if counts.castings > before.castings:
            self.add_casting(now)
        if counts.pictures > before.pictures:
            self.add_picture(now)
        if counts.verdicts > before.verdicts:
            self.add_verdict(now)
        if counts.reports > before.reports:
            self.add_report(now)
        for _ in range(min(counts.missed - before.missed, _MAX_MISSED)):
            self.add_missed(now)

    def add_casting(self, at: float) -> None:
        """Adds a casting that photo-eye 1 counted at the time `at`."""
        self.newest_casting = max(at, self.newest_casting or at)
        if self.without_picture_since is None and (self.newest_picture is None or at > self.newest_picture):
            self.without_picture_since = at

    def add_picture(self, at: float) -> None:
        """Adds a picture that the line's camera took at the time `at`."""
        self.newest_picture = max(at, self.newest_picture or at)
        self.without_picture_since = None
        if self.travel_s is None:
            self.newest_casting = self.newest_picture
        if self.without_verdict_since is None:
            self.without_verdict_since = at

    def add_verdict(self, at: float) -> None:
        """Adds a verdict about a casting of the line. The verdict came at the time `at`."""
        self.newest_verdict = max(at, self.newest_verdict or at)
        self.without_verdict_since = None
        if self.without_report_since is None:
            self.without_report_since = at

    def add_report(self, at: float) -> None:
        """Notes that the board reported a casting at the gate at the time `at`.

        If verdicts came before this time, the report shows that the board works. So the wait for a report of the board ends.
        """
        if self.without_report_since is not None and self.without_report_since <= at:
            self.without_report_since = None

    def add_missed(self, at: float) -> None:
        """Adds a casting that got its verdict too late or not at all. This was noticed at the time `at`."""
        self._missed.append(at)

    def count_missed(self, since: float) -> int:
        """Returns how many castings got their verdict too late or not at all since the time `since`. Counts at most 1000."""
        return sum(at >= since for at in self._missed)


def compute_state(activity: LineActivity, condition: LineCondition, limits: PlantStateSettings, now: float) -> PlantState:
    """Returns the state of a line at the time `now`. The times in `activity` must come from the same clock as `now`."""
    are_castings_coming = _is_recent(activity.newest_casting, limits.no_castings_s, now)
    are_pictures_coming = _is_recent(activity.newest_picture, limits.no_castings_s, now)
    holds = {
        PlantState.DISCONNECTED: not condition.is_connected or _is_board_silent(activity, limits, now),
        PlantState.GATE_HELD: condition.is_gate_held,
        PlantState.PLANNED_STOP: condition.is_stop_planned,
        PlantState.RUNNING_BLIND: are_pictures_coming and _has_lasted(activity.without_verdict_since, limits.blind_s, now),
        PlantState.CAMERA_SILENT: are_castings_coming and _has_lasted(activity.without_picture_since, limits.camera_silent_s, now),
        PlantState.LATE: activity.count_missed(now - limits.late_window_s) >= limits.late_castings,
        PlantState.NO_CASTINGS: not (are_castings_coming or are_pictures_coming),
        PlantState.RUNNING: True,
    }
    return next(state for state in PlantState if holds[state])


def _is_board_silent(activity: LineActivity, limits: PlantStateSettings, now: float) -> bool:
    """Returns whether verdicts have come for some time, but no report of the board. Returns False for a line without a gate."""
    if activity.travel_s is None or not _is_recent(activity.newest_verdict, limits.no_castings_s, now):
        return False
    return _has_lasted(activity.without_report_since, limits.board_silent_s + activity.travel_s, now)


def _is_recent(at: float | None, within_s: float, now: float) -> bool:
    return at is not None and now - at <= within_s


def _has_lasted(since: float | None, limit_s: float, now: float) -> bool:
    return since is not None and now - since >= limit_s
