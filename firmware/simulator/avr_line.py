"""Simulated belts that are connected to the pins of a simulated Mega, which runs the real firmware.

The class AvrLine has the same methods as firmware.board.line.SimulatedLine. So `run_in_real_time` can run a line of either class at a
pseudo-terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firmware.board.line import TruthListener, exit_facts
from firmware.board.plant import CHUTE_EYE, EYE1, STEPS, InputChange, Plant
from firmware.pins import LANES
from firmware.protocol import Deframer, Frame
from firmware.simulator.avr import SimulatedBoard

# The length of a simulation step, in microseconds. If the board changes an output, the belts react in the next step.
STEP_US = 2000


class AvrBelt:
    """A belt that is connected to the pins of its lane.

    - `servos_us`: the pulse width of each servo, by its timer output.
    - `eye2_us`: the times of the leading edges at photo-eye 2.
    - `broken`: the sensors (EYE1, EYE2, STEPS, END_SWITCH, CHUTE_EYE) whose signals do not reach the board.
    """

    def __init__(self, board: SimulatedBoard, plant: Plant, lane: int, servos_us: dict[str, float]) -> None:
        self.plant = plant
        self.lane = lane
        self.pins = LANES[lane - 1]
        self.eye2_us: list[int] = []
        self.broken: set[str] = set()
        self.was_green = False
        self.reported_exits = 0
        self._board = board
        self._servos_us = servos_us
        self._stepped_us = 0.0
        self._encoder_phase = 0

    @property
    def is_relay_closed(self) -> bool:
        """True if the belt relay is closed, so that the belt runs."""
        return self._board.levels.get(self.pins.relay.port, False)

    @property
    def pulse_us(self) -> float:
        """The width of the servo pulse of the belt's own gate in microseconds, or 0 before the first pulse."""
        return self._servos_us.get(self.pins.compare, 0.0)

    def advance(self, to_us: int, from_us: int) -> None:
        """Moves the belt from `from_us` to `to_us`, and schedules the changes at the board's pins."""
        belt = self.plant.belt
        further_us = [round(self._servos_us.get(LANES[blade.lane - 1].compare, 0.0)) or blade.rest_us for blade in belt.further]
        for change in self.plant.advance(to_us, round(self.pulse_us) or belt.rest_us, self.is_relay_closed, further_us):
            if change.what not in self.broken:
                self._set_pins(change, from_us)
        for gate_change in self.plant.take_gate_changes():
            if gate_change.what not in self.broken:
                pins = LANES[(gate_change.gate or self.lane) - 1]
                is_chute = gate_change.what == CHUTE_EYE
                level = bool(gate_change.value) == (is_chute and belt.eye_light_on)
                pin = pins.chute_eye if is_chute else pins.end_switch
                self._board.set_pin_at(max(gate_change.at_us, from_us), pin.port, level)

    def stop_encoder(self) -> None:
        """Sets both pins of the encoder to low, like an encoder that stands still."""
        self._board.set_pin(self.pins.encoder_a.port, False)
        self._board.set_pin(self.pins.encoder_b.port, False)

    def _set_pins(self, change: InputChange, from_us: int) -> None:
        if change.what == STEPS:
            self._turn_encoder(change, from_us)
            return
        eye = self.pins.eye1 if change.what == EYE1 else self.pins.eye2
        self._board.set_pin_at(change.at_us, eye.port, bool(change.value) == self.plant.belt.eye_light_on)
        if change.what != EYE1 and change.value:
            self.eye2_us.append(change.at_us)

    def _turn_encoder(self, change: InputChange, from_us: int) -> None:
        """Turns the encoder by `change.value` steps, distributed evenly over the time since the previous steps."""
        begin_us = max(self._stepped_us, from_us)
        for step in range(change.value):
            at_us = begin_us + (change.at_us - begin_us) * (step + 0.5) / change.value
            self._encoder_phase = (self._encoder_phase + 1) % 4
            self._board.set_pin_at(at_us, self.pins.encoder_a.port, self._encoder_phase in (1, 2))
            self._board.set_pin_at(at_us, self.pins.encoder_b.port, self._encoder_phase in (2, 3))
        self._stepped_us = change.at_us


