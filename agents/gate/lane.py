"""The host's side of one lane of a board. A lane is a belt with two photo-eyes and a gate. Each lane belongs to one line.

Times of the board's clock are converted to times of the host's clock.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from agents.gate.requests import BoardRequest, BoardResponse, RequestWindow
from firmware.fault_table import code_of
from firmware.lane_settings import LaneSettings
from firmware.protocol import HELLO_FIELDS, Fields, Frame, read_event
from streams import metrics

log = logging.getLogger(__name__)


class GateState(StrEnum):
    """The states of a line's gate. The metric `castline_gate_state` has the same values in its label `state`."""

    # The port is closed, or the board does not answer.
    AWAY = "away"
    # The port is open, and the host greets the board (HELLO) and sends the settings (CONFIGURE).
    GREETING = "greeting"
    # The board refuses the settings. A person must correct them.
    REFUSED = "refused"
    RUNNING = "running"
    # A fault is active. The gate diverts all parts, lets all pass, or stops the belt, as the line's setting `safe` says.
    SAFE = "safe"
    # The board has stopped the belt.
    STOPPED = "stopped"


CONNECTED_STATES = (GateState.RUNNING, GateState.SAFE, GateState.STOPPED)
# If the report of a part has not come within this many seconds, the board has lost the report. The board repeats its oldest reports every
# second. So even if the serial connection damages a third of all frames, a report comes within this time.
REPORTED_WITHIN_S = 10.0
# If the connection to a board is lost, the board usually answers again within this time. The host needs up to 5 s to open the port again,
# 2.5 s to listen, and 8 s to greet the board.
_MAX_ABSENCE_S = 20.0
_STATE_OF_WORD = {"running": GateState.RUNNING, "safe": GateState.SAFE, "stopped": GateState.STOPPED}


@dataclass(frozen=True)
class PartCounted:
    """Event: photo-eye 1 counted a part. `age_s` is the time from the count to the arrival of the event at the host.

    `counted_s` is the time of the count on the host's monotonic clock. Corrections of the wall clock do not change this time.
    """

    run: int
    part: int
    counted_at: datetime
    age_s: float
    counted_s: float | None = None


@dataclass(frozen=True)
class PartSorted:
    """Event: a gate has diverted a part, has let it pass, or has stopped the belt.

    - `part`: the number of the part, or 0 if photo-eye 1 has not counted the part.
    - `action`, `reason`: words of the protocol.
    - `gate`: the lane number of the additional gate that diverted the part, or 0 if no additional gate did.
    - `counted_s`: the time of the count on the host's monotonic clock, or None if it is unknown.
    - `is_confirmed`: whether the eye in the reject chute has seen the diverted part, or None if the gate has no such eye.
    """

    event: int
    run: int
    part: int
    action: str
    reason: str
    moved: bool
    moves: int
    counted_at: datetime | None
    at_gate_at: datetime
    gate: int = 0
    counted_s: float | None = None
    is_confirmed: bool | None = None


# The value of the field `detail` in a FAULT event that reports the end of a fault. The value means that a person ended the fault with a
# button of the lane.
_ENDED_BY_BUTTON = 1


@dataclass(frozen=True)
class FaultChanged:
    """Event: a fault began (`raised` is True) or ended. The sorter acknowledges the event after recording it."""

    event: int
    run: int
    code: int
    raised: bool
    detail: int
    at: datetime

    @property
    def is_ended_by_button(self) -> bool:
        """True if a person ended the fault by pressing a button at the lane."""
        return not self.raised and self.detail == _ENDED_BY_BUTTON


@dataclass(frozen=True)
class RunBegan:
    """Event: the board reports a new run number, because it was reset or replaced. All earlier verdicts on the board are lost."""

    run: int
    cause: str


GateEvent = PartCounted | PartSorted | FaultChanged | RunBegan

_CLOCK_WRAP_MS = 2**32
_MAX_CLOCK_SAMPLES = 16
# The speed of the board's clock is computed from two clock samples. At least this much time must lie between the two samples, because
# otherwise the result is too inexact.
_MIN_DRIFT_BASE_S = 20.0


