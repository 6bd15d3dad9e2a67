"""Runs a simulated Mega in another process. The caller sets pins and sends bytes, and reads pulses, pin changes and bytes.

    with start_mega(toolchain.build_firmware()) as mega:
        mega.set_pin("A0", False)
        mega.run_until(5_000)
        mega.pulses[-1]

`start_core` runs only the portable part of the firmware, on the PC.
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
from firmware.pins import LANES, PLANT

CYCLES_PER_US = 16
# The firmware writes to this port once in each round of its main loop. The time between two writes is the duration of a round.
LOOP_PORT = "F"


@dataclass(frozen=True)
class ServoPulse:
    """A pulse to a servo. `compare` names the timer output that made the pulse, such as 4A.

    `period_us` is the time from the start of the previous pulse to the start of this pulse, or 0 if the time is not known.
    """

    at_us: float
    compare: str
    width_us: float
    period_us: float


@dataclass(frozen=True)
class PinChange:
    """A change of an output pin of the board: the pin has the new `level` from `at_us` on."""

    at_us: float
    pin: str
    level: bool


@dataclass(frozen=True)
class SentBytes:
    """Bytes that the board has sent. `at_us` is the time at which the last of them was sent."""

    at_us: float
    data: bytes


@dataclass(frozen=True)
class LoopDurations:
    """How long the rounds of the firmware's main loop took, including sleep. A changed input is read after at most `longest_us`."""

    count: int
    mean_us: float
    longest_us: float


@dataclass(frozen=True)
class McuReset:
    """A reset of the microcontroller. `cause` is `power`, `button`, `brown-out` or `watchdog`."""

    at_us: float
    cause: str


