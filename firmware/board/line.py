"""A simulated line: a board and a plant, wired together and carried forward in steps of a millisecond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from firmware.board.board import Board
from firmware.board.plant import EYE1, STEPS, Plant

STEP_US = 1000
Witness = Callable[[str, dict[str, Any]], None]


class SimulatedLine:
    """`witness` is told the physical truth: each casting that fell, each change of the servo's pulse, each camera pulse."""

    def __init__(self, board: Board, plant: Plant, witness: Witness = lambda what, facts: None) -> None:
        self.board = board
        self.plant = plant
        self.now_us = 0
        self._witness = witness
        self._lane = board.lanes[0]
        self._pulse_us = self._lane.gate.pulse_us
        self._told = 0

    @property
    def supervised(self) -> bool:
        """A host has greeted and configured: castings may come."""
        return self.board.greeted and self._lane.committed

    @property
    def pending(self) -> int:
        """Events that no host has acknowledged."""
        return self.board.events.pending

    def transmit(self) -> bytes:
        """What the board has said since the last call."""
        return self.board.transmit()

    def receive(self, data: bytes) -> None:
        self.board.receive(data, self.now_us)

    def run_until(self, to_us: int) -> None:
        """Carries board and plant to `to_us`, in steps so small that a late caller does not make the gate late."""
        while self.now_us < to_us:
            self.now_us += STEP_US
            self._step()

    def _step(self) -> None:
        lane, plant = self._lane, self.plant
        for signal in plant.advance(self.now_us, lane.gate.pulse_us, lane.relay_closed(plant.now_us)):
            if signal.what == STEPS:
                lane.steps(signal.value, signal.at_us)
            else:
                lane.eye(1 if signal.what == EYE1 else 2, bool(signal.value), signal.at_us)
        self.board.tick(self.now_us)
        if lane.gate.pulse_us != self._pulse_us:
            self._witness("servo", {"at_us": self.now_us, "from_us": self._pulse_us, "to_us": lane.gate.pulse_us, "run": self.board.run})
            self._pulse_us = lane.gate.pulse_us
        while lane.trigger_pulses and lane.trigger_pulses[0] <= self.now_us:
            self._witness("camera", {"at_us": lane.trigger_pulses.pop(0), "run": self.board.run})
        for fallen in plant.fallen[self._told :]:
            facts = {"casting": fallen.number, "counted": fallen.counted, "side": fallen.side, "struck": fallen.struck}
            self._witness("fell", {"at_us": fallen.at_us, "run": self.board.run, **facts})
        self._told = len(plant.fallen)
