"""One conversation with a board over its open port, from the greeting until the port fails or the board is reset.

    greeting --HELLO, SYNC--> each lane: CONFIGURE, COMMIT --> going on: orders, heartbeat, events
A lane that the board refuses, or whose belt is too full to be configured anew, is tried again later; the others are served meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from agents.gate.clock import BoardClock
from agents.gate.events import GateState
from agents.gate.lane import GateLane
from agents.gate.port import Bell, GatePort
from agents.gate.window import Order, Window, gate_error
from firmware.board.frames import EVENT, Frame
from firmware.board.words import EVENTS, VERSION, Fields
from firmware.fault_table import code_of
from streams import metrics
from streams.errors import GateError

log = logging.getLogger(__name__)

GREETING_S = 8.0  # a Mega is deaf for up to 3 s after the reset that opening causes
HELLO_EVERY_S = 1.0
SILENCE_S = 3.0
PING_S = 0.4
SYNC_S = 10.0
FIRST_SYNCS = 8
REFUSED_S = 30.0
BUSY_S = 1.0
_U32 = 2**32
_STRANGERS = tuple((str(code_of(name)),) for name in ("not-greeted", "not-committed"))


class BoardReset(Exception):
    """The board says BOOT in the middle of a session."""


class Session:
    """Runs in the link's thread. `orders` outlive it; `collect` brings new ones into them."""

    def __init__(
        self,
        port: GatePort,
        bell: Bell,
        lanes: Sequence[GateLane],
        orders: Window,
        clock: BoardClock,
        collect: Callable[[], None],
        stopping: threading.Event,
    ) -> None:
        self.run = 0
        self.greeted = False
        self._port = port
        self._bell = bell
        self._lanes = lanes
        self._orders = orders
        self._window = orders  # what is spoken now: the orders, or a greeting's own commands
        self._clock = clock
        self._collect = collect
        self._stopping = stopping
        self._grades = False
        self._heard_s = self._spoke_s = self._next_sync_s = 0.0

    def begin(self, most_unanswered: int) -> None:
        """Greets and configures, with a window apart: orders wait until the board is ready for them.

        Raises GateError: when the board does not answer, or refuses all lanes.
        """
        for lane in self._lanes:
            lane.set(GateState.GREETING)
            lane.configured = False
            lane.reports.begin_greeting()
        self.greeted = False
        self._window = Window()
        try:
            answer = self._greet()
            self.greeted = True
            self._begin_run(answer)
            for _ in range(FIRST_SYNCS):
                self._sync_now()
            self._begin_times()
            refusals = [refusal for lane in self._lanes if (refusal := self._configure(lane)) is not None]
            if len(refusals) == len(self._lanes):
                raise refusals[0]
        finally:
            self._window = self._orders
        self._orders.size = min(most_unanswered, answer.number("window"))
        self._orders.take_of_other_runs(self.run)

    def go_on(self) -> None:
        """The heartbeat where it is due, a lane that waits to be configured, and one turn. Raises GateError: when the board is silent."""
        now = time.monotonic()
        if now - self._heard_s > SILENCE_S:
            raise gate_error("link-away", f"silent for {SILENCE_S:.0f} s")
        if now - self._spoke_s > PING_S and not len(self._window):
            self._window.add(Order("PING", (str(self._now_ms()),)))
        if now >= self._next_sync_s and not len(self._window):
            self._sync_later()
        for lane in self._lanes:
            if not lane.configured and now >= lane.next_try_s:
                self._configure(lane)
        self._turn(0.1)

    # The greeting

    def _greet(self) -> Fields:
        self._heard_s = time.monotonic()
        until = self._heard_s + GREETING_S
        while time.monotonic() < until and not self._stopping.is_set():
            if (answer := self._try("HELLO", VERSION, within_s=HELLO_EVERY_S)) is not None:
                return answer
        raise gate_error("stopping" if self._stopping.is_set() else "no-answer", "HELLO")

    def _begin_run(self, answer: Fields) -> None:
        most = max(number for lane in self._lanes for number in lane.all_lanes)
        if answer.number("lanes") < most:
            raise gate_error("unknown-lane", f"lane {most} of a board with {answer.number('lanes')}")
        self.run, cause = answer.number("run"), answer.word("cause")
        self._grades = bool(answer.number("grades"))
        log.info("%s: the board answers, run %d (%s)", ", ".join(lane.line for lane in self._lanes), self.run, cause)
        if any(lane.run != self.run for lane in self._lanes):
            self._clock.forget()
        for lane in self._lanes:
            lane.reports.begin_run(self.run, cause)

    def _begin_times(self) -> None:
        for lane in self._lanes:
            for order in lane.reports.begin_times(time.monotonic(), datetime.now(UTC)):
                self._orders.add(order)

    def _configure(self, lane: GateLane) -> GateError | None:
        """The refusal when there is one; the lane's orders are held back then."""
        try:
            lane.configure(self._call, self._grades)
        except GateError as error:
            busy = error.code == code_of("busy")
            if error.retriable and not busy:
                raise
            self._orders.held.add(lane.number)
            lane.next_try_s = time.monotonic() + (BUSY_S if busy else REFUSED_S)
            if busy:
                return None
            log.error("%s: %s; next try in %.0f s", lane.line, error, REFUSED_S)
            lane.set(GateState.REFUSED)
            return error
        self._orders.held.discard(lane.number)
        return None

    # Asking

    def _try(self, name: str, *fields: object, within_s: float) -> Fields | None:
        """Asks once and waits; None when there was no answer. Raises GateError: when the answer is ERR."""
        answers: list[Fields | GateError] = []
        order = Order(name, tuple(str(field) for field in fields), answers.append, answers.append)
        window, until = self._window, time.monotonic() + within_s
        window.add(order)
        while not answers and time.monotonic() < until and not self._stopping.is_set():
            self._turn(0.05)
        if not answers:
            window.take_all("no-answer")
            return None
        if isinstance(answers[0], GateError):
            raise answers[0]
        return answers[0]

    def _call(self, name: str, *fields: object) -> Fields:
        """Asks until it is answered. Raises GateError: when the answer is ERR, or there is none after all tries."""
        answers: list[Fields | GateError] = []
        self._window.add(Order(name, tuple(str(field) for field in fields), answers.append, answers.append))
        while not answers:
            if self._stopping.is_set():
                raise gate_error("stopping", name)
            self._turn(0.05)
        if isinstance(answers[0], GateError):
            raise answers[0]
        return answers[0]

    def _sync_now(self) -> None:
        sent_s = time.monotonic()
        if (answer := self._try("SYNC", within_s=HELLO_EVERY_S)) is not None:
            self._clock.add(sent_s, self._heard_s, answer.number("board_ms"), answer.number("board_us"))
        self._next_sync_s = time.monotonic() + SYNC_S

    def _sync_later(self) -> None:
        def done(answer: Fields) -> None:
            # After a resend nobody knows which of the two was answered.
            if order.tries == 1:
                self._clock.add(order.sent_s, self._heard_s, answer.number("board_ms"), answer.number("board_us"))

        order = Order("SYNC", (), done)
        self._next_sync_s = time.monotonic() + SYNC_S
        self._window.add(order)

    # Sending and hearing

    def _turn(self, longest_s: float) -> None:
        """Sends what is due, waits for frames or new orders, and hears what came."""
        now = time.monotonic()
        self._collect()
        self._orders.take_overdue(now, [lane.number for lane in self._lanes if lane.state is GateState.STOPPED])
        due = self._window.due(now)
        self._port.say(due)
        if due:
            self._spoke_s = now
        for lane_number, count in self._window.take_resends().items():
            metrics.gate_resends.labels(self._line(lane_number)).inc(count)
        due_s = self._window.next_due_s()
        wait_s = longest_s if due_s is None else min(longest_s, max(0.0, due_s - time.monotonic()))
        for frame in self._port.wait(self._bell, wait_s):
            self._hear(frame)

    def _hear(self, frame: Frame) -> None:
        self._heard_s = time.monotonic()
        if frame.start == EVENT:
            self._event(frame)
        elif self._window is self._orders and frame.name == "ERR" and frame.fields[:1] in _STRANGERS:
            raise BoardReset  # it was reset, and its BOOT was lost
        elif (order := self._window.answered(frame)) is not None and order.tries == 1:
            metrics.gate_round_trip_seconds.labels(self._line(order.lane)).observe(self._heard_s - order.sent_s)

    def _event(self, frame: Frame) -> None:
        if frame.name == "BOOT":
            if self.greeted:
                raise BoardReset
        elif frame.name == "BEAT":
            if len(frame.fields) > 1:
                self._beat(frame.fields[1])
        elif frame.name in EVENTS:  # else of a newer board
            wall = datetime.now(UTC)
            for lane in self._lanes:
                for order in lane.reports.hear(frame, self._heard_s, wall):
                    self._window.add(order)
            if self._is_nobodys(frame):
                self._window.add(Order("ACK", (frame.fields[0],)))

    def _is_nobodys(self, frame: Frame) -> bool:
        """An event of a lane that none of our lines has, from an earlier host: unacknowledged it would fill the board's ring."""
        ours = {"0", *(str(lane.number) for lane in self._lanes)}
        return frame.name in ("GATE", "FAULT") and len(frame.fields) > 1 and frame.fields[1] not in ours

    def _beat(self, worst: str) -> None:
        """A heartbeat tells the worst of all lanes. Where that is not `running`, or was not, each lane is asked for its own."""
        for lane in self._lanes:
            if not lane.configured or (worst == "running" and lane.state is GateState.RUNNING):
                continue
            if worst == "running":
                lane.follow(worst)
            else:
                self._window.add(_asks_state(lane))

    def _line(self, lane_number: int | None) -> str:
        """Whose metric a command to that lane counts in; what speaks of no lane counts for the first line."""
        return next((lane.line for lane in self._lanes if lane.number == lane_number), self._lanes[0].line)

    def _now_ms(self) -> int:
        return int(time.monotonic() * 1000) % _U32


def _asks_state(lane: GateLane) -> Order:
    def done(answer: Fields) -> None:
        lane.follow(answer.word("state"))

    return Order("STATUS", (str(lane.number), "line"), done, lane=lane.number)
