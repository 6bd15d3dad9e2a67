"""A simulated line whose board is the real firmware: the plant model drives the simulated Mega's pins.

The same outside as `firmware.board.line.SimulatedLine`, so that a terminal can serve either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from firmware.board.frames import Deframer
from firmware.board.plant import EYE1, STEPS, Plant, Signal
from firmware.pins import LANES
from firmware.simulator.avr import Simulated

STEP_US = 2000  # the plant sees the outputs so late at most: 1/40 of a servo's swing
Witness = Callable[[str, dict[str, Any]], None]


class AvrLine:
    """`witness` is told the physical truth: each casting that fell, each change of the servo's pulse, each camera pulse."""

    def __init__(
        self, simulated: Simulated, plant: Plant, witness: Witness = lambda what, facts: None, lane: int = 1, supply: bool = True
    ) -> None:
        """`supply`: all inputs of the other lanes and this lane's emergency stop and servo supply are well."""
        self.simulated = simulated
        self.plant = plant
        self.run = 0
        self.pending = 0
        self.now_us = 0
        self.eye2_us: list[int] = []  # leading edges at photo-eye 2, as they were
        self.broken: set[str] = set()  # sensors (eye1, eye2, steps) whose signals do not reach the board
        self._pins = LANES[lane - 1]
        self._witness = witness
        self._deframer = Deframer("<!")
        self._out = bytearray()
        self._pulse_us = 0.0
        self._pulses_told = self._changes_told = self._fallen_told = 0
        self._stepped_us = 0.0
        self._phase = 0
        self._green = False
        if supply:
            self.settle()

    def boot(self) -> int:
        """Lets the board start and say BOOT; its run."""
        while not self.run:
            self.run_until(self.now_us + 20_000)
        return self.run

    def settle(self) -> None:
        """Inputs as on a line where all is well and nothing stands before an eye."""
        for pins in LANES:
            self.simulated.pin(pins.estop.port, False)
            self.simulated.pin(pins.servo_power.port, True)
            for eye in (pins.eye1, pins.eye2):
                self.simulated.pin(eye.port, True)
        self.simulated.pin(self._pins.encoder_a.port, False)
        self.simulated.pin(self._pins.encoder_b.port, False)

    @property
    def supervised(self) -> bool:
        """A host has greeted and configured since the reset, as the green lamp showed: castings may come."""
        return self._green

    @property
    def relay_closed(self) -> bool:
        return self.simulated.levels.get(self._pins.relay.port, False)

    @property
    def pulse_us(self) -> float:
        """The servo's pulse, as measured."""
        return self._pulse_us

    def receive(self, data: bytes) -> None:
        self.simulated.send(data)

    def transmit(self) -> bytes:
        """What the board has said since the last call."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def run_until(self, to_us: int) -> None:
        """Carries board and plant to `to_us`, in steps so small that a late caller does not make the gate late."""
        while self.now_us < to_us:
            before, self.now_us = self.now_us, min(self.now_us + STEP_US, to_us)
            pulse_us = round(self._pulse_us) or self.plant.belt.rest_us
            for signal in self.plant.advance(self.now_us, pulse_us, self.relay_closed):
                self._put(signal, before)
            self.simulated.run_until(self.now_us)
            self._look()

    def _put(self, signal: Signal, before: int) -> None:
        if signal.what in self.broken:
            return
        if signal.what == STEPS:
            self._turn(signal, before)
            return
        eye = self._pins.eye1 if signal.what == EYE1 else self._pins.eye2
        self.simulated.pin_at(signal.at_us, eye.port, not signal.value)
        if signal.what != EYE1 and signal.value:
            self.eye2_us.append(signal.at_us)

    def _turn(self, signal: Signal, before: int) -> None:
        """So many edges of the encoder, spread over the time since the last ones."""
        begin = max(self._stepped_us, before)
        for step in range(signal.value):
            at_us = begin + (signal.at_us - begin) * (step + 0.5) / signal.value
            self._phase = (self._phase + 1) % 4
            self.simulated.pin_at(at_us, self._pins.encoder_a.port, self._phase in (1, 2))
            self.simulated.pin_at(at_us, self._pins.encoder_b.port, self._phase in (2, 3))
        self._stepped_us = signal.at_us

    def _look(self) -> None:
        for said in self.simulated.take():
            self._out += said.data
            for frame in self._deframer.feed(said.data):
                if frame.name == "BOOT":
                    self.run, self._green = int(frame.fields[1]), False
                elif frame.name == "BEAT":
                    self.pending = int(frame.fields[4])
        for pulse in self.simulated.pulses[self._pulses_told :]:
            if pulse.compare == self._pins.compare and abs(pulse.width_us - self._pulse_us) > 1:
                if self._pulse_us:
                    seen = {"at_us": round(pulse.at_us), "from_us": round(self._pulse_us), "to_us": round(pulse.width_us), "run": self.run}
                    self._witness("servo", seen)
                self._pulse_us = pulse.width_us
        for change in self.simulated.changes[self._changes_told :]:
            if change.pin == self._pins.trigger.port and change.level:
                self._witness("camera", {"at_us": round(change.at_us), "run": self.run})
            if change.pin == self._pins.green.port and change.level:
                self._green = True
        for fallen in self.plant.fallen[self._fallen_told :]:
            facts: dict[str, Any] = {"casting": fallen.number, "counted": fallen.counted, "side": fallen.side, "struck": fallen.struck}
            self._witness("fell", {"at_us": fallen.at_us, "run": self.run, **facts})
        self._pulses_told, self._changes_told = len(self.simulated.pulses), len(self.simulated.changes)
        self._fallen_told = len(self.plant.fallen)
