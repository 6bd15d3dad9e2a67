"""What the conformance suite drives: a board under test, its inputs, its outputs, and time that the test owns.

`Rig` is the interface; `PythonRig` is the simulated board without a terminal. A rig for another board (the Mega's firmware
in a simulator) gives the same methods, and the same tests run against it.
"""

from __future__ import annotations

from typing import Protocol

from firmware.board.board import Board
from firmware.board.frames import Deframer, Frame
from firmware.board.lane import Lane
from firmware.board.memory import Memory


class Rig(Protocol):
    """A board that has just been reset by power. Times are ms since the reset."""

    run: int

    def send(self, data: bytes) -> None:
        """Bytes from the host."""

    def take(self) -> list[Frame]:
        """Whole frames that the board has said since the last call."""

    def wait(self, ms: int) -> None:
        """Lets so much board time pass."""

    def now_ms(self) -> int:
        """Board time as the test counts it."""

    def eye(self, which: int, blocked: bool) -> None:
        """Level at photo-eye 1 or 2 of lane 1."""

    def steps(self, count: int) -> None:
        """Encoder edges, spread over the next wait or given at once."""

    def estop(self, is_open: bool) -> None:
        """Emergency-stop input."""

    def servo_power(self, present: bool, lane: int = 1) -> None:
        """Sense of the servo's supply."""

    def pulse_us(self, lane: int = 1) -> int:
        """Servo pulse sent now."""

    def relay_closed(self) -> bool:
        """Whether the belt may run."""

    def swings(self) -> int:
        """Changes of the pulse away from rest since the reset, counted by the rig itself."""

    def triggers(self) -> int:
        """Camera pulses since the reset."""

    def reset(self, cause: str) -> None:
        """Power, button, brown-out or watchdog; what EEPROM keeps is kept."""

    def close(self) -> None:
        """Ends the board."""


class PythonRig:
    """The simulated board, carried forward a millisecond at a time."""

    def __init__(self, memory: Memory | None = None, clock_ms: int = 0) -> None:
        self.memory = memory or Memory()
        self._clock_ms = clock_ms
        self.reset("power")

    def reset(self, cause: str) -> None:
        self.board = Board(self.memory, cause, self._clock_ms)
        self.run = self.board.run
        self._us = 0
        self._deframer = Deframer("<!")
        self._swings = self._triggers = 0
        self._pulse_us = self.lane.settings.number("rest_us")
        self._frames: list[Frame] = []

    @property
    def lane(self) -> Lane:
        return self.board.lanes[0]

    def send(self, data: bytes) -> None:
        self.board.receive(data, self._us)

    def take(self) -> list[Frame]:
        frames, self._frames = self._frames + self._deframer.feed(self.board.transmit()), []
        return frames

    def wait(self, ms: int) -> None:
        for _ in range(ms):
            self._us += 1000
            self.board.tick(self._us)
            # Counted here and not by the board: what the servo saw, millisecond by millisecond.
            before, self._pulse_us = self._pulse_us, self.pulse_us()
            rest = self.lane.settings.number("rest_us")
            self._swings += before == rest and self._pulse_us != rest
            while self.lane.trigger_pulses and self.lane.trigger_pulses[0] <= self._us:
                self.lane.trigger_pulses.pop(0)
                self._triggers += 1

    def now_ms(self) -> int:
        return self._us // 1000

    def eye(self, which: int, blocked: bool) -> None:
        self.lane.eye(which, blocked, self._us)

    def steps(self, count: int) -> None:
        self.lane.steps(count, self._us)

    def estop(self, is_open: bool) -> None:
        self.lane.estop_open = is_open

    def servo_power(self, present: bool, lane: int = 1) -> None:
        self.board.lanes[lane - 1].servo_power = present

    def pulse_us(self, lane: int = 1) -> int:
        return self.board.lanes[lane - 1].gate.pulse_us

    def relay_closed(self) -> bool:
        return self.lane.relay_closed(self._us)

    def swings(self) -> int:
        return self._swings

    def triggers(self) -> int:
        return self._triggers

    def close(self) -> None:
        """Nothing is left open."""
