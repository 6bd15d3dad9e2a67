"""The Mega's firmware, and its portable core, as boards for the conformance suite of tests/agents/gate."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from firmware import toolchain
from firmware.board.frames import Deframer, Frame
from firmware.pins import LANES
from firmware.simulator.avr import Simulated, core, stepped

LANE = LANES[0]
REST_US = 1000  # the tests leave it at its default
STORING_MS = 250  # 51 bytes of EEPROM at 3.3 ms each, and some
START_MS = 60.0  # by then the Mega has started and said BOOT


class SimulatedRig:
    """A `Rig` of tests/agents/gate/rig.py over a simulated board; lane 1."""

    def __init__(self, simulated: Simulated) -> None:
        self.simulated = simulated
        self.run = 0
        self._steps = 0
        self._phase = 0
        self._first_pulse = self._first_change = 0
        for lane in LANES:
            simulated.pin(lane.estop.port, False)
            simulated.pin(lane.servo_power.port, True)
            for eye in (lane.eye1, lane.eye2):
                simulated.pin(eye.port, True)
        simulated.pin(LANE.encoder_a.port, False)
        simulated.pin(LANE.encoder_b.port, False)
        self._started()

    def _started(self) -> None:
        """Waits for BOOT, which is left to be taken, and counts time from the reset on."""
        self._reset_us = self.simulated.resets[-1].at_us if self.simulated.resets else 0.0
        self._deframer = Deframer("<!")
        self._frames: list[Frame] = []
        self.wait(round(START_MS))
        self._collect()
        self.run = int(next(frame.fields[1] for frame in self._frames if frame.name == "BOOT"))

    def send(self, data: bytes) -> None:
        self.simulated.send(data)

    def take(self) -> list[Frame]:
        self._collect()
        frames, self._frames = self._frames, []
        return frames

    def _collect(self) -> None:
        for said in self.simulated.take():
            self._frames += self._deframer.feed(said.data)

    def wait(self, ms: int) -> None:
        until = self.simulated.now_us + ms * 1000
        steps, self._steps = self._steps, 0
        for step in range(abs(steps)):
            # Early in the interval, so that what comes after it sees them all; a millisecond holds 20 of them.
            self._turn(self.simulated.now_us + min(50, ms * 900 / abs(steps)) * (step + 1), 1 if steps > 0 else -1)
        self.simulated.run_until(until)

    def _turn(self, at_us: float, direction: int) -> None:
        self._phase = (self._phase + direction) % 4
        self.simulated.pin_at(at_us, LANE.encoder_a.port, self._phase in (1, 2))
        self.simulated.pin_at(at_us, LANE.encoder_b.port, self._phase in (2, 3))

    def now_ms(self) -> int:
        return round((self.simulated.now_us - self._reset_us) / 1000)

    def eye(self, which: int, blocked: bool) -> None:
        self.simulated.pin((LANE.eye1 if which == 1 else LANE.eye2).port, not blocked)

    def steps(self, count: int) -> None:
        self._steps += count

    def estop(self, is_open: bool) -> None:
        self.simulated.pin(LANE.estop.port, is_open)

    def servo_power(self, present: bool, lane: int = 1) -> None:
        self.simulated.pin(LANES[lane - 1].servo_power.port, present)

    def pulse_us(self, lane: int = 1) -> int:
        return round(self._widths(lane)[-1])

    def _widths(self, lane: int = 1) -> list[float]:
        return [pulse.width_us for pulse in self.simulated.pulses[self._first_pulse :] if pulse.compare == LANES[lane - 1].compare]

    def relay_closed(self) -> bool:
        return self.simulated.levels[LANE.relay.port]

    def swings(self) -> int:
        widths = [round(width) for width in self._widths()]
        return sum(before == REST_US and after != REST_US for before, after in pairwise(widths))

    def triggers(self) -> int:
        return sum(change.level for change in self.simulated.changes[self._first_change :] if change.pin == LANE.trigger.port)

    def reset(self, cause: str) -> None:
        self.simulated.run_until(self.simulated.now_us + STORING_MS * 1000)
        self.simulated.take()
        self._first_pulse, self._first_change = len(self.simulated.pulses), len(self.simulated.changes)
        self.simulated.reset(cause)
        self.simulated.run_until(self.simulated.now_us + 100)
        self._started()

    def close(self) -> None:
        self.simulated.close()


class AvrRig(SimulatedRig):
    """The whole firmware in the AVR simulator, with an EEPROM of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="castline-avr-"))
        super().__init__(stepped(toolchain.firmware(), self._folder / "eeprom"))

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._folder)


class CoreRig(SimulatedRig):
    """The portable core on this PC, with sanitizers."""

    def __init__(self) -> None:
        super().__init__(core())
