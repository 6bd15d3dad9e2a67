"""The simulated world of the campaign: two belts with castings at one board, whose firmware runs in the AVR simulator.

    python -m tests.campaign.world FOLDER RATE SEED

The process reads the commands `unplug`, `plug`, `reset` and `stop` from its standard input. It writes each trigger of a camera to its
standard output, and what truly happened to each casting to the file `castings.jsonl`, both as lines of JSON.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deploy.supervisor.priority import raise_priority
from firmware import toolchain
from firmware.board.line import PseudoTerminal, run_in_real_time
from firmware.board.plant import Belt, BeltCasting, CastingFeed, Plant
from firmware.simulator.avr import SimulatedBoard, start_mega
from firmware.simulator.avr_line import AvrLine
from tests.campaign.scene import BOARD_PORT, GATED_LINES, SPEED_MM_S, TRAVEL_MM, is_defect, write_line

_BLADE_MM = 20 + 0.08 * SPEED_MM_S


@dataclass
class _KnownCasting:
    """What the world knows of a casting on a belt. `run` and `part` are its identity if the board has triggered the camera for it."""

    eye1_at: float
    eye2_at: float | None = None
    run: int | None = None
    part: int | None = None
    gate_moves: int = 0


@dataclass
class _Lane:
    line: str
    plant: Plant
    known: dict[int, _KnownCasting] = field(default_factory=dict)
    run: int = 0
    parts: int = 0
    servo_us: int = 0


class World:
    """Notes where each casting is, and writes a line when a casting has left its belt. `on_truth` is the listener of an AvrLine."""

    def __init__(self, lanes: dict[int, _Lane], castings: IO[str], triggers: IO[str], seed: int) -> None:
        self._lanes = lanes
        self._castings = castings
        self._triggers = triggers
        self._seed = seed
        self.now_us = 0

    def on_truth(self, event: str, facts: dict[str, Any]) -> None:
        lane, at = self._lanes[facts["lane"]], self._clock(facts["at_us"])
        if event == "camera":
            self._trigger(lane, facts["run"], at)
        elif event == "servo":
            self._move_gate(lane, facts["to_us"], at)
        elif event == "fell":
            self._leave(lane, facts)

    def _move_gate(self, lane: _Lane, to_us: int, at: float) -> None:
        # A board that was reset commands its servo anew. A servo that has this position already does not move.
        was_out, lane.servo_us = lane.servo_us == lane.plant.belt.out_us, to_us
        if to_us == lane.plant.belt.out_us and not was_out:
            write_line(self._castings, {"gate": "moved", "line": lane.line, "at": at})
            if behind := [known for known in lane.known.values() if known.eye2_at is not None]:
                behind[-1].gate_moves += 1

    def note_reset(self, at_us: float) -> None:
        """Writes that the board was reset. All belts are at the same board."""
        for lane in self._lanes.values():
            write_line(self._castings, {"board": "reset", "line": lane.line, "at": self._clock(at_us)})

    def look(self, now_us: int) -> None:
        """Notes the castings that have passed a photo-eye up to `now_us`, a simulated time."""
        self.now_us = now_us
        for lane in self._lanes.values():
            for casting in lane.plant.castings:
                if casting.counted:
                    self._see(lane, casting)

    def _see(self, lane: _Lane, casting: BeltCasting) -> _KnownCasting:
        known = lane.known.get(casting.number)
        if known is None:
            known = lane.known[casting.number] = _KnownCasting(time.time() - max(0.0, casting.lead_mm) / SPEED_MM_S)
        if known.eye2_at is None and casting.lead_mm >= TRAVEL_MM:
            known.eye2_at = time.time() - (casting.lead_mm - TRAVEL_MM) / SPEED_MM_S
        return known

    def _trigger(self, lane: _Lane, run: int, at: float) -> None:
        if run != lane.run:
            lane.run, lane.parts = run, 0
        lane.parts += 1
        casting = max((casting for casting in lane.plant.castings if casting.counted), key=lambda each: each.counted, default=None)
        if casting is None:
            return
        known = self._see(lane, casting)
        known.run, known.part = run, lane.parts
        picture = {"line": lane.line, "casting": casting.number, "run": run, "part": lane.parts, "at": at}
        write_line(self._triggers, picture)

    def _leave(self, lane: _Lane, facts: dict[str, Any]) -> None:
        known = lane.known.pop(facts["casting"], None)
        if known is None:
            return
        write_line(
            self._castings,
            {
                "casting": facts["casting"],
                "line": lane.line,
                "is_defect": is_defect(self._seed, lane.line, facts["casting"]),
                "eye1_at": known.eye1_at,
                "eye2_at": known.eye2_at,
                "run": known.run,
                "part": known.part,
                "left_by": "chute" if facts["side"] == "diverted" else "belt",
                "gate_moves": known.gate_moves,
                "left_at": self._clock(facts["at_us"]),
            },
        )

    def _clock(self, at_us: float) -> float:
        return time.time() - max(0.0, self.now_us - at_us) / 1e6


class WatchedLine(AvrLine):
    """A line that passes what it sees to a World."""

    def __init__(self, board: SimulatedBoard, lanes: dict[int, _Lane], world: World) -> None:
        super().__init__(board, {number: lane.plant for number, lane in lanes.items()}, world.on_truth)
        self._world = world
        self._reported_resets = 0

    def run_until(self, to_us: int) -> None:
        super().run_until(to_us)
        self._world.look(self.now_us)
        for reset in self.board.resets[self._reported_resets :]:
            if self._reported_resets or reset.cause != "power":
                self._world.note_reset(reset.at_us)
        self._reported_resets = len(self.board.resets)


class Cable(PseudoTerminal):
    """The serial cable of the board. It executes the commands that arrive in `commands` when the port is read."""

    def __init__(self, link: Path, board: SimulatedBoard, commands: queue.SimpleQueue[str]) -> None:
        self._board = board
        self._commands = commands
        self.is_plugged = True
        super().__init__(link)

    def read(self, timeout_s: float) -> bytes:
        while not self._commands.empty():
            self._execute(self._commands.get())
        if not self.is_plugged:
            time.sleep(timeout_s)
            return b""
        return super().read(timeout_s)

    def write(self, data: bytes) -> None:
        if self.is_plugged:
            super().write(data)

    def _execute(self, command: str) -> None:
        if command == "reset":
            self._board.reset("button")
        elif command == "unplug" and self.is_plugged:
            self.is_plugged = False
            self.link.unlink(missing_ok=True)
            os.close(self._slave)
            os.close(self._master)
        elif command == "plug" and not self.is_plugged:
            super().__init__(self.link)
            self.is_plugged = True


def run(folder: Path, rate_per_s: float, seed: int) -> None:
    """Runs board and belts until `stop` has come, or until the standard input is closed."""
    raise_priority()
    stopping = threading.Event()
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for text in sys.stdin:
            if text.strip() == "stop":
                # The board must be in reach of its host, so that its last events are acknowledged.
                commands.put("plug")
                break
            commands.put(text.strip())
        stopping.set()

    threading.Thread(target=listen, daemon=True).start()
    belt = Belt(speed_mm_s=SPEED_MM_S, eye_gap_mm=TRAVEL_MM, blade_mm=_BLADE_MM)
    lanes = {
        number: _Lane(line, Plant(belt, CastingFeed(rate_per_s=rate_per_s / len(GATED_LINES), jitter=0.3, seed=seed * 10 + number)))
        for number, line in enumerate(GATED_LINES, 1)
    }
    with (folder / "castings.jsonl").open("a") as castings, start_mega(toolchain.build_firmware(), folder / "board.eeprom") as mega:
        line = WatchedLine(mega, lanes, World(lanes, castings, sys.stdout, seed))
        line.boot()
        with Cable(folder / BOARD_PORT, mega, commands) as cable:
            run_in_real_time(line, cable, stopping)


if __name__ == "__main__":
    run(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
