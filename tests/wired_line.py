"""A simulated line behind a real pseudo-terminal, in a thread. Its wire can be bad or pulled, and its board can be reset."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agents.gate.lane import FaultChanged, GateEvent, PartCounted, PartSorted, RunBegan
from firmware.board.board import Board
from firmware.board.line import PseudoTerminal, SimulatedLine
from firmware.board.memory import BoardMemory
from firmware.board.plant import Belt, CastingExit, CastingFeed, Plant
from firmware.lane_settings import LaneSettings

# A part needs 0.6 s from the camera to the gate.
SETTINGS = LaneSettings({"step_um": 1000, "eye_gap_mm": 600, "window_mm": 20, "spacing_mm": 70, "dwell_mm": 62, "servo_ms": 40})
BELT = Belt(speed_mm_s=1000, eye_gap_mm=600, blade_mm=62, servo_s=0.04)


class WiredLine:
    """A line whose castings come at `rate_per_s`. `error_rate` is the share of bytes with a flipped bit, in both directions.

    The board keeps running while the cable is pulled.
    """

    def __init__(self, port: Path, rate_per_s: float = 6, parts: int | None = None, clock_ms: int = 0) -> None:
        self.port = port
        self.error_rate = 0.0
        # Frames of host and board that contain this word get lost on the wire.
        self.lost_word: bytes | None = None
        # Pause between two exchanges of bytes with the host.
        self.pause_s = 0.002
        # How often the servo left its rest position.
        self.swings = 0
        self.memory = BoardMemory()
        self._random = random.Random(7)
        self._feed = CastingFeed(rate_per_s=rate_per_s, parts=parts)
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._terminal: PseudoTerminal | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.reset()

    def reset(self, cause: str = "power") -> None:
        """Starts the board anew, with an empty belt."""
        with self._lock:
            self.reset_s = time.monotonic()
            self.plant = Plant(BELT, self._feed)
            self.line = SimulatedLine(Board(self.memory, cause, self._clock_ms), self.plant, self._count_swing)

    def exchange(self, parts: int) -> None:
        """Replaces the board by one that is fresh from the factory. After that, `parts` castings come."""
        self.memory = BoardMemory()
        self._feed = replace(self._feed, parts=parts)
        self._clock_ms = 0
        self.reset()

    def turn_bypass_key(self, is_on: bool) -> None:
        """Turns the bypass key of lane 1."""
        with self._lock:
            self.line.board.lanes[0].change_bypass(is_on, self.line.now_us)

    def plug(self) -> None:
        """Makes the port appear."""
        with self._lock:
            self._terminal = PseudoTerminal(self.port).__enter__()

    def pull(self) -> None:
        """Makes the port disappear."""
        with self._lock:
            terminal, self._terminal = self._terminal, None
            if terminal is not None:
                terminal.__exit__(None, None, None)

    @property
    def exits(self) -> list[CastingExit]:
        """The castings that have left the belt."""
        return list(self.plant.exits)

    def __enter__(self) -> Self:
        self.plug()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(5)
        self.pull()

    def _count_swing(self, event: str, facts: dict[str, Any]) -> None:
        self.swings += event == "servo" and facts["to_us"] == SETTINGS.number("out_us")

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                self.line.run_until(int((time.monotonic() - self.reset_s) * 1e6))
                self.plant.is_feeding = self.line.is_supervised
                sent = self._with_errors(self._without_lost_word(self.line.board.transmit()))
                if self._terminal is not None:
                    self._terminal.write(sent)
                    self.line.receive(self._with_errors(self._without_lost_word(self._terminal.read(0))))
            time.sleep(self.pause_s)

    def _without_lost_word(self, data: bytes) -> bytes:
        return (
            data if self.lost_word is None else b"".join(frame for frame in data.splitlines(keepends=True) if self.lost_word not in frame)
        )

    def _with_errors(self, data: bytes) -> bytes:
        if not self.error_rate:
            return data
        return bytes(byte ^ 1 << self._random.randrange(8) if self._random.random() < self.error_rate else byte for byte in data)


class EventRecorder:
    """Stores the events of a gate link by their kind, and passes each event on to `then`."""

    def __init__(self, then: Callable[[GateEvent], None] = lambda event: None) -> None:
        self.counted: list[PartCounted] = []
        self.sorted: list[PartSorted] = []
        self.faults: list[FaultChanged] = []
        self.runs: list[RunBegan] = []
        self.then = then

    def __call__(self, event: GateEvent) -> None:
        if isinstance(event, PartCounted):
            self.counted.append(event)
        elif isinstance(event, PartSorted):
            self.sorted.append(event)
        elif isinstance(event, FaultChanged):
            self.faults.append(event)
        else:
            self.runs.append(event)
        self.then(event)


def wait_until(condition: Callable[[], object], within_s: float = 15) -> None:
    """Waits until `condition()` is true, for at most `within_s` seconds."""
    give_up_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_s, f"the condition was not met within {within_s} s"
        time.sleep(0.01)
