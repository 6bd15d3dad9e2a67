"""The boards under test of the conformance suite. A rig gives a test the inputs, the outputs and the time of a board."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from firmware import toolchain
from firmware.board.board import Board
from firmware.board.lane import BoardLane
from firmware.board.memory import BoardMemory
from firmware.pins import LANES, PLANT, inputs_of
from firmware.protocol import Deframer, Frame
from firmware.simulator.avr import SimulatedBoard, start_core, start_mega

LANE = LANES[0]
# The default of the setting rest_us, which the tests do not change.
REST_US = 1000
# Storing the 83 bytes of each of two lanes in the EEPROM takes 3.3 ms a byte.
STORING_MS = 650
# A Mega has started and sent BOOT by this time.
START_MS = 60
# A Mega has sent BOOT this long after the start of its clock.
BOOT_MS = 2
# A boot loader starts the firmware within this time.
MAX_BOOT_LOADER_MS = 1000


class Rig(Protocol):
    """A board that was just reset by power. Times are milliseconds since the reset. Without a lane number, lane 1 is meant."""

    run: int

    def send(self, data: bytes) -> None:
        """Sends bytes of the host to the board."""

    def take_frames(self) -> list[Frame]:
        """Returns the frames that the board has sent since the last call."""

    def wait(self, ms: int) -> None:
        """Lets board time pass."""

    def now_ms(self) -> int:
        """Returns the board time as the test counts it."""

    def set_eye(self, which: int, blocked: bool) -> None:
        """Sets the input of photo-eye 1 or 2: low if `blocked` is true, otherwise high."""

    def add_steps(self, count: int) -> None:
        """Makes encoder edges, either at once or during the next `wait`."""

    def set_estop(self, is_open: bool) -> None:
        """Opens or closes the emergency stop."""

    def set_belt(self, runs: bool) -> None:
        """Sets the input "belt runs"."""

    def disturb(self, what: str, us: int) -> None:
        """Inverts an input for some microseconds, and waits until the pulse is over.

        `what` is the name of the input in LanePins, or in PlantPins. An input of the plant interface must have been set before.
        """

    def set_servo_power(self, present: bool, lane: int = 1) -> None:
        """Switches the servo's supply."""

    def set_gate_input(self, what: str, on: bool, lane: int = 1) -> None:
        """Switches an input of a gate: `end_switch` (at an end), `chute_eye` (low), `chute_full`, or `button` (pressed)."""

    def pulse_us(self, lane: int = 1) -> int:
        """Returns the present servo pulse."""

    def is_relay_closed(self) -> bool:
        """Returns whether the belt may run."""

    def swing_count(self) -> int:
        """Returns how often the servo pulse left its rest value since the reset, as the rig itself has counted."""

    def trigger_count(self) -> int:
        """Returns the number of camera pulses since the reset."""

    def watch_servo_levels(self) -> None:
        """Must be called before `plant_level("reject")` and `solenoid_level`, because the servo's pins can have a level or pulses."""

    def set_bypass(self, is_on: bool) -> None:
        """Turns the bypass key of the plant interface of lane 1."""

    def set_reset_button(self, is_pressed: bool) -> None:
        """Presses or releases the reset button of the plant interface of lane 1."""

    def plant_level(self, signal: str) -> bool:
        """Returns the level of an output of the plant interface of lane 1. `signal` is its name in PlantPins."""

    def is_lamp_lit(self, colour: str) -> bool:
        """Returns whether the lamp of lane 1 shows a colour now."""

    def solenoid_level(self) -> bool:
        """Returns the level at the servo's pin of lane 1, whose gate has a solenoid valve."""

    def reset(self, cause: str) -> None:
        """Lets the board store its settings, and resets it by `power`, `button`, `brown-out` or `watchdog`. The EEPROM is kept."""

    def reset_at_once(self, cause: str) -> None:
        """Resets the board without waiting for the EEPROM."""

    def known_cause(self, cause: str) -> str:
        """Returns what the board can know about the cause of a reset if a host was talking to it before."""

    def close(self) -> None:
        """Ends the board."""


