"""A simulated line behind a real pseudo-terminal, in a thread, with a wire that may be bad, be pulled, or lead to a reset board."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agents.gate.events import FaultChanged, GateEvent, PartCounted, PartSorted, RunBegan
from firmware.board.board import Board
from firmware.board.lane_settings import LaneSettings
from firmware.board.line import SimulatedLine
from firmware.board.memory import Memory
from firmware.board.plant import Belt, Fallen, Feed, Plant
from firmware.board.terminal import Terminal

# 0.6 s from camera to gate.
SETTINGS = LaneSettings({"step_um": 1000, "eye_gap_mm": 600, "window_mm": 20, "spacing_mm": 70, "dwell_mm": 62, "servo_ms": 40})
BELT = Belt(speed_mm_s=1000, eye_gap_mm=600, blade_mm=62, servo_s=0.04)


class WiredLine:
    """`harm` is the share of bytes with a flipped bit, both ways. The board lives on while the cable is pulled."""

    def __init__(self, port: Path, rate_per_s: float = 6, parts: int | None = None, clock_ms: int = 0) -> None:
        self.port = port
        self.harm = 0.0
        self.swings = 0
        self.memory = Memory()
        self._chance = random.Random(7)
        self._feed = Feed(rate_per_s=rate_per_s, parts=parts)
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._terminal: Terminal | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.reset()

    def reset(self, cause: str = "power") -> None:
        """The board starts anew; the belt is empty."""
        with self._lock:
            self._began = time.monotonic()
            self.plant = Plant(BELT, self._feed)
            self.line = SimulatedLine(Board(self.memory, cause, self._clock_ms), self.plant, self._witness)

    def plug(self) -> None:
        """The port appears."""
        with self._lock:
            self._terminal = Terminal(self.port).__enter__()

    def pull(self) -> None:
        """The port is gone."""
        with self._lock:
            terminal, self._terminal = self._terminal, None
            if terminal is not None:
                terminal.__exit__(None, None, None)

    @property
    def fallen(self) -> list[Fallen]:
        return list(self.plant.fallen)

    def __enter__(self) -> Self:
        self.plug()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(5)
        self.pull()

    def _witness(self, what: str, facts: dict[str, Any]) -> None:
        self.swings += what == "servo" and facts["to_us"] == SETTINGS.number("out_us")

    def _run(self) -> None:
        while not self._ending.is_set():
            with self._lock:
                self.line.run_until(int((time.monotonic() - self._began) * 1e6))
                self.plant.feeding = self.line.supervised
                said = self._harmed(self.line.board.transmit())
                if self._terminal is not None:
                    self._terminal.write(said)
                    self.line.receive(self._harmed(self._terminal.read(0)))
            time.sleep(0.002)

    def _harmed(self, data: bytes) -> bytes:
        if not self.harm:
            return data
        return bytes(byte ^ 1 << self._chance.randrange(8) if self._chance.random() < self.harm else byte for byte in data)


class Ear:
    """What a link reports, by kind; `then` is called for each as well."""

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


def until(true: Callable[[], object], within_s: float = 15) -> None:
    """Returns once `true()` is."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not seen within {within_s} s"
        time.sleep(0.01)