class SimulatedBoard:
    """A simulated board in another process. Times are microseconds since the start of the process, even after a reset.

    `levels` has the present levels of the output pins. The lists `pulses`, `changes` and `resets` begin with the oldest entry.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.now_us = 0.0
        self.pulses: list[ServoPulse] = []
        self.changes: list[PinChange] = []
        self.resets: list[McuReset] = []
        self.levels: dict[str, bool] = {}
        self._sent: list[SentBytes] = []
        self._loops = LoopDurations(0, 0, 0)
        # The simulator gets its own process group, because Ctrl-C would otherwise end the simulator before this program.
        # The simulator gets no session of its own. Linux divides the processor time among sessions, so a simulator in another session
        # could get less processor time than this program.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
        self._commands: list[str] = []
        self._read_until("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The id of the process that runs the simulated board."""
        return self._process.pid

    # Inputs

    def set_pin(self, pin: str, level: bool) -> None:
        """Sets the level of an input pin now. A pin is named by port and bit, such as "A0"."""
        self._queue(f"pin {pin} {level:d}")

    def set_pin_at(self, at_us: float, pin: str, level: bool) -> None:
        """Sets the level of an input pin at a time that is not in the past."""
        self._queue(f"at {round(at_us * CYCLES_PER_US)} {pin} {level:d}")

    def turn_encoder(self, lane: int, us_per_edge: float, forward: bool = True) -> None:
        """Turns the encoder of a lane (1..4) from now on, with an edge every `us_per_edge` microseconds. 0 stops the encoder."""
        pins = LANES[lane - 1]
        self._queue(f"encoder {pins.encoder_a.port} {pins.encoder_b.port} {round(us_per_edge * CYCLES_PER_US)} {forward:d}")

    def send(self, data: bytes) -> None:
        """Sends bytes to the board at the speed of the serial line."""
        if data:
            self._queue(f"rx {data.hex()}")

    def reset(self, cause: str) -> None:
        """Resets the board. `cause` is `power`, `button`, `brown-out` or `watchdog`."""
        self._queue(f"reset {cause}")

    def set_dtr(self, level: bool) -> None:
        """Sets the level of the signal DTR of the serial port. If the board has a boot loader, a rising DTR resets the board."""
        self._queue(f"dtr {level:d}")

    def hang(self) -> None:
        """Makes the processor execute an endless loop, until the watchdog resets it."""
        self._queue("hang")

    # Outputs

    def record_all_pulses(self, every_pulse: bool = True) -> None:
        """Records servo pulses from now on: all pulses if `every_pulse` is True, otherwise only those whose width has changed."""
        self._queue(f"servo {'all' if every_pulse else 'changes'}")

    def watch_pin(self, pin: str) -> None:
        """Adds the level changes of the output `pin` to `changes` from now on.

        This is useful for a pin whose level stays the same for long, for example a pin that switches a solenoid valve.
        """
        self._queue(f"watch {pin}")

    def begin_loop_timing(self) -> None:
        """Starts to measure the rounds of the firmware's main loop. Does not work with a core that `start_core` has started."""
        self._queue(f"loop {LOOP_PORT}")

    def set_round_us(self, round_us: int) -> None:
        """Sets how much simulated time a round of the main loop takes, at most 30 ms. This works only with `start_core`.

        Long rounds make the simulation faster, for example when a test simulates some hours.
        """
        self._queue(f"round {round_us * CYCLES_PER_US}")

    def take_loop_durations(self) -> LoopDurations:
        """Returns the durations of the main loop's rounds since the last call."""
        self._queue("loop")
        self._flush()
        self._read_until("loop")
        return self._loops

    def run_until(self, at_us: float) -> None:
        """Runs the firmware until the simulated time is `at_us`."""
        self._queue(f"run {round(at_us * CYCLES_PER_US)}")
        self._flush()
        self._read_until("paused")

    def take_sent(self) -> list[SentBytes]:
        """Returns what the board has sent since the last call."""
        sent, self._sent = self._sent, []
        return sent

    def close(self) -> None:
        """Ends the process of the simulated board."""
        if self._process.poll() is None:
            with suppress(BrokenPipeError):
                self._queue("quit")
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

    # The control channel

    def _queue(self, line: str) -> None:
        self._commands.append(line)

    def _flush(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n".join(self._commands) + "\n")
        self._process.stdin.flush()
        self._commands.clear()

    def _read_until(self, event_name: str) -> None:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            event = json.loads(line)
            if "cycle" in event:
                self.now_us = event["cycle"] / CYCLES_PER_US
            self._handle_event(event)
            if event["event"] == event_name:
                return
        raise RuntimeError(f"the simulator's process ended with status {self._process.wait()} before it sent the event {event_name!r}")

    def _handle_event(self, event: dict[str, Any]) -> None:
        at_us = event.get("cycle", 0) / CYCLES_PER_US
        match event["event"]:
            case "tx":
                self._sent.append(SentBytes(at_us, bytes.fromhex(event["hex"])))
            case "pulse":
                self.pulses.append(ServoPulse(at_us, event["servo"], event["us"], event.get("period_us", 0)))
            case "pin":
                self.changes.append(PinChange(at_us, event["pin"], bool(event["level"])))
                self.levels[event["pin"]] = bool(event["level"])
            case "reset":
                self.resets.append(McuReset(at_us, event["cause"]))
            case "loop":
                self._loops = LoopDurations(event["count"], event["mean_us"], event["longest_us"])
            case "error" | "crash":
                raise RuntimeError(f"the simulated board reports an error: {event}")


def _runner_command(elf: Path, eeprom: Path | None, has_boot_loader: bool) -> list[str]:
    servos = ",".join(pins.compare for pins in LANES)
    outputs = [pin.port for lane in LANES for pin in (lane.trigger, lane.relay, lane.green, lane.yellow, lane.red)]
    outputs += [plant.heartbeat.port for plant in PLANT]
    command = [str(toolchain.build_runner()), "--servos", servos, "--pins", ",".join(outputs)]
    if eeprom:
        command += ["--eeprom", str(eeprom)]
    if has_boot_loader:
        command += ["--boot-loader", str(toolchain.BOOT_LOADER)]
    return [*command, str(elf)]


def start_mega(elf: Path, eeprom: Path | None = None, has_boot_loader: bool = False) -> SimulatedBoard:
    """Starts a simulated Mega for tests. Its time passes only in `run_until`, so a test gets the same result each time.

    If `has_boot_loader` is True, the Mega has its stock boot loader, and DTR resets the board.
    """
    return SimulatedBoard(_runner_command(elf, eeprom, has_boot_loader))


def start_core(clock_start_us: int = 0) -> SimulatedBoard:
    """Starts the portable core of the firmware on this PC. If a sanitizer finds an error in the core, the process ends."""
    return SimulatedBoard([str(toolchain.build_pc_board()), str(clock_start_us)])


class RealTimeBoard(SimulatedBoard):
    """A simulated Mega that runs in real time. Its serial port is a pseudo-terminal, which programs open at `link`.

    If `has_boot_loader` is True, the Mega has its stock boot loader, and opening the port resets the board. A program can prevent the reset
    at later openings by switching the port's flag HUPCL off.
    """

    def __init__(self, elf: Path, link: Path, eeprom: Path | None = None, has_boot_loader: bool = False) -> None:
        link.parent.mkdir(parents=True, exist_ok=True)
        command = _runner_command(elf, eeprom, has_boot_loader)
        super().__init__([command[0], "--link", str(link), *command[1:]])
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._partial_line = ""

    def set_speed(self, factor: float) -> None:
        """Makes the board's time run `factor` times as fast as real time."""
        self._queue(f"pace {factor:g}")

    def poll(self) -> None:
        """Sends the queued commands to the simulator and reads the events that have arrived. Does not wait."""
        if self._commands:
            self._flush()
        assert self._process.stdout is not None
        # The bytes are read and split into lines here, because readline() would wait for the rest of a line that has arrived in part.
        with suppress(BlockingIOError):
            while piece := os.read(self._process.stdout.fileno(), 65536):
                *lines, self._partial_line = (self._partial_line + piece.decode()).split("\n")
                for line in lines:
                    event = json.loads(line)
                    if "cycle" in event:
                        self.now_us = max(self.now_us, event["cycle"] / CYCLES_PER_US)
                    self._handle_event(event)
        if self._process.poll() is not None:
            raise RuntimeError(f"the simulator's process ended unexpectedly with status {self._process.returncode}")

    def poll_for(self, duration_s: float) -> None:
        """Calls `poll` repeatedly for `duration_s` seconds."""
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self.poll()
            time.sleep(0.005)
