"""A simulated Mega in a process of its own: levels in at exact times, pulses and bytes out with the time they happened.

    with stepped(firmware()) as mega:
        mega.pin("A0", False)
        mega.run_until(5_000)
        mega.pulses[-1]
The same harness drives the portable core on a PC (`toolchain.pc_board`), which speaks the same control channel.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from firmware import toolchain
from firmware.pins import LANES

CYCLES_PER_US = 16
LOOP_PORT = "F"
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Pulse:
    """One pulse to a servo. `period_us` is the time since the pulse before began, 0 for the first."""

    at_us: float
    compare: str
    width_us: float
    period_us: float


@dataclass(frozen=True)
class Change:
    """An output pin that changed."""

    at_us: float
    pin: str
    level: bool


@dataclass(frozen=True)
class Said:
    """Bytes that left the board; `at_us` is when the last of them did."""

    at_us: float
    data: bytes


@dataclass(frozen=True)
class Loops:
    """How long the program's loops took, sleep included: what comes in waits so long at most to be looked at."""

    count: int
    mean_us: float
    longest_us: float


@dataclass(frozen=True)
class Reset:
    at_us: float
    cause: str


class Simulated:
    """A process that speaks the runner's control channel (firmware/simulator/control.c). Times are us since its start, over all resets."""

    def __init__(self, call: Sequence[str]) -> None:
        self.now_us = 0.0
        self.pulses: list[Pulse] = []
        self.changes: list[Change] = []
        self.said: list[Said] = []
        self.resets: list[Reset] = []
        self.levels: dict[str, bool] = {}  # of the outputs, as last seen
        self._loops = Loops(0, 0, 0)
        # In a session of its own: a Ctrl-C is for the program that holds this, and the end of its input ends it in any case.
        self._process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self._orders: list[str] = []
        self._read_until("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    # Levels and bytes in

    def pin(self, pin: str, level: bool) -> None:
        """The level from outside, now."""
        self._order(f"pin {pin} {level:d}")

    def pin_at(self, at_us: float, pin: str, level: bool) -> None:
        """The level from outside from `at_us` on, which is not in the past."""
        self._order(f"at {round(at_us * CYCLES_PER_US)} {pin} {level:d}")

    def encoder(self, lane: int, us_per_edge: float, forward: bool = True) -> None:
        """The encoder of `lane` (from 1) turns from now on; 0 stands still."""
        pins = LANES[lane - 1]
        self._order(f"encoder {pins.encoder_a.port} {pins.encoder_b.port} {round(us_per_edge * CYCLES_PER_US)} {forward:d}")

    def send(self, data: bytes) -> None:
        """Bytes to the board, at the speed of the line."""
        if data:
            self._order(f"rx {data.hex()}")

    def reset(self, cause: str) -> None:
        """`power`, `button`, `brown-out` or `watchdog`."""
        self._order(f"reset {cause}")

    def hang(self) -> None:
        """The program runs in a circle until the watchdog bites."""
        self._order("hang")

    def all_pulses(self, wanted: bool = True) -> None:
        """Whether every pulse is told, or only those whose width differs from the one before."""
        self._order(f"servo {'all' if wanted else 'changes'}")

    def watch_loop(self) -> None:
        """From now on the program's loops are timed, by the port that each of them writes; not of the core."""
        self._order(f"loop {LOOP_PORT}")

    def loops(self) -> Loops:
        """Since the last call."""
        self._order("loop")
        self._flush()
        self._read_until("loop")
        return self._loops

    # Time

    def run_until(self, at_us: float) -> None:
        """Lets the program run up to `at_us`."""
        self._order(f"run {round(at_us * CYCLES_PER_US)}")
        self._flush()
        self._read_until("paused")

    def take(self) -> list[Said]:
        """What the board has said since the last call."""
        said, self.said = self.said, []
        return said

    def close(self) -> None:
        if self._process.poll() is None:
            with suppress(BrokenPipeError):
                self._order("quit")
                self._flush()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    # The channel

    def _order(self, line: str) -> None:
        self._orders.append(line)

    def _flush(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n".join(self._orders) + "\n")
        self._process.stdin.flush()
        self._orders.clear()

    def _read_until(self, wanted: str) -> None:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            event = json.loads(line)
            if "cycle" in event:
                self.now_us = event["cycle"] / CYCLES_PER_US
            self._hear(event)
            if event["event"] == wanted:
                return
        raise RuntimeError(f"expected {wanted!r} from the simulated board, it ended with status {self._process.wait()}")

    def _hear(self, event: dict[str, Any]) -> None:
        at_us = event.get("cycle", 0) / CYCLES_PER_US
        match event["event"]:
            case "tx":
                self.said.append(Said(at_us, bytes.fromhex(event["hex"])))
            case "pulse":
                self.pulses.append(Pulse(at_us, event["servo"], event["us"], event.get("period_us", 0)))
            case "pin":
                self.changes.append(Change(at_us, event["pin"], bool(event["level"])))
                self.levels[event["pin"]] = bool(event["level"])
            case "reset":
                self.resets.append(Reset(at_us, event["cause"]))
            case "loop":
                self._loops = Loops(event["count"], event["mean_us"], event["longest_us"])
            case "error" | "crash":
                raise RuntimeError(f"the simulated board says: {event}")


def _call(elf: Path, eeprom: Path | None) -> list[str]:
    servos = ",".join(pins.compare for pins in LANES)
    outputs = ",".join(pin.port for lane in LANES for pin in (lane.trigger, lane.relay, lane.green, lane.yellow, lane.red))
    call = [str(toolchain.runner()), "--servos", servos, "--pins", outputs]
    return [*call, *(["--eeprom", str(eeprom)] if eeprom else []), str(elf)]


def stepped(elf: Path, eeprom: Path | None = None) -> Simulated:
    """A Mega whose time passes only by `run_until`: as fast as it goes, and the same every time."""
    return Simulated(_call(elf, eeprom))


def core(clock_start_us: int = 0) -> Simulated:
    """The portable core on this PC with sanitizers, driven in the same way. Any report of a sanitizer ends it."""
    return Simulated([str(toolchain.pc_board()), str(clock_start_us)])


class Paced(Simulated):
    """A Mega in real time behind a pseudo-terminal at `link`; what it says goes there."""

    def __init__(self, elf: Path, link: Path, eeprom: Path | None = None) -> None:
        link.parent.mkdir(parents=True, exist_ok=True)
        call = _call(elf, eeprom)
        super().__init__([call[0], "--link", str(link), *call[1:]])
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._partial = ""

    def poll(self) -> None:
        """Sends what was ordered and takes in what has happened since; does not wait."""
        if self._orders:
            self._flush()
        assert self._process.stdout is not None
        # Not by readline: half a line is kept for the next call.
        with suppress(BlockingIOError):
            while piece := os.read(self._process.stdout.fileno(), 65536):
                *lines, self._partial = (self._partial + piece.decode()).split("\n")
                for line in lines:
                    event = json.loads(line)
                    if "cycle" in event:
                        self.now_us = max(self.now_us, event["cycle"] / CYCLES_PER_US)
                    self._hear(event)
        if self._process.poll() is not None:
            raise RuntimeError(f"the simulated board ended with status {self._process.returncode}")

    def poll_for(self, seconds: float) -> None:
        """Polls for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.poll()
            time.sleep(0.005)
