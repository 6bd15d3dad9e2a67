"""The serial link to one board, in a thread of its own; the only user of pyserial. The protocol is firmware/PROTOCOL.md.

    away --port opens--> greeting --HELLO, SYNC, CONFIGURE, COMMIT--> running <--BEAT--> safe, stopped
      ^-- port fails, board silent for 3 s, five tries in vain --+         board reset --> greeting
A verdict told while the link is away waits for it, until its deadline. Nothing here blocks the caller. Longer than other modules:
one thread owns the port and all of the session's state; what needs neither is in gate_window, gate_reports, gate_clock, gate_commit.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import serial

from agents.gate_clock import BoardClock
from agents.gate_commit import commit
from agents.gate_events import GateState, Listener, Told
from agents.gate_reports import BoardReports
from agents.gate_window import Order, Window, gate_error
from firmware.board.codes import number
from firmware.board.frames import EVENT, Deframer, Frame
from firmware.board.lane_settings import LaneSettings
from firmware.board.words import EVENTS, VERSION, Fields
from streams import metrics
from streams.errors import GateError

log = logging.getLogger(__name__)

GREETING_S = 8.0  # a Mega is deaf for up to 3 s after the reset that opening causes
HELLO_EVERY_S = 1.0
SILENCE_S = 3.0
PING_S = 0.4
SYNC_S = 10.0
FIRST_SYNCS = 8
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
REFUSED_S = 30.0
_U32 = 2**32
_STRANGERS = tuple((str(number(name)),) for name in ("not-greeted", "not-committed"))


@dataclass(frozen=True)
class LinkSettings:
    """One board's port, lane and configuration; without `settings` the board is greeted and left as it is."""

    line: str
    port: str
    settings: LaneSettings | None
    baud: int = 115200
    lane: int = 1
    window: int = 8


class _BoardReset(Exception):
    """The board says BOOT in the middle of a session."""


