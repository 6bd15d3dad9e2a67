"""Turns the board's events into reports in the host's time, each handed on once however often the board repeats it. Pure."""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime, timedelta

from agents.gate.clock import BoardClock
from agents.gate.events import FaultChanged, Listener, PartCounted, PartSorted, RunBegan
from agents.gate.window import Order
from firmware.board.frames import Frame
from firmware.board.words import VERSION, Fields, read_event
from firmware.fault_table import code_of

log = logging.getLogger(__name__)

# Parts whose announcements are known to be repeats; more than a lane can track.
_REMEMBERED_PARTS = 256
_LONGEST_TRAVEL_MS = 65535  # on the wire: that or longer


class BoardReports:
    """Of one lane. `now_s` is monotonic, `wall` the same moment as the world's time."""

    def __init__(self, line: str, lane: int, clock: BoardClock, listener: Listener) -> None:
        self.run = 0
        self._line = line
        self._lane = lane
        self._clock = clock
        self._listener = listener
        self._timed = False
        self._early: list[Frame] = []
        self._in_hand: set[tuple[int, int]] = set()
        self._counted: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED_PARTS)

    def begin_greeting(self) -> None:
        """Until `begin_times`, events are kept: the board's time has no meaning yet."""
        self._timed = False
        self._early.clear()

    def begin_run(self, run: int, cause: str) -> None:
        """The board answers with this run; in a new one its parts and events began anew."""
        if run == self.run:
            return
        self.run = run
        self._in_hand.clear()
        self._listener(RunBegan(run, cause))

    def begin_times(self, now_s: float, wall: datetime) -> list[Order]:
        """The clock is known; what was kept is heard now, in its order."""
        self._timed = True
        early, self._early = self._early, []
        return [order for frame in early for order in self.hear(frame, now_s, wall)]

    def acknowledged(self, event: int, run: int) -> None:
        """The board has forgotten the event: its number may come again."""
        self._in_hand.discard((run, event))

    def hear(self, frame: Frame, now_s: float, wall: datetime) -> list[Order]:
        """One PART, GATE or FAULT; what is to be said to it at once."""
        if not self._timed:
            self._early.append(frame)
            return []
        try:
            fields = read_event(frame.name, frame.fields)
        except ValueError as error:
            log.warning("%s: event %s is not what the protocol says: %s", self._line, frame.body, error)
            return []
        if fields.number("lane") not in (0, self._lane):
            return []
        at_s = self._clock.host_s(fields.number("at_ms"), now_s)
        at = wall + timedelta(seconds=at_s - now_s)
        if frame.name == "PART":
            return self._part(fields, at, now_s - at_s)
        if frame.name == "GATE":
            self._gate(fields, at)
            return []
        return self._fault(fields, at)

    def _part(self, fields: Fields, at: datetime, age_s: float) -> list[Order]:
        run, part = fields.number("run"), fields.number("part")
        if run == self.run and (run, part) not in self._counted:
            self._counted.append((run, part))
            self._listener(PartCounted(run, part, at, age_s))
        return [Order("SEEN", (str(self._lane), str(run), str(part)), run=run, lane=self._lane)]

    def _gate(self, fields: Fields, at: datetime) -> None:
        run, travel_ms = fields.number("run"), fields.number("travel_ms")
        if run != self.run or not self._is_new(fields.number("event")):
            return
        counted_at = at - timedelta(milliseconds=travel_ms) if 0 < travel_ms < _LONGEST_TRAVEL_MS else None
        what = fields.word("action"), fields.word("reason"), bool(fields.number("moved")), fields.number("moves")
        further = fields.number("gate") if "gate" in fields else 0
        self._listener(PartSorted(fields.number("event"), run, fields.number("part"), *what, counted_at, at, further))

    def _fault(self, fields: Fields, at: datetime) -> list[Order]:
        event, code, raised = fields.number("event"), fields.number("code"), bool(fields.number("raised"))
        if not self._is_new(event):
            return []
        self._listener(FaultChanged(event, self.run, code, raised, fields.number("detail"), at))
        # Our silence was noticed while the link stood: greet again.
        return [Order("HELLO", (str(VERSION),))] if raised and code == code_of("host-silent") else []

    def _is_new(self, event: int) -> bool:
        """Whether the event is not in the listener's hand already."""
        if (self.run, event) in self._in_hand:
            return False
        self._in_hand.add((self.run, event))
        return True