class AvrLine:
    """A simulated Mega and its belts.

    `plants` has the belts by lane number. If `plants` is a single belt, it belongs to lane 1. `on_truth` is called for every physical
    event, for example when a casting leaves the belt.
    """

    def __init__(
        self,
        board: SimulatedBoard,
        plants: Plant | Mapping[int, Plant],
        on_truth: TruthListener = lambda event, facts: None,
    ) -> None:
        self.board = board
        self.plants = {1: plants} if isinstance(plants, Plant) else dict(plants)
        self.run = 0
        self.pending = 0
        self.now_us = 0
        self._servos_us: dict[str, float] = {}
        self.belts = {lane: AvrBelt(board, plant, lane, self._servos_us) for lane, plant in self.plants.items()}
        self._on_truth = on_truth
        self._deframer = Deframer("<!")
        self._out = bytearray()
        self._pulses_read = self._changes_read = 0
        # Each gate is moved by a timer output. The dictionary gives two lanes for each timer output: the lane of the belt at which the gate
        # stands, and the lane to which the servo is wired.
        self._gates = {LANES[lane - 1].compare: (lane, lane) for lane in self.plants}
        for lane, plant in self.plants.items():
            self._gates |= {LANES[blade.lane - 1].compare: (lane, blade.lane) for blade in plant.belt.further}
        self._trigger_lanes = {belt.pins.trigger.port: lane for lane, belt in self.belts.items()}
        self._belts_by_green = {belt.pins.green.port: belt for belt in self.belts.values()}
        self._set_inputs_ready()

    @property
    def belt(self) -> AvrBelt:
        """The first belt of `belts`. Use this property if the simulation has only one belt."""
        return next(iter(self.belts.values()))

    @property
    def plant(self) -> Plant:
        """The simulated conveyor of the first belt, with its castings and gates."""
        return self.belt.plant

    def boot(self) -> int:
        """Runs the board until it has sent BOOT, and returns its run number."""
        while not self.run:
            self.run_until(self.now_us + 20_000)
        return self.run

    def _set_inputs_ready(self) -> None:
        """Sets the inputs of all lanes so that there is no fault and no part blocks a photo-eye."""
        for pins in LANES:
            self.board.set_pin(pins.estop.port, False)
            self.board.set_pin(pins.servo_power.port, True)
            self.board.set_pin(pins.belt.port, False)
            self.board.set_pin(pins.end_switch.port, False)
            self.board.set_pin(pins.chute_full.port, False)
            for unused in (pins.chute_eye, pins.button):
                self.board.set_pin(unused.port, True)
            for eye in (pins.eye1, pins.eye2):
                self.board.set_pin(eye.port, True)
        for belt in self.belts.values():
            for eye in (belt.pins.eye1, belt.pins.eye2):
                self.board.set_pin(eye.port, not belt.plant.belt.eye_light_on)
            for gate in (belt.lane, *(blade.lane for blade in belt.plant.belt.further)):
                self.board.set_pin(LANES[gate - 1].chute_eye.port, not belt.plant.belt.eye_light_on)
            belt.stop_encoder()

    @property
    def is_supervised(self) -> bool:
        """True if a host has configured the lanes of all belts since the reset.

        The simulation takes a lane as configured if the lane's green lamp has been lit since the reset.
        """
        return all(belt.was_green for belt in self.belts.values())

    @property
    def is_relay_closed(self) -> bool:
        """True if the relay of the first belt is closed, so that the belt runs."""
        return self.belt.is_relay_closed

    @property
    def pulse_us(self) -> float:
        """The servo pulse of the first belt's gate in microseconds, as measured at the timer's output."""
        return self.belt.pulse_us

    def receive(self, data: bytes) -> None:
        """Sends bytes to the board."""
        self.board.send(data)

    def transmit(self) -> bytes:
        """Returns the bytes that the board has sent since the last call."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def run_until(self, to_us: int) -> None:
        """Simulates board and belts until `to_us`.

        The steps of the simulation are STEP_US long, so the gates move on time even if this method is rarely called.
        """
        while self.now_us < to_us:
            before_us, self.now_us = self.now_us, min(self.now_us + STEP_US, to_us)
            for belt in self.belts.values():
                belt.advance(self.now_us, before_us)
            self.board.run_until(self.now_us)
            self._read_bytes()
            self._read_pulses()
            self._read_pin_changes()
            self._read_exits()

    def _read_bytes(self) -> None:
        for sent in self.board.take_sent():
            self._out += sent.data
            for frame in self._deframer.feed(sent.data):
                self._read_frame(frame)

    def _read_frame(self, frame: Frame) -> None:
        if frame.name == "BOOT":
            self.run = int(frame.fields[1])
            for belt in self.belts.values():
                belt.was_green = False
        elif frame.name == "BEAT":
            self.pending = int(frame.fields[4])

    def _read_pulses(self) -> None:
        for pulse in self.board.pulses[self._pulses_read :]:
            before_us = self._servos_us.get(pulse.compare, 0.0)
            if abs(pulse.width_us - before_us) > 1:
                if before_us and pulse.compare in self._gates:
                    lane, gate = self._gates[pulse.compare]
                    widths = {"from_us": round(before_us), "to_us": round(pulse.width_us)}
                    self._report("servo", lane, {"at_us": round(pulse.at_us), "gate": gate, **widths})
                self._servos_us[pulse.compare] = pulse.width_us
        self._pulses_read = len(self.board.pulses)

    def _read_pin_changes(self) -> None:
        for change in self.board.changes[self._changes_read :]:
            if change.level and change.pin in self._trigger_lanes:
                self._report("camera", self._trigger_lanes[change.pin], {"at_us": round(change.at_us)})
            if change.level and change.pin in self._belts_by_green:
                self._belts_by_green[change.pin].was_green = True
        self._changes_read = len(self.board.changes)

    def _read_exits(self) -> None:
        for belt in self.belts.values():
            for casting in belt.plant.exits[belt.reported_exits :]:
                self._report("fell", belt.lane, exit_facts(casting))
            belt.reported_exits = len(belt.plant.exits)

    def _report(self, event: str, lane: int, facts: dict[str, Any]) -> None:
        self._on_truth(event, {"run": self.run, "lane": lane, **facts})
