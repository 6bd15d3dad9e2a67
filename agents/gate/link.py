"""The serial link to one board, in a thread of its own, for the one to four lines that it serves. The protocol is firmware/PROTOCOL.md.

    away --port opens--> greeting --HELLO, SYNC, CONFIGURE, COMMIT--> running <--BEAT--> safe, stopped
      ^-- port fails, board silent for 3 s, five tries in vain --+         board reset --> greeting
A verdict told while the link is away waits for it, until its deadline. Nothing here blocks the caller.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from agents.gate.clock import BoardClock
from agents.gate.events import GateState, Listener
from agents.gate.lane import GateLane
from agents.gate.port import PORT_ERRORS, Bell, GatePort
from agents.gate.session import REFUSED_S, BoardReset, Session
from agents.gate.window import Order, Window
from firmware.board.lane_settings import LaneSettings
from firmware.board.words import Fields
from streams.errors import GateError

log = logging.getLogger(__name__)

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class LinkSettings:
    """One board's port. `window`: commands unanswered at a time, at most; the board may want fewer."""

    port: str
    baud: int = 115200
    window: int = 8


class GateLink:
    """Call `serve` for each line, then `start`; the lanes that `serve` gives take orders from any thread."""

    def __init__(self, link: LinkSettings) -> None:
        self.link = link
        self.lanes: list[GateLane] = []
        self._orders = Window()
        self._clock = BoardClock()
        self._asked: deque[Order] = deque()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._bell = Bell()
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._run, name=f"gate-{link.port.rsplit('/', 1)[-1]}", daemon=True)

    def serve(
        self,
        line: str,
        listener: Listener,
        settings: LaneSettings | None = None,
        lane: int = 1,
        grades: Mapping[int, LaneSettings] | None = None,
    ) -> GateLane:
        """The lane of the board that `line` is wired to; without `settings` it is left as it is. Not after `start`."""
        served = GateLane(line, lane, settings, grades or {}, self._clock, listener, self._ask)
        self.lanes.append(served)
        return served

    def start(self) -> None:
        """Opens the port and keeps it open; a second call does nothing."""
        if self._thread.ident is not None:
            return
        self._set(GateState.AWAY)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False when the thread has ended, which it does only after `stop` or by a fault of the program."""
        return self._thread.ident is None or self._thread.is_alive()

    def stop(self) -> None:
        """Closes the port; what waits for an answer fails with code 84 (`stopping`)."""
        self._stopping.set()
        self._bell.ring()
        if self._thread.ident is not None:
            self._thread.join(5)
        if not self._thread.is_alive():
            self._bell.close()

    def command(self, name: str, *fields: object) -> concurrent.futures.Future[Fields]:
        """Any other command of the protocol; for the command line."""
        return self.lanes[0].command(name, *fields)

    # Below, all but _ask runs in the link's thread.

    def _ask(self, order: Order) -> None:
        with self._lock:
            self._asked.append(order)
        self._bell.ring()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            pause_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            state = GateState.AWAY
            try:
                self._serve()
            except PORT_ERRORS as error:
                log.warning("board at %s is away: %s; next try in %.1f s", self.link.port, error, pause_s)
                failures += 1
            except GateError as error:
                log.log(logging.WARNING if error.retriable else logging.ERROR, "board at %s: %s", self.link.port, error)
                failures = 0 if self._session is not None and self._session.greeted else failures + 1
                if not error.retriable:
                    pause_s, state = REFUSED_S, GateState.REFUSED
            self._session = None
            self._set(state)
            self._orders.requeue()
            self._rest(pause_s)
        self._collect()
        self._orders.take_all("stopping")

    def _serve(self) -> None:
        port = GatePort(self.link.port, self.link.baud)
        try:
            self._session = Session(port, self._bell, self.lanes, self._orders, self._clock, self._collect, self._stopping)
            while not self._stopping.is_set():
                try:
                    self._session.begin(self.link.window)
                    while not self._stopping.is_set():
                        self._session.go_on()
                except BoardReset:
                    log.warning("the board at %s was reset", self.link.port)
                    self._orders.requeue()
        finally:
            port.close()

    def _set(self, state: GateState) -> None:
        for lane in self.lanes:
            lane.set(state)

    def _collect(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, deque()
        for order in asked:
            self._orders.add(order)
        if asked and self._session is not None and self._session.greeted:
            self._orders.take_of_other_runs(self._session.run)

    def _rest(self, seconds: float) -> None:
        """The pause between two tries; deadlines go on passing."""
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and (now := time.monotonic()) < until:
            self._collect()
            self._orders.take_overdue(now)
            self._stopping.wait(min(0.1, until - now))