class PythonRig:
    """The simulated board in Python, carried forward a millisecond at a time."""

    def __init__(self, memory: BoardMemory | None = None, clock_ms: int = 0) -> None:
        self.memory = memory or BoardMemory()
        self._bypass = self._reset_button = False
        self._clock_ms = clock_ms
        self._start("power")
        for lane in self.board.lanes:
            lane.change_gate_at_end(True, 0)

    def reset(self, cause: str) -> None:
        before = self.board.lanes
        self._start(cause)
        # A reset does not change the levels at the inputs.
        for lane, old in zip(self.board.lanes, before, strict=True):
            lane.change_estop(old.is_estop_open, 0)
            lane.change_servo_power(old.has_servo_power, 0)
            lane.change_belt(old.is_belt_on, 0)
            for which in (1, 2):
                lane.change_eye(which, old.is_eye_low(which), 0)
            lane.change_gate_at_end(old.is_gate_at_end, 0)
            lane.change_chute_full(old.is_chute_full, 0)
            lane.change_chute_eye(old.is_chute_eye_low, 0)
            lane.change_button(old.button.is_pressed, 0)
        self.lane.change_bypass(self._bypass, 0)
        self.lane.change_reset(self._reset_button, 0)

    def _start(self, cause: str) -> None:
        self.board = Board(self.memory, cause, self._clock_ms)
        self.run = self.board.run
        self._us = 0
        self._deframer = Deframer("<!")
        self._swings = self._triggers = 0
        self._pulse_us = self.lane.settings.number("rest_us")
        self._frames: list[Frame] = []

    def reset_at_once(self, cause: str) -> None:
        self.reset(cause)

    def known_cause(self, cause: str) -> str:
        return cause

    @property
    def lane(self) -> BoardLane:
        return self.board.lanes[0]

    def send(self, data: bytes) -> None:
        self.board.receive(data, self._us)

    def take_frames(self) -> list[Frame]:
        frames, self._frames = self._frames + self._deframer.feed(self.board.transmit()), []
        return frames

    def wait(self, ms: int) -> None:
        for _ in range(ms):
            self._us += 1000
            self.board.tick(self._us)
            # The rig counts the swings itself, from the pulse in every millisecond, because it must not trust the board.
            before, self._pulse_us = self._pulse_us, self.pulse_us()
            rest = self.lane.settings.number("rest_us")
            self._swings += before == rest and self._pulse_us != rest
            self._triggers += len(self.lane.camera.began_us)
            self.lane.camera.began_us.clear()

    def jump(self, ms: int) -> None:
        """Lets a long time pass in one step."""
        self._us += ms * 1000
        self.board.tick(self._us)

    def now_ms(self) -> int:
        return self._us // 1000

    def set_eye(self, which: int, blocked: bool) -> None:
        self.lane.change_eye(which, blocked, self._us)

    def add_steps(self, count: int) -> None:
        self.lane.add_steps(count, self._us)

    def set_estop(self, is_open: bool) -> None:
        self.lane.change_estop(is_open, self._us)

    def set_belt(self, runs: bool) -> None:
        self.lane.change_belt(runs, self._us)

    def disturb(self, what: str, us: int) -> None:
        lane = self.lane
        if what.startswith("encoder"):
            lane.add_steps(1, self._us)
            self.wait(us // 1000 + 1)
            lane.add_steps(-1, self._us)
            return
        eye = 1 if what == "eye1" else 2
        begin_us, end_us = self._us + 1, self._us + 1 + us
        before = lane.has_servo_power, lane.is_estop_open, lane.is_belt_on, lane.eyes[eye - 1].blocked
        gate_level = what == "end_switch"
        change: dict[str, Callable[[bool, int], None]] = {
            "servo_power": lambda pulse, at_us: lane.change_servo_power(before[0] != pulse, at_us),
            "estop": lambda pulse, at_us: lane.change_estop(before[1] != pulse, at_us),
            "belt": lambda pulse, at_us: lane.change_belt(before[2] != pulse, at_us),
            "eye1": lambda pulse, at_us: lane.change_eye(1, before[3] != pulse, at_us),
            "eye2": lambda pulse, at_us: lane.change_eye(2, before[3] != pulse, at_us),
            "reset": lambda pulse, at_us: lane.change_reset(self._reset_button != pulse, at_us),
            "bypass": lambda pulse, at_us: lane.change_bypass(self._bypass != pulse, at_us),
        }
        for name in GATE_INPUTS:
            # In the tests, the end switch is on and the other inputs of the gate are off before the pulse.
            change[name] = lambda pulse, at_us: _gate_input(lane, what)(gate_level != pulse, at_us)
        change[what](True, begin_us)
        self.wait(us // 1000)
        change[what](False, end_us)
        self.wait(1)

    def set_servo_power(self, present: bool, lane: int = 1) -> None:
        self.board.lanes[lane - 1].change_servo_power(present, self._us)

    def set_gate_input(self, what: str, on: bool, lane: int = 1) -> None:
        _gate_input(self.board.lanes[lane - 1], what)(on, self._us)

    def pulse_us(self, lane: int = 1) -> int:
        return self.board.lanes[lane - 1].gate.pulse_us

    def is_relay_closed(self) -> bool:
        return self.lane.is_relay_closed(self._us)

    def watch_servo_levels(self) -> None:
        """The levels are always known."""

    def set_bypass(self, is_on: bool) -> None:
        self._bypass = is_on
        self.lane.change_bypass(is_on, self._us)

    def set_reset_button(self, is_pressed: bool) -> None:
        self._reset_button = is_pressed
        self.lane.change_reset(is_pressed, self._us)

    def plant_level(self, signal: str) -> bool:
        return self.lane.plant_signals()["valid" if signal == "result_valid" else signal]

    def is_lamp_lit(self, colour: str) -> bool:
        return self.lane.lamp == colour and not self.lane.is_lamp_dark(self._us)

    def solenoid_level(self) -> bool:
        return self.lane.gate.pulse_us == self.lane.settings.number("out_us")

    def swing_count(self) -> int:
        return self._swings

    def trigger_count(self) -> int:
        return self._triggers

    def close(self) -> None:
        """Nothing is left open."""


# The inputs of a gate, each with the level of its pin when the input is on.
GATE_INPUTS = {"end_switch": False, "chute_eye": False, "chute_full": True, "button": False}


def _gate_input(lane: BoardLane, what: str) -> Callable[[bool, int], None]:
    return {
        "end_switch": lane.change_gate_at_end,
        "chute_eye": lane.change_chute_eye,
        "chute_full": lane.change_chute_full,
        "button": lane.change_button,
    }[what]


def _whole_us(width_us: float) -> int:
    """Rounds the width of a pulse. The simulator reports a pulse that begins at once up to 0.6 us too long."""
    return round(width_us - 0.25)


class SimulatedRig:
    """Drives lane 1 of a board that runs in a process of its own."""

    def __init__(self, simulated: SimulatedBoard) -> None:
        self.simulated = simulated
        self.run = 0
        self._steps = 0
        self._phase = 0
        self._first_pulse = self._first_change = 0
        # The levels of the inputs of lane 1.
        self._levels = {
            "estop": False,
            "servo_power": True,
            "belt": False,
            "eye1": True,
            "eye2": True,
            "encoder_a": False,
            "encoder_b": False,
            "end_switch": False,
            "chute_eye": True,
            "chute_full": False,
            "button": True,
        }
        for lane in LANES:
            simulated.set_pin(lane.estop.port, False)
            simulated.set_pin(lane.servo_power.port, True)
            simulated.set_pin(lane.belt.port, False)
            for eye in (lane.eye1, lane.eye2):
                simulated.set_pin(eye.port, True)
            for what in GATE_INPUTS:
                simulated.set_pin(getattr(lane, what).port, self._levels[what])
        simulated.set_pin(LANE.encoder_a.port, False)
        simulated.set_pin(LANE.encoder_b.port, False)
        self._wait_for_boot()

    def _wait_for_boot(self) -> None:
        """Waits for BOOT, which the next `take_frames` returns, and sets the zero of time to the start of the board's clock."""
        reset_us = self.simulated.resets[-1].at_us if self.simulated.resets else 0.0
        self._deframer = Deframer("<!")
        self._frames: list[Frame] = []
        while not (sent := self.simulated.take_sent()):
            assert self.simulated.now_us < reset_us + (MAX_BOOT_LOADER_MS + START_MS) * 1000, "the board has not started"
            self.simulated.run_until(self.simulated.now_us + 5000)
        self._reset_us = max(reset_us, sent[0].at_us - BOOT_MS * 1000)
        self._frames += [frame for each in sent for frame in self._deframer.feed(each.data)]
        self.simulated.run_until(self._reset_us + START_MS * 1000)
        self._read_frames()
        self.run = int(next(frame.fields[1] for frame in self._frames if frame.name == "BOOT"))

    def send(self, data: bytes) -> None:
        self.simulated.send(data)

    def take_frames(self) -> list[Frame]:
        self._read_frames()
        frames, self._frames = self._frames, []
        return frames

    def _read_frames(self) -> None:
        for sent in self.simulated.take_sent():
            self._frames += self._deframer.feed(sent.data)

    def wait(self, ms: int) -> None:
        end_us = self.simulated.now_us + ms * 1000
        steps, self._steps = self._steps, 0
        for step in range(abs(steps)):
            # The edges come early in the interval, so that all later events see them. A millisecond holds 20 of them.
            self._turn_encoder(self.simulated.now_us + min(50, ms * 900 / abs(steps)) * (step + 1), 1 if steps > 0 else -1)
        self.simulated.run_until(end_us)

    def _turn_encoder(self, at_us: float, direction: int) -> None:
        self._phase = (self._phase + direction) % 4
        self.simulated.set_pin_at(at_us, LANE.encoder_a.port, self._phase in (1, 2))
        self.simulated.set_pin_at(at_us, LANE.encoder_b.port, self._phase in (2, 3))

    def now_ms(self) -> int:
        return round((self.simulated.now_us - self._reset_us) / 1000)

    def set_eye(self, which: int, blocked: bool) -> None:
        self._set_pin("eye1" if which == 1 else "eye2", not blocked)

    def add_steps(self, count: int) -> None:
        self._steps += count

    def set_estop(self, is_open: bool) -> None:
        self._set_pin("estop", is_open)

    def set_belt(self, runs: bool) -> None:
        self._set_pin("belt", not runs)

    def _set_pin(self, what: str, level: bool) -> None:
        self._levels[what] = level
        self.simulated.set_pin(getattr(LANE, what).port, level)

    def disturb(self, what: str, us: int) -> None:
        port = (inputs_of(LANE) | inputs_of(PLANT[0]))[what].port
        level = self._levels[what]
        now_us = self.simulated.now_us
        self.simulated.set_pin_at(now_us + 50, port, not level)
        self.simulated.set_pin_at(now_us + 50 + us, port, level)
        self.wait(us // 1000 + 1)

    def set_servo_power(self, present: bool, lane: int = 1) -> None:
        if lane == 1:
            self._set_pin("servo_power", present)
        else:
            self.simulated.set_pin(LANES[lane - 1].servo_power.port, present)

    def set_gate_input(self, what: str, on: bool, lane: int = 1) -> None:
        level = on == GATE_INPUTS[what]
        if lane == 1:
            self._set_pin(what, level)
        else:
            self.simulated.set_pin(getattr(LANES[lane - 1], what).port, level)

    def pulse_us(self, lane: int = 1) -> int:
        return _whole_us(self._widths(lane)[-1])

    def _widths(self, lane: int = 1) -> list[float]:
        return [pulse.width_us for pulse in self.simulated.pulses[self._first_pulse :] if pulse.compare == LANES[lane - 1].compare]

    def is_relay_closed(self) -> bool:
        return self.simulated.levels[LANE.relay.port]

    def watch_servo_levels(self) -> None:
        for pin in (LANE.servo, PLANT[0].reject):
            self.simulated.watch_pin(pin.port)

    def set_bypass(self, is_on: bool) -> None:
        self._levels["bypass"] = not is_on
        self.simulated.set_pin(PLANT[0].bypass.port, not is_on)

    def set_reset_button(self, is_pressed: bool) -> None:
        self._levels["reset"] = not is_pressed
        self.simulated.set_pin(PLANT[0].reset.port, not is_pressed)

    def plant_level(self, signal: str) -> bool:
        return self.simulated.levels.get(getattr(PLANT[0], signal).port, False)

    def is_lamp_lit(self, colour: str) -> bool:
        return self.simulated.levels[getattr(LANE, colour).port]

    def solenoid_level(self) -> bool:
        return self.simulated.levels.get(LANE.servo.port, False)

    def swing_count(self) -> int:
        widths = [_whole_us(width) for width in self._widths()]
        return sum(before == REST_US and after != REST_US for before, after in pairwise(widths))

    def trigger_count(self) -> int:
        return sum(change.level for change in self.simulated.changes[self._first_change :] if change.pin == LANE.trigger.port)

    def reset(self, cause: str) -> None:
        self.simulated.run_until(self.simulated.now_us + STORING_MS * 1000)
        self.reset_at_once(cause)

    def reset_at_once(self, cause: str) -> None:
        self.simulated.take_sent()
        self._first_pulse, self._first_change = len(self.simulated.pulses), len(self.simulated.changes)
        self._reset_now(cause)
        self._wait_for_boot()

    def _reset_now(self, cause: str) -> None:
        self.simulated.reset(cause)
        self.simulated.run_until(self.simulated.now_us + 100)

    def known_cause(self, cause: str) -> str:
        return cause

    def close(self) -> None:
        self.simulated.close()


class AvrRig(SimulatedRig):
    """The whole firmware in the AVR simulator, with an EEPROM of its own."""

    has_boot_loader = False

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="castline-avr-"))
        super().__init__(start_mega(toolchain.build_firmware(), self._folder / "eeprom", self.has_boot_loader))

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder)

    def jump(self, ms: int) -> None:
        """Lets a long time pass. The simulator needs about 5 s for a minute."""
        self.wait(ms)


class StockMegaRig(AvrRig):
    """A Mega as it is sold: its boot loader runs first after each reset and clears the causes of the reset."""

    has_boot_loader = True

    def _reset_now(self, cause: str) -> None:
        if cause != "watchdog":
            super()._reset_now(cause)
            return
        # The watchdog resets a board whose main loop has stood still for a while.
        before = len(self.simulated.resets)
        self.simulated.hang()
        while len(self.simulated.resets) == before:
            self.simulated.run_until(self.simulated.now_us + 10_000)

    def known_cause(self, cause: str) -> str:
        return cause if cause in ("power", "watchdog") else "unknown"


class CoreRig(SimulatedRig):
    """The portable core on this PC, with sanitizers."""

    def __init__(self) -> None:
        super().__init__(start_core())

    def jump(self, ms: int) -> None:
        """Lets a long time pass in few rounds of the main loop."""
        self.simulated.set_round_us(20_000)
        self.wait(ms)
        self.simulated.set_round_us(200)
