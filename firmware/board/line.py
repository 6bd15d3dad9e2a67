"""A simulated board with the belts that are connected to its lanes. It can run in real time at a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import threading
import time
import tty
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from firmware.board.board import Board
from firmware.board.plant import CHUTE_EYE, EYE1, STEPS, CastingExit, Plant

STEP_US = 1000
# A function that is called for each physical event, with the name of the event and a dict of facts. The names are `fell` (a casting left
# the belt), `servo` (a pulse width changed) and `camera` (the camera was triggered).
TruthListener = Callable[[str, dict[str, Any]], None]


def exit_facts(casting: CastingExit) -> dict[str, Any]:
    """Returns the facts that the simulator reports when a casting has left the belt (the event `fell`)."""
    return {
        "at_us": casting.at_us,
        "casting": casting.number,
        "counted": casting.counted,
        "side": casting.side,
        "gate": casting.gate,
        "struck": casting.struck,
    }


class SimulatedLine:
    """A simulated board with its simulated belts. A belt is an object of the class Plant.

    `plants` has the belts by lane number. If `plants` is a single Plant, it is the belt of lane 1. `on_truth` is called for every physical
    event, for example when a casting leaves the belt.
    """

    def __init__(self, board: Board, plants: Plant | Mapping[int, Plant], on_truth: TruthListener = lambda event, facts: None) -> None:
        self.board = board
        self.plants = {1: plants} if isinstance(plants, Plant) else dict(plants)
        self.now_us = 0
        self._on_truth = on_truth
        self._pulses_us = {lane.number: lane.gate.pulse_us for lane in board.lanes}
        for lane in board.lanes:
            lane.change_gate_at_end(True, 0)
        self._reported_exits = dict.fromkeys(self.plants, 0)
        for number, plant in self.plants.items():
            for which in (1, 2):
                board.lanes[number - 1].change_eye(which, plant.belt.eye_light_on, 0)
            for gate in (number, *(blade.lane for blade in plant.belt.further)):
                board.lanes[gate - 1].change_chute_eye(plant.belt.eye_light_on, 0)

    @property
    def plant(self) -> Plant:
        """The belt of the first lane."""
        return next(iter(self.plants.values()))

    @property
    def is_supervised(self) -> bool:
        """True if a host has sent HELLO and configured all belts. Castings are put on the belts only then."""
        return self.board.is_greeted and all(self.board.lanes[number - 1].is_committed for number in self.plants)

    @property
    def pending(self) -> int:
        """The number of events that no host has acknowledged."""
        return self.board.events.pending

    def transmit(self) -> bytes:
        """Returns the bytes that the board has sent since the last call."""
        return self.board.transmit()

    def receive(self, data: bytes) -> None:
        """Passes bytes to the board, as if they had come from the host over the serial port."""
        self.board.receive(data, self.now_us)

    def run_until(self, to_us: int) -> None:
        """Simulates board and belts until `to_us`.

        The steps of the simulation are a millisecond long, so the gates move on time even if this method is rarely called.
        """
        while self.now_us < to_us:
            self.now_us += STEP_US
            self._step()

    def _step(self) -> None:
        lanes = self.board.lanes
        for number, plant in self.plants.items():
            lane = lanes[number - 1]
            further_us = [lanes[blade.lane - 1].gate.pulse_us for blade in plant.belt.further]
            for change in plant.advance(self.now_us, lane.gate.pulse_us, lane.is_relay_closed(plant.now_us), further_us):
                if change.what == STEPS:
                    lane.add_steps(change.value, change.at_us)
                else:
                    lane.change_eye(1 if change.what == EYE1 else 2, bool(change.value) != plant.belt.eye_light_on, change.at_us)
            for gate_change in plant.take_gate_changes():
                gate_lane = lanes[(gate_change.gate or number) - 1]
                if gate_change.what == CHUTE_EYE:
                    gate_lane.change_chute_eye(bool(gate_change.value) != plant.belt.eye_light_on, gate_change.at_us)
                else:
                    gate_lane.change_gate_at_end(bool(gate_change.value), gate_change.at_us)
        self.board.tick(self.now_us)
        for number, plant in self.plants.items():
            for gate in (number, *(blade.lane for blade in plant.belt.further)):
                self._report_servo(number, gate)
            self._report_belt(number, plant)

    def _report_servo(self, number: int, gate: int) -> None:
        before, after = self._pulses_us[gate], self.board.lanes[gate - 1].gate.pulse_us
        if before != after:
            self._report("servo", number, {"at_us": self.now_us, "gate": gate, "from_us": before, "to_us": after})
            self._pulses_us[gate] = after

    def _report_belt(self, number: int, plant: Plant) -> None:
        lane = self.board.lanes[number - 1]
        while lane.camera.began_us:
            self._report("camera", number, {"at_us": lane.camera.began_us.pop(0)})
        for casting in plant.exits[self._reported_exits[number] :]:
            self._report("fell", number, exit_facts(casting))
        self._reported_exits[number] = len(plant.exits)

    def _report(self, event: str, lane: int, facts: dict[str, Any]) -> None:
        self._on_truth(event, {"run": self.board.run, "lane": lane, **facts})


# The rest of this module runs a line in real time, at a pseudo-terminal that programs open as a serial port.

TICK_S = 0.001
# The longest step of the simulation, in microseconds of simulated time. The host's commands are read after each step. So commands do not
# wait for long, even if the simulation is late and must catch up.
MAX_STEP_US = 10_000
# Before the simulated line ends, it waits at most this many seconds until the host has acknowledged all events.
MAX_DRAIN_S = 5.0


class PseudoTerminal:
    """A pseudo-terminal with a symlink `link`, which a program can open like a serial port.

    Raises FileExistsError if `link` exists and is not a symlink.
    """

    def __init__(self, link: Path) -> None:
        if link.exists() and not link.is_symlink():
            raise FileExistsError(
                f"{link} is a file, which would be overwritten by the link to the simulated serial port; choose another path"
            )
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.link = link
        link.parent.mkdir(parents=True, exist_ok=True)
        staged = link.with_name(f".{link.name}.{os.getpid()}")
        staged.symlink_to(os.ttyname(self._slave))
        staged.replace(link)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.link.is_symlink() and str(self.link.readlink()) == os.ttyname(self._slave):
            self.link.unlink()
        os.close(self._slave)
        os.close(self._master)

    def read(self, timeout_s: float) -> bytes:
        """Returns the bytes that the host has written. If no bytes arrive within `timeout_s` seconds, the result is empty."""
        readable, _, _ = select.select([self._master], [], [], timeout_s)
        return os.read(self._master, 4096) if readable else b""

    def write(self, data: bytes) -> None:
        """Sends bytes to the host. Bytes that no host reads are lost, as on a real serial line."""
        try:
            os.write(self._master, data)
        except BlockingIOError:
            return


class TruthLog:
    """Writes each physical event of a simulated line, such as `fell`, to `file` as a line of JSON. If `file` is None, writes nothing."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"what": event, "at": time.time(), **facts}) + "\n")
            self._file.flush()


