"""The simulated board: a pure state machine that speaks the gate protocol. Bytes and time in, bytes and pulses out.

    reset --BOOT every second--> HELLO --> CONFIGURE, COMMIT --> counting, deciding, reporting
The Mega's firmware does the same in C++; one conformance suite runs against both.
"""

from __future__ import annotations

from firmware.board import faults
from firmware.board.commands import EVENTS, LANES, PARTS, Commands
from firmware.board.frames import EVENT, Deframer, Frame
from firmware.board.lane import Lane
from firmware.board.memory import Memory
from firmware.board.ring import EventRing
from firmware.board.tracker import Decision, Part
from firmware.board.words import VERSION

BOOT_US = 1_000_000
BEAT_US = 1_000_000
ANNOUNCE_US = 300_000
_U32 = 2**32


class Board:
    """Times are microseconds since the reset, never falling. `clock_ms` sets where the clock on the wire begins: for tests of its wrap."""

    def __init__(self, memory: Memory, cause: str = "power", clock_ms: int = 0) -> None:
        self.memory = memory
        self.run = memory.boot()
        self.cause = cause
        self.greeted = False
        self.clock_ms = clock_ms
        self.events = EventRing(EVENTS)
        self.lanes = [Lane(number, memory.settings.get(number), PARTS, self) for number in range(1, LANES + 1)]
        self.deframer = Deframer(">")
        self.board_faults: list[int] = []
        self._commands = Commands(self)
        self._out = bytearray()
        self._seq = 0
        self._heard_us = 0
        self._booted_us: int | None = None
        self._beat_us = 0
        if cause in ("brown-out", "watchdog"):
            self.fault(0, faults.ABNORMAL_RESET, True, 1 if cause == "brown-out" else 2, 0)
            self.board_faults.append(faults.ABNORMAL_RESET)
        if memory.damaged:
            self.fault(0, faults.SETTINGS_LOST, True, 0, 0)
            self.board_faults.append(faults.SETTINGS_LOST)

    # The wire

    def receive(self, data: bytes, now_us: int) -> None:
        """Bytes from the host; answers are in `transmit` at once."""
        for frame in self.deframer.feed(data):
            self._heard_us = now_us
            answer = self._commands.answer(frame, now_us)
            self._out += Frame("<", frame.seq, *answer).encode()

    def transmit(self) -> bytes:
        """What the board has to say since the last call."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def tick(self, now_us: int) -> None:
        """Time passes: parts are decided, gates move, events go out."""
        for lane in self.lanes:
            lane.tick(now_us)
            if lane.committed and not lane.further and now_us - self._heard_us > lane.settings.number("host_timeout_ms") * 1000:
                lane.raise_fault(faults.HOST_SILENT, (now_us - self._heard_us) // 1000, now_us)
        if not self.greeted:
            if self._booted_us is None or now_us - self._booted_us >= BOOT_US:
                self._booted_us = now_us
                self._send("BOOT", VERSION, self.run, self.cause)
            return
        if now_us - self._beat_us >= BEAT_US:
            self._beat_us = now_us
            self._send("BEAT", *self.beat(now_us))
        self._announce(now_us)
        while (kept := self.events.due(now_us)) is not None:
            self._send(kept.name, kept.event, *kept.fields)

    def greet(self, now_us: int) -> None:
        """A host has said HELLO: it hears everything anew, and is no longer silent."""
        self.greeted = True
        self._beat_us = now_us
        self.events.send_again()
        for lane in self.lanes:
            lane.end(faults.HOST_SILENT, now_us)

    def acknowledge(self, event: int, now_us: int) -> None:
        self.events.acknowledge(event)
        if self.events.unreported and not self.events.full:
            lost, self.events.unreported = self.events.unreported, 0
            if faults.EVENTS_LOST not in self.board_faults:
                self.board_faults.append(faults.EVENTS_LOST)
            self.fault(0, faults.EVENTS_LOST, True, lost, now_us)

    # What STATUS and PING tell

    def wire_ms(self, at_us: int) -> int:
        """Board time as it is told: ms since the reset, 32 bits."""
        return (at_us // 1000 + self.clock_ms) % _U32

    def beat(self, now_us: int) -> tuple[int, str, str, int, int]:
        """board_ms, state, lamp, tracked, pending."""
        return self.wire_ms(now_us), self.state, self.lamp, sum(lane.tracked for lane in self.lanes), self.events.pending

    @property
    def state(self) -> str:
        """The worst of the committed lanes."""
        states = [lane.state for lane in self.lanes if lane.committed]
        return max(states, key=("waiting", "running", "safe", "stopped").index, default="waiting")

    @property
    def lamp(self) -> str:
        lamps = [lane.lamp for lane in self.lanes if lane.committed] or ["yellow"]
        if any(faults.EFFECTS[code] == "warning" for code in self.board_faults):
            lamps.append("yellow")
        return max(lamps, key=("green", "yellow", "red").index)

    # What lanes tell (the protocol `Speaker`)

    def part(self, lane: int, part: Part) -> None:
        if self.greeted:
            part.announced_us = part.edge.at_us
            self._send("PART", lane, self.run, part.number, self.wire_ms(part.edge.at_us))

    def gate(self, lane: int, part: int, decision: Decision, moved: bool, moves: int, at_us: int, travel_us: int | None) -> None:
        travel_ms = 0 if travel_us is None else min(65535, travel_us // 1000)
        number = self.wire_ms(at_us)
        further = (decision.gate,) if decision.gate else ()
        what = decision.action, decision.reason, int(moved), moves % 65536
        self.events.add("GATE", lane, self.run, part, *what, number, travel_ms, *further)

    def fault(self, lane: int, code: int, raised: bool, detail: int, at_us: int) -> None:
        self.events.add("FAULT", lane, code, int(raised), detail % _U32, self.wire_ms(at_us))

    def _announce(self, now_us: int) -> None:
        for lane in self.lanes:
            for part in lane.tracker.parts:
                due = part.announced_us is None or now_us - part.announced_us >= ANNOUNCE_US
                if due and not part.seen and part.decision is None:
                    part.announced_us = now_us
                    self._send("PART", lane.number, self.run, part.number, self.wire_ms(part.edge.at_us))

    def _send(self, name: str, *fields: object) -> None:
        self._out += Frame(EVENT, self._seq, name, tuple(str(field) for field in fields)).encode()
        self._seq = (self._seq + 1) % 256