@dataclass(frozen=True)
class ClockSample:
    """The times of one SYNC command, in seconds.

    The host sent the command at `sent_s` and received the answer at `received_s`. In between, the board's clock showed `board_s`.
    """

    sent_s: float
    received_s: float
    board_s: float

    @property
    def round_trip_s(self) -> float:
        """The time from sending the command to receiving its answer, in seconds."""
        return self.received_s - self.sent_s

    @property
    def middle_s(self) -> float:
        """Estimate of the host's time at which the board's clock showed `board_s`, in seconds.

        It is the time halfway between sending and receiving, so its error is at most half the round trip.
        """
        return (self.sent_s + self.received_s) / 2


def _difference_ms(board_ms: int, other_ms: int) -> int:
    """Returns the milliseconds from `other_ms` to `board_ms`. The result is negative if `board_ms` is the earlier time.

    Both are times of the board's clock, which starts again from 0 after 49.7 days. The result is correct even if this happened between
    them.
    """
    return (board_ms - other_ms + _CLOCK_WRAP_MS // 2) % _CLOCK_WRAP_MS - _CLOCK_WRAP_MS // 2


class BoardClock:
    """Converts a board's time to the host's monotonic time.

    The newest samples give the offset between the clocks, and their drift (the difference in speed).
    """

    def __init__(self) -> None:
        self._samples: deque[ClockSample] = deque(maxlen=_MAX_CLOCK_SAMPLES)

    @property
    def is_set(self) -> bool:
        """Whether the clock has a sample, so that it can convert times."""
        return bool(self._samples)

    @property
    def error_s(self) -> float:
        """The largest possible error of the offset between the clocks, in seconds. It is half the shortest round trip."""
        return min((sample.round_trip_s for sample in self._samples), default=0.0) / 2

    def reset(self) -> None:
        """Deletes all clock samples. Call this method after a reset of the board, because the board's clock then starts from 0 again."""
        self._samples.clear()

    def add_sample(self, sent_s: float, received_s: float, board_ms: int, board_us: int) -> None:
        """Adds a clock sample from the answer to a SYNC command.

        The board's time in the answer is `board_ms` milliseconds plus `board_us` microseconds.
        """
        ms = board_ms if not self._samples else self._unwrap(board_ms, received_s)
        self._samples.append(ClockSample(sent_s, received_s, ms / 1000 + board_us / 1e6))

    def shows_restart(self, board_ms: int, now_s: float) -> bool:
        """Returns whether the board was reset after the last clock sample.

        The method compares how far both clocks have advanced since the last sample. If the board's clock has advanced by less than half as
        much as the host's clock, the board was reset.

        `board_ms` is the board's time at `now_s`, a time of the host's monotonic clock.
        """
        if not self._samples:
            return False
        last = self._samples[-1]
        return _difference_ms(board_ms, round(last.board_s * 1000)) < (now_s - last.middle_s) * 1000 / 2

    def host_s(self, board_ms: int, near_s: float) -> float:
        """Returns the host's monotonic time at which the board's clock showed `board_ms`.

        The board's clock starts again from 0 after 49.7 days, so it shows the same value several times. The method returns the time nearest
        to `near_s`.

        Raises ValueError if no sample was added.
        """
        if not self._samples:
            raise ValueError("The board's time cannot be converted, because no answer to SYNC was added yet. Call add_sample first.")
        board_s = self._unwrap(board_ms, near_s) / 1000
        best = min(self._samples, key=lambda sample: sample.round_trip_s)
        return best.middle_s + (board_s - best.board_s) * self._host_seconds_per_board_second()

    def _unwrap(self, board_ms: int, near_s: float) -> int:
        """Returns the time in milliseconds that the board's clock would show if it did not start again from 0 after 49.7 days.

        The board's clock shows the value `board_ms` again every 49.7 days. The method chooses the moment that is nearest to `near_s`, a
        time of the host's monotonic clock in seconds.
        """
        last = self._samples[-1]
        near_ms = round((last.board_s + near_s - last.middle_s) * 1000)
        return near_ms + _difference_ms(board_ms, near_ms)

    def _host_seconds_per_board_second(self) -> float:
        half = len(self._samples) // 2
        if half == 0:
            return 1.0
        samples = list(self._samples)
        early = min(samples[:half], key=lambda sample: sample.round_trip_s)
        late = min(samples[half:], key=lambda sample: sample.round_trip_s)
        if late.middle_s - early.middle_s < _MIN_DRIFT_BASE_S:
            return 1.0
        return (late.middle_s - early.middle_s) / (late.board_s - early.board_s)


# The board repeats a PART event until the host confirms it. A lane remembers its newest parts, to recognise repetitions.
_MAX_ANNOUNCED_PARTS = 256
# The largest value of the protocol's field travel_ms. It means "this long or longer".
_MAX_TRAVEL_MS = 65535


class GateLane:
    """A lane of a board, through which the sorter of a line sends verdicts and receives events.

    - `settings`: the settings of the lane, or None if the host sends no settings to the board.
    - `grades`: the settings of the additional gates at the same belt. The key is the number of the lane that moves the gate.
    - `on_event`: called once for each event, in the link's thread.
    """

    def __init__(
        self,
        line: str,
        number: int,
        settings: LaneSettings | None,
        grades: Mapping[int, LaneSettings],
        clock: BoardClock,
        requests: RequestWindow,
        on_event: Callable[[GateEvent], None],
    ) -> None:
        self.line = line
        self.number = number
        self.state = GateState.AWAY
        # The run number of the board, or 0 before its first answer.
        self.run = 0
        self.settings_by_lane = {} if settings is None else {number: settings, **grades}
        self.lane_numbers = {number, *grades}
        self.has_grades = bool(grades)
        # A function that chooses the run number of the board. Its arguments are the board's present run number, and the number of parts
        # that the lane has counted in this run. The function returns the present run number, unless new parts could then get the same
        # part ids as old parts.
        self.choose_run: Callable[[int, int], int] = lambda run, counted: run
        # A function that the link's thread calls when the board has accepted the settings of the lane and of its additional gates.
        self.on_accepted: Callable[[Mapping[int, LaneSettings]], None] = lambda settings_by_lane: None
        self.is_configured = False
        # True while the sorter sends no verdicts, because a person has paused the line.
        self.is_paused = False
        # A sentence that says why the board is not connected or accepts no settings. Empty if there is no such problem.
        self.problem = ""
        # The code of the board's oldest fault, or 0 if there is none. The code comes from the last answer to STATUS. The fault may be older
        # than the sorter process.
        self.oldest_fault = 0
        self.next_configuring_s = 0.0
        # The monotonic time at which the connection to the board was last lost or restored.
        self._connection_changed_s = time.monotonic()
        # For each lane, the run in which the board last accepted the settings. Each reset of the board begins a new run. After a reset,
        # the settings must be sent again.
        self.committed_run: dict[int, int] = {}
        # The board's run number when the board last accepted all settings of this lane. It is 0 at first and after a reset.
        self.accepted_run = 0
        self._clock = clock
        self._requests = requests
        self._on_event = on_event
        self._is_clock_set = False
        self._early_frames: list[Frame] = []
        self._unacknowledged: set[tuple[int, int]] = set()
        self._announced_parts: deque[tuple[int, int]] = deque(maxlen=_MAX_ANNOUNCED_PARTS)

    def send_verdict(
        self, run: int, part: int, verdict: str, deadline_s: float | None = None, gate: int | None = None
    ) -> Future[BoardResponse]:
        """Sends the verdict `keep` or `divert` for a part to the board.

        - `deadline_s`: after this time of the monotonic clock, the verdict is not sent.
        - `gate`: the lane number of an additional gate if this gate must divert the part. None means the belt's own gate.

        The future fails with GateError, for example if the verdict is late.
        """
        gate_lane = (gate or self.number) if verdict == "divert" else 0
        fields = tuple(str(field) for field in (self.number, run, part, verdict, gate_lane))
        request = BoardRequest("VERDICT", fields, deadline_s, run, self.number)
        self._requests.submit(request)
        return request.response

    def change_settings(self, settings_by_lane: Mapping[int, LaneSettings]) -> None:
        """Gives the lane new settings, which the link sends to the board as soon as no part is on the belt.

        `is_configured` is False until the board uses the settings. Any thread can call this method.
        """
        self.settings_by_lane = dict(settings_by_lane)
        # The empty `committed_run` makes the link send all settings again. If an earlier attempt failed halfway, nobody knows which
        # settings the board has.
        self.committed_run = {}
        self.next_configuring_s = 0.0
        self.is_configured = False

    def acknowledge_event(self, event: int, run: int) -> None:
        """Tells the board that an event is recorded, so that the board deletes the event. Does nothing for an event of an earlier run."""
        self._requests.submit(BoardRequest("ACK", (str(event),), run=run, lane=self.number))

    def send_command(self, name: str, *fields: object, deadline_s: float | None = None) -> Future[BoardResponse]:
        """Sends a command of the protocol to the board. The returned future gets the board's answer or fails with GateError.

        If a person gives the command, pass `deadline_s` (monotonic clock). The command fails if it was not sent by this time. It also
        fails if the board is reset before the command was sent.
        """
        is_asked = deadline_s is not None
        texts = tuple(str(field) for field in fields)
        # A request with a `lane` waits until the lane is configured. A person's command must not wait. So the request for such a command
        # has no `lane`.
        run, lane = (self.run or None, None) if is_asked else (None, self.number)
        request = BoardRequest(name, texts, deadline_s, run, lane)
        self._requests.submit(request)
        return request.response

    @property
    def is_connected(self) -> bool:
        """True if the board answers."""
        return self.state in CONNECTED_STATES

    @property
    def reports_until_s(self) -> float:
        """The monotonic time, in seconds, until which late reports of the board can arrive.

        When a lost connection is restored, the board reports which castings it has sorted in the meantime. These reports are late.
        """
        return self._connection_changed_s + (REPORTED_WITHIN_S if self.is_connected else _MAX_ABSENCE_S)

    # The thread of the gate link calls the methods below.

    def set_state(self, state: GateState) -> None:
        """Sets the state of the gate, logs a change, and updates the metric `castline_gate_state`."""
        if (state in CONNECTED_STATES) != self.is_connected:
            self._connection_changed_s = time.monotonic()
        if state is not self.state:
            log.info("%s: the gate is now %s", self.line, state)
        self.state = state
        for each in GateState:
            metrics.gate_state.labels(self.line, each.value).set(each is state)

    def set_state_from_board(self, state_word: str, oldest_fault: int) -> None:
        """Sets the state of the gate to the state that the board reported with the word `state_word`, such as `running`.

        `oldest_fault` is the code of the oldest fault in the same answer of the board, or 0.
        """
        self.oldest_fault = oldest_fault
        self.set_state(_STATE_OF_WORD.get(state_word, GateState.GREETING))

    def begin_greeting(self) -> None:
        """Prepares the lane for a new greeting of the board, because the board was perhaps reset.

        During the greeting, the host does not know the board's time yet. So the lane keeps all events until `read_early_events` is called.
        """
        self.set_state(GateState.GREETING)
        self.is_configured = False
        self._is_clock_set = False
        self._early_frames.clear()

    def begin_run(self, run: int, cause: str, has_restarted: bool = False) -> None:
        """Stores the run number from the board's answer to HELLO.

        If the number is new, the lane forgets the events and settings of the earlier run, and passes RunBegan to `on_event`.

        A board that was reset or exchanged (`has_restarted` is True) can have the old run number. The lane then also forgets the earlier
        events and settings, and passes RunBegan.
        """
        self.problem = ""
        if run == self.run and not has_restarted:
            return
        self.run = run
        # The board has lost its settings, so all settings must be sent before COMMIT. Otherwise COMMIT would make the board use its default
        # settings.
        self.committed_run, self.accepted_run = {}, 0
        self._unacknowledged.clear()
        self._announced_parts.clear()
        self._on_event(RunBegan(run, cause))

    def read_early_events(self, now_s: float, now: datetime) -> list[BoardRequest]:
        """Passes to `on_event` the events that had to wait, because they arrived before the host knew the board's clock.

        Returns the commands with which the host answers these events.
        """
        self._is_clock_set = True
        frames, self._early_frames = self._early_frames, []
        return [request for frame in frames for request in self.read_event(frame, now_s, now)]

    def forget_event(self, event: int, run: int | None) -> None:
        """Forgets the number of an event. If an event with this number arrives later, the lane treats it as a new event."""
        self._unacknowledged.discard((run or self.run, event))

    def read_event(self, frame: Frame, now_s: float, now: datetime) -> list[BoardRequest]:
        """Passes a PART, GATE or FAULT event of this lane to `on_event`. Returns the commands with which the host answers, such as SEEN.

        `now_s` and `now` are the time of the event's arrival: `now_s` on the monotonic clock, `now` in UTC.
        """
        if not self._is_clock_set:
            self._early_frames.append(frame)
            return []
        try:
            fields = read_event(frame.name, frame.fields)
        except ValueError as error:
            log.warning("%s: the event %s is ignored, because it does not follow the protocol: %s", self.line, frame.body, error)
            return []
        if fields.number("lane") not in (0, self.number):
            return []
        at_s = self._clock.host_s(fields.number("at_ms"), now_s)
        at = now + timedelta(seconds=at_s - now_s)
        if frame.name == "PART":
            return self._read_part(fields, at, at_s, now_s)
        if frame.name == "GATE":
            return self._read_gate(fields, at, at_s)
        return self._read_fault(fields, at)

    def _read_part(self, fields: Fields, at: datetime, at_s: float, now_s: float) -> list[BoardRequest]:
        run, part = fields.number("run"), fields.number("part")
        if run == self.run and (run, part) not in self._announced_parts:
            self._announced_parts.append((run, part))
            self._on_event(PartCounted(run, part, at, now_s - at_s, at_s))
        return [BoardRequest("SEEN", (str(self.number), str(run), str(part)), run=run, lane=self.number)]

    def _read_gate(self, fields: Fields, at: datetime, at_s: float) -> list[BoardRequest]:
        run, travel_ms = fields.number("run"), fields.number("travel_ms")
        is_count_known = 0 < travel_ms < _MAX_TRAVEL_MS
        if run == self.run and self._is_new(fields.number("event")):
            sorted_part = PartSorted(
                event=fields.number("event"),
                run=run,
                part=fields.number("part"),
                action=fields.word("action"),
                reason=fields.word("reason"),
                moved=bool(fields.number("moved")),
                moves=fields.number("moves"),
                counted_at=at - timedelta(milliseconds=travel_ms) if is_count_known else None,
                counted_s=at_s - travel_ms / 1000 if is_count_known else None,
                at_gate_at=at,
                gate=fields.number("gate") if "gate" in fields else 0,
                is_confirmed=bool(fields.number("confirmed")) if "confirmed" in fields else None,
            )
            self._on_event(sorted_part)
        return []

    def _read_fault(self, fields: Fields, at: datetime) -> list[BoardRequest]:
        event, code, raised = fields.number("event"), fields.number("code"), bool(fields.number("raised"))
        if not self._is_new(event):
            return []
        self._on_event(FaultChanged(event, self.run, code, raised, fields.number("detail"), at))
        # The fault "host-silent" ends only when the host sends HELLO again.
        return [BoardRequest("HELLO", tuple(str(field) for field in HELLO_FIELDS))] if raised and code == code_of("host-silent") else []

    def _is_new(self, event: int) -> bool:
        """Returns whether the event arrives for the first time. The board repeats an event until it is acknowledged."""
        if (self.run, event) in self._unacknowledged:
            return False
        self._unacknowledged.add((self.run, event))
        return True
