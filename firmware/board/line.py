"""Simulated lines: a board and the belts that are wired to its lanes, carried forward in steps of a millisecond."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from firmware.board.board import Board
from firmware.board.plant import EYE1, STEPS, Plant

STEP_US = 1000
Witness = Callable[[str, dict[str, Any]], None]


class SimulatedLine:
    """`plants` by lane; one alone is wired to lane 1.

    `witness` is told the physical truth: each casting that fell, each change of a servo's pulse, each camera pulse.
    """

    def __init__(self, board: Board, plants: Plant | Mapping[int, Plant], witness: Witness = lambda what, facts: None) -> None:
        self.board = board
        self.plants = {1: plants} if isinstance(plants, Plant) else dict(plants)
        self.now_us = 0
        self._witness = witness
        self._pulses = {lane.number: lane.gate.pulse_us for lane in board.lanes}
        self._told = dict.fromkeys(self.plants, 0)

    @property
    def plant(self) -> Plant:
        """The first belt."""
        return next(iter(self.plants.values()))

    @property
    def supervised(self) -> bool:
        """A host has greeted and configured all belts: castings may come."""
        return self.board.greeted and all(self.board.lanes[number - 1].committed for number in self.plants)

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
        """Carries board and belts to `to_us`, in steps so small that a late caller does not make a gate late."""
        while self.now_us < to_us:
            self.now_us += STEP_US
            self._step()

    def _step(self) -> None:
        lanes = self.board.lanes
        for number, plant in self.plants.items():
            lane = lanes[number - 1]
            further = [lanes[blade.lane - 1].gate.pulse_us for blade in plant.belt.further]
            for signal in plant.advance(self.now_us, lane.gate.pulse_us, lane.relay_closed(plant.now_us), further):
                if signal.what == STEPS:
                    lane.steps(signal.value, signal.at_us)
                else:
                    lane.eye(1 if signal.what == EYE1 else 2, bool(signal.value), signal.at_us)
        self.board.tick(self.now_us)
        for number, plant in self.plants.items():
            for gate in (number, *(blade.lane for blade in plant.belt.further)):
                self._look_at_servo(number, gate)
            self._look_at_belt(number, plant)

    def _look_at_servo(self, number: int, gate: int) -> None:
        before, after = self._pulses[gate], self.board.lanes[gate - 1].gate.pulse_us
        if before != after:
            self._say("servo", number, {"at_us": self.now_us, "gate": gate, "from_us": before, "to_us": after})
            self._pulses[gate] = after

    def _look_at_belt(self, number: int, plant: Plant) -> None:
        lane = self.board.lanes[number - 1]
        while lane.trigger_pulses and lane.trigger_pulses[0] <= self.now_us:
            self._say("camera", number, {"at_us": lane.trigger_pulses.pop(0)})
        for fallen in plant.fallen[self._told[number] :]:
            facts = {"casting": fallen.number, "counted": fallen.counted, "side": fallen.side, "gate": fallen.gate, "struck": fallen.struck}
            self._say("fell", number, {"at_us": fallen.at_us, **facts})
        self._told[number] = len(plant.fallen)

    def _say(self, what: str, lane: int, facts: dict[str, Any]) -> None:
        self._witness(what, {"run": self.board.run, "lane": lane, **facts})