class BoardLine(Protocol):
    """A board with its belts.

    Two classes have these methods: SimulatedLine, and firmware.simulator.avr_line.AvrLine, whose board runs the real firmware.
    """

    plants: dict[int, Plant]
    now_us: int

    @property
    def is_supervised(self) -> bool: ...

    @property
    def pending(self) -> int: ...

    def run_until(self, to_us: int) -> None: ...

    def receive(self, data: bytes) -> None: ...

    def transmit(self) -> bytes: ...


def run_in_real_time(line: BoardLine, terminal: PseudoTerminal, stopping: threading.Event) -> None:
    """Runs a line at a pseudo-terminal until `stopping` is set, the belts are empty, and the host has acknowledged all events.

    Castings are put on the belts only after a host has configured the board.
    """
    began_s = time.monotonic()
    emptied_s: float | None = None
    while True:
        now_s = time.monotonic()
        due_us = int((now_s - began_s) * 1e6)
        line.run_until(min(due_us, line.now_us + MAX_STEP_US))
        for plant in line.plants.values():
            plant.is_feeding = line.is_supervised and not stopping.is_set()
        if out := line.transmit():
            terminal.write(out)
        if data := terminal.read(TICK_S if line.now_us >= due_us else 0):
            line.receive(data)
            # The board's answers are sent at once. Otherwise the host would get them only in the next round of this loop.
            if out := line.transmit():
                terminal.write(out)
        if stopping.is_set() and not any(plant.castings for plant in line.plants.values()):
            emptied_s = emptied_s or now_s
            # Wait for the last acknowledgements, but at most MAX_DRAIN_S, because the host may have ended already.
            if line.pending == 0 or now_s - emptied_s > MAX_DRAIN_S:
                return
