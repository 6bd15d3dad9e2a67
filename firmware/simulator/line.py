"""Simulated lines whose board is the real firmware: the plant model drives the simulated Mega's pins.

The same outside as `firmware.board.line.SimulatedLine`, so that a terminal can serve either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from firmware.board.frames import Deframer
from firmware.board.plant import EYE1, STEPS, Plant, Signal
from firmware.pins import LANES
from firmware.simulator.avr import Simulated

STEP_US = 2000  # the plant sees the outputs so late at most: 1/40 of a servo's swing
Witness = Callable[[str, dict[str, Any]], None]


class AvrBelt:
    """One belt at the pins of its lane."""

    def __init__(self, simulated: Simulated, plant: Plant, lane: int, servos: dict[str, float]) -> None:
        self.plant = plant
        self.lane = lane
        self.pins = LANES[lane - 1]
        self.eye2_us: list[int] = []  # leading edges at photo-eye 2, as they were
        self.broken: set[str] = set()  # sensors (eye1, eye2, steps) whose signals do not reach the board
        self.green = False
        self.fallen_told = 0
        self._simulated = simulated
        self._servos = servos  # pulse in us by the timer's output, as measured
        self._stepped_us = 0.0
        self._phase = 0

    @property
    def relay_closed(self) -> bool:
        return self._simulated.levels.get(self.pins.relay.port, False)

    @property
    def pulse_us(self) -> float:
        return self._servos.get(self.pins.compare, 0.0)

    def advance(self, to_us: int, from_us: int) -> None:
        """Puts to the pins, with their times, what the belt does until `to_us`."""
        belt = self.plant.belt
        pulses = [round(self._servos.get(LANES[blade.lane - 1].compare, 0.0)) or blade.rest_us for blade in belt.further]
        for signal in self.plant.advance(to_us, round(self.pulse_us) or belt.rest_us, self.relay_closed, pulses):
            if signal.what not in self.broken:
                self._put(signal, from_us)

    def settle(self) -> None:
        """The encoder stands."""
        self._simulated.pin(self.pins.encoder_a.port, False)
        self._simulated.pin(self.pins.encoder_b.port, False)

    def _put(self, signal: Signal, from_us: int) -> None:
        if signal.what == STEPS:
            self._turn(signal, from_us)
            return
        eye = self.pins.eye1 if signal.what == EYE1 else self.pins.eye2
        self._simulated.pin_at(signal.at_us, eye.port, not signal.value)
        if signal.what != EYE1 and signal.value:
            self.eye2_us.append(signal.at_us)

    def _turn(self, signal: Signal, from_us: int) -> None:
        """So many edges of the encoder, spread over the time since the last ones."""
        begin = max(self._stepped_us, from_us)
        for step in range(signal.value):
            at_us = begin + (signal.at_us - begin) * (step + 0.5) / signal.value
            self._phase = (self._phase + 1) % 4
            self._simulated.pin_at(at_us, self.pins.encoder_a.port, self._phase in (1, 2))
            self._simulated.pin_at(at_us, self.pins.encoder_b.port, self._phase in (2, 3))
        self._stepped_us = signal.at_us


class AvrLine:
    """`plants` by lane; one alone is wired to lane 1.

    `witness` is told the physical truth: each casting that fell, each change of a servo's pulse, each camera pulse.
    """

    def __init__(
        self,
        simulated: Simulated,
        plants: Plant | Mapping[int, Plant],
        witness: Witness = lambda what, facts: None,
        supply: bool = True,
    ) -> None:
        """`supply`: the inputs of all lanes are well."""
        self.simulated = simulated
        self.plants = {1: plants} if isinstance(plants, Plant) else dict(plants)
        self.run = 0
        self.pending = 0
        self.now_us = 0
        self._servos: dict[str, float] = {}
        self.belts = {lane: AvrBelt(simulated, plant, lane, self._servos) for lane, plant in self.plants.items()}
        self._witness = witness
        self._deframer = Deframer("<!")
        self._out = bytearray()
        self._pulses_told = self._changes_told = 0
        # Which belt a servo or a pin belongs to, and the gate's number.
        self._gates = {LANES[lane - 1].compare: (lane, lane) for lane in self.plants}
        for lane, plant in self.plants.items():
            self._gates |= {LANES[blade.lane - 1].compare: (lane, blade.lane) for blade in plant.belt.further}
        self._triggers = {belt.pins.trigger.port: lane for lane, belt in self.belts.items()}
        self._greens = {belt.pins.green.port: belt for belt in self.belts.values()}
        if supply:
            self.settle()

    @property
    def belt(self) -> AvrBelt:
        """The first one."""
        return next(iter(self.belts.values()))

    @property
    def plant(self) -> Plant:
        return self.belt.plant

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
        for belt in self.belts.values():
            belt.settle()

    @property
    def supervised(self) -> bool:
        """A host has greeted and configured all belts since the reset, as the green lamps showed: castings may come."""
        return all(belt.green for belt in self.belts.values())

    @property
    def relay_closed(self) -> bool:
        return self.belt.relay_closed

    @property
    def pulse_us(self) -> float:
        """The first belt's servo pulse, as measured."""
        return self.belt.pulse_us

    def receive(self, data: bytes) -> None:
        self.simulated.send(data)

    def transmit(self) -> bytes:
        """What the board has said since the last call."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def run_until(self, to_us: int) -> None:
        """Carries board and belts to `to_us`, in steps so small that a late caller does not make a gate late."""
        while self.now_us < to_us:
            before, self.now_us = self.now_us, min(self.now_us + STEP_US, to_us)
            for belt in self.belts.values():
                belt.advance(self.now_us, before)
            self.simulated.run_until(self.now_us)
            self._look()

    def _look(self) -> None:
        for said in self.simulated.take():
            self._out += said.data
            for frame in self._deframer.feed(said.data):
                if frame.name == "BOOT":
                    self.run = int(frame.fields[1])
                    for belt in self.belts.values():
                        belt.green = False
                elif frame.name == "BEAT":
                    self.pending = int(frame.fields[4])
        self._look_at_pulses()
        for change in self.simulated.changes[self._changes_told :]:
            if change.level and change.pin in self._triggers:
                self._say("camera", self._triggers[change.pin], {"at_us": round(change.at_us)})
            if change.level and change.pin in self._greens:
                self._greens[change.pin].green = True
        self._changes_told = len(self.simulated.changes)
        for belt in self.belts.values():
            for fallen in belt.plant.fallen[belt.fallen_told :]:
                facts = {
                    "casting": fallen.number,
                    "counted": fallen.counted,
                    "side": fallen.side,
                    "gate": fallen.gate,
                    "struck": fallen.struck,
                }
                self._say("fell", belt.lane, {"at_us": fallen.at_us, **facts})
            belt.fallen_told = len(belt.plant.fallen)

    def _look_at_pulses(self) -> None:
        for pulse in self.simulated.pulses[self._pulses_told :]:
            before = self._servos.get(pulse.compare, 0.0)
            if abs(pulse.width_us - before) > 1:
                if before and pulse.compare in self._gates:
                    lane, gate = self._gates[pulse.compare]
                    widths = {"from_us": round(before), "to_us": round(pulse.width_us)}
                    self._say("servo", lane, {"at_us": round(pulse.at_us), "gate": gate, **widths})
                self._servos[pulse.compare] = pulse.width_us
        self._pulses_told = len(self.simulated.pulses)

    def _say(self, what: str, lane: int, facts: dict[str, Any]) -> None:
        self._witness(what, {"run": self.run, "lane": lane, **facts})