class GateLink:
    """Call `start`, then `tell` and `acknowledge` from any thread; `listener` is called from the link's own."""

    def __init__(self, link: LinkSettings, listener: Listener) -> None:
        self.link = link
        self.state = GateState.AWAY
        self._orders = Window()
        self._window = self._orders  # what is spoken now: the orders, or a greeting's own commands
        self._clock = BoardClock()
        self._reports = BoardReports(link.line, link.lane, self._clock, listener)
        self._deframer = Deframer("<!")
        self._asked: deque[Order] = deque()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._port: serial.Serial | None = None
        self._greeted = False
        self._board_state = "waiting"
        self._heard_s = self._spoke_s = self._next_sync_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"gate-{link.line}", daemon=True)

    def start(self) -> None:
        """Opens the port and keeps it open; a second call does nothing."""
        if self._thread.ident is not None:
            return
        self._set(GateState.AWAY)
        self._thread.start()

    @property
    def run(self) -> int:
        """The board's present run, 0 before it has answered for the first time."""
        return self._reports.run

    @property
    def alive(self) -> bool:
        """False when the thread has ended, which it does only after `stop` or by a fault of the program."""
        return self._thread.ident is None or self._thread.is_alive()

    def stop(self) -> None:
        """Closes the port; what waits for an answer fails with code 84 (`stopping`)."""
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(5)
        if not self._thread.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)

    def tell(self, run: int, part: int, verdict: str, deadline: datetime | None = None) -> concurrent.futures.Future[Told]:
        """Tells the board `keep` or `divert` for a part; the future is answered, or fails with GateError.

        Codes: 20 late, 21 unknown run, 22 unknown part, 23 conflict, 82 the deadline passed before it could be sent.
        """
        future: concurrent.futures.Future[Told] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        gate = self.link.lane if verdict == "divert" else 0
        fields = tuple(str(field) for field in (self.link.lane, run, part, verdict, gate))

        def done(answer: Fields) -> None:
            future.set_result(Told(answer.word("told"), datetime.now(UTC), time.monotonic() - order.first_sent_s))

        order = Order("VERDICT", fields, done, future.set_exception, self._monotonic(deadline), run)
        self._ask(order)
        return future

    def acknowledge(self, event: int, run: int) -> None:
        """The event is recorded for good; the board may forget it. Of a run that is over, nothing is said."""

        self._ask(
            Order(
                "ACK",
                (str(event),),
                lambda answer: self._reports.acknowledged(event, run),
                lambda error: self._reports.acknowledged(event, run),
                run=run,
            )
        )

    def command(self, name: str, *fields: object) -> concurrent.futures.Future[Fields]:
        """Any other command of the protocol; for the command line."""
        future: concurrent.futures.Future[Fields] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        self._ask(Order(name, tuple(str(field) for field in fields), future.set_result, future.set_exception))
        return future

    # Below, all but _ask and _wake run in the link's thread.

    def _ask(self, order: Order) -> None:
        with self._lock:
            self._asked.append(order)
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            return  # it is awake already

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            pause_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            try:
                self._serve()
            except (serial.SerialException, OSError) as error:
                log.warning("%s: board at %s is away: %s; next try in %.1f s", self.link.line, self.link.port, error, pause_s)
                failures += 1
            except GateError as error:
                refused = not error.retriable
                log.log(logging.ERROR if refused else logging.WARNING, "%s: %s", self.link.line, error)
                failures = 0 if self._greeted else failures + 1
                if refused:
                    self._set(GateState.REFUSED)
                    pause_s = REFUSED_S
            if self.state is not GateState.REFUSED:
                self._set(GateState.AWAY)
            self._close()
            self._rest(pause_s)
        self._close()
        self._collect()
        self._orders.take_all("stopping")

    def _serve(self) -> None:
        # Exclusive: two sorters on one board would answer each other's questions.
        self._port = serial.Serial(self.link.port, self.link.baud, timeout=0, write_timeout=1, exclusive=True)
        self._port.reset_input_buffer()
        self._deframer = Deframer("<!")
        while not self._stopping.is_set():
            try:
                self._begin_session()
                while not self._stopping.is_set():
                    self._keep_going()
                    self._turn(0.1)
            except _BoardReset:
                log.warning("%s: the board was reset", self.link.line)
                self._orders.requeue()

    def _begin_session(self) -> None:
        """Greets and configures, with a window apart: orders wait until the board is ready for them."""
        self._set(GateState.GREETING)
        self._greeted = False
        self._reports.begin_greeting()
        self._window = Window()
        try:
            answer = self._greet()
            self._greeted = True
            self._begin_run(answer)
            for _ in range(FIRST_SYNCS):
                self._sync_now()
            for order in self._reports.begin_times(time.monotonic(), datetime.now(UTC)):
                self._orders.add(order)
            self._configure()
        finally:
            self._window = self._orders
        self._orders.size = min(self.link.window, answer.number("window"))
        self._orders.take_of_other_runs(self.run)

    def _greet(self) -> Fields:
        self._heard_s = time.monotonic()
        until = self._heard_s + GREETING_S
        while time.monotonic() < until and not self._stopping.is_set():
            if (answer := self._try("HELLO", VERSION, within_s=HELLO_EVERY_S)) is not None:
                return answer
        raise gate_error("stopping" if self._stopping.is_set() else "no-answer", f"HELLO at {self.link.port}")

    def _begin_run(self, answer: Fields) -> None:
        if answer.number("lanes") < self.link.lane:
            raise gate_error("unknown-lane", f"lane {self.link.lane} of a board with {answer.number('lanes')}")
        run, cause = answer.number("run"), answer.word("cause")
        log.info("%s: board at %s answers, run %d (%s)", self.link.line, self.link.port, run, cause)
        self._reports.begin_run(run, cause)

    def _configure(self) -> None:
        lane, settings = self.link.lane, self.link.settings
        if settings is not None:
            digest = commit(settings, lane, self._call, self._turn)
            if digest != settings.digest:
                log.warning("%s: the board's settings have digest %s, ours %s: it knows others", self.link.line, digest, settings.digest)
        beat = self._call("PING", self._now_ms())
        self._follow(beat.word("state"))

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

    def _keep_going(self) -> None:
        now = time.monotonic()
        if now - self._heard_s > SILENCE_S:
            raise gate_error("link-away", f"silent for {SILENCE_S:.0f} s")
        if now - self._spoke_s > PING_S and not len(self._window):
            self._window.add(Order("PING", (str(self._now_ms()),)))
        if now >= self._next_sync_s and not len(self._window):
            self._sync_later()

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

    def _turn(self, longest_s: float) -> None:
        """Sends what is due, waits for bytes or new orders, and hears what came."""
        port = self._port
        assert port is not None
        now = time.monotonic()
        self._collect()
        # While the belt is stopped, no part comes to the gate, and no deadline passes.
        if self._board_state != "stopped":
            self._orders.take_overdue(now)
        resends = self._window.resends
        for frame in self._window.due(now):
            port.write(frame.encode())
            self._spoke_s = now
        metrics.gate_resends.labels(self.link.line).inc(self._window.resends - resends)
        due_s = self._window.next_due_s()
        wait_s = longest_s if due_s is None else min(longest_s, max(0.0, due_s - time.monotonic()))
        watched: list[Any] = [port, self._wake_read]
        readable, _, _ = select.select(watched, [], [], wait_s)
        if self._wake_read in readable:
            os.read(self._wake_read, 4096)
        if port in readable:
            data = port.read(4096)
            if not data:
                raise serial.SerialException("the port reads as ended")
            for heard in self._deframer.feed(data):
                self._hear(heard)

    def _hear(self, frame: Frame) -> None:
        self._heard_s = time.monotonic()
        if frame.start == EVENT:
            self._event(frame)
        elif self._window is self._orders and frame.name == "ERR" and frame.fields[:1] in _STRANGERS:
            raise _BoardReset  # it was reset, and its BOOT was lost
        elif (order := self._window.answered(frame)) is not None and order.tries == 1:
            metrics.gate_round_trip_seconds.labels(self.link.line).observe(self._heard_s - order.sent_s)

    def _event(self, frame: Frame) -> None:
        if frame.name == "BOOT":
            if self._greeted:
                raise _BoardReset
        elif frame.name == "BEAT":
            # A word that is no state is a damaged frame whose checksum fits by chance, or a newer board's.
            if len(frame.fields) > 1:
                self._follow(frame.fields[1])
        elif frame.name in EVENTS:  # else of a newer board
            for order in self._reports.hear(frame, self._heard_s, datetime.now(UTC)):
                self._window.add(order)

    def _follow(self, board_state: str) -> None:
        self._board_state = board_state
        states = {"running": GateState.RUNNING, "safe": GateState.SAFE, "stopped": GateState.STOPPED}
        self._set(states.get(board_state, GateState.GREETING))

    def _set(self, state: GateState) -> None:
        if state is not self.state:
            log.info("%s: gate %s", self.link.line, state)
        self.state = state
        for each in GateState:
            metrics.gate_state.labels(self.link.line, each.value).set(each is state)

    def _collect(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, deque()
        for order in asked:
            self._orders.add(order)
        if asked and self._greeted:
            self._orders.take_of_other_runs(self.run)

    def _rest(self, seconds: float) -> None:
        """The pause between two tries; deadlines go on passing."""
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and (now := time.monotonic()) < until:
            self._collect()
            self._orders.take_overdue(now)
            self._stopping.wait(min(0.1, until - now))

    def _close(self) -> None:
        self._greeted = False
        self._orders.requeue()
        port, self._port = self._port, None
        if port is not None:
            port.close()

    def _monotonic(self, deadline: datetime | None) -> float | None:
        return None if deadline is None else time.monotonic() + deadline.timestamp() - time.time()

    def _wall(self, monotonic_s: float) -> datetime:
        return datetime.fromtimestamp(time.time() + monotonic_s - time.monotonic(), UTC)

    def _now_ms(self) -> int:
        return int(time.monotonic() * 1000) % _U32
