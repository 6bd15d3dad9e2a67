"""Disturbs the inputs, the serial line and the EEPROM of a board that runs the real firmware in the AVR simulator, and lets it wait.

`make campaign-noise` runs the long form and prints its counts. The tests run a short form of each part. The lists of inputs, settings and
bytes come from the tables of the firmware and from what the firmware itself writes.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from firmware import toolchain
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.lane_settings import TABLE, LaneSettings, SettingValue
from firmware.pins import LANES, PLANT, LanePins, Pin, PlantPins, inputs_of
from firmware.simulator.avr import SimulatedBoard, start_mega
from firmware.simulator.avr_line import AvrLine
from tests.firmware.line_host import DelayedVerdict, LineHost
from tests.firmware.rigs import AvrRig
from tests.firmware.test_firmware import StepHost
from tests.firmware.test_long_times import check_eyes_after_36_minutes

# Inputs that are low while nothing happens. All others have pull-ups and are high.
LOW_INPUTS = ("estop", "belt", "encoder_a", "encoder_b", "end_switch", "chute_full")
PULSES_US = (20, 50, 200, 1000, 5000)
# A belt on which a pulse of 5 ms is 1 mm of travel. The lane uses all of its inputs.
SLOW: dict[str, SettingValue] = {
    **{"step_um": 200, "eye_gap_mm": 300, "use_belt": 1, "use_servo_power": 1},
    **{"use_end_switch": 1, "chute_mm": 100, "chute_full_ms": 1, "use_button": 1, "safe": "stop"},
}
BELT = Belt(speed_mm_s=1000, eye_gap_mm=500, blade_mm=66, servo_s=0.04)
SETTINGS = LaneSettings(
    {"step_um": 1000, "eye_gap_mm": 500, "window_mm": 30, "spacing_mm": 66, "gate_mm": 20, "dwell_mm": 66, "servo_ms": 40}
)


@dataclass
class Findings:
    """What one part of the campaign has counted, and the sentences about what was wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def set_idle(mega: SimulatedBoard, pins: LanePins | PlantPins) -> None:
    """Sets the inputs of a lane or of a plant interface to the levels at which nothing happens."""
    for name, pin in inputs_of(pins).items():
        mega.set_pin(pin.port, isinstance(pins, PlantPins) or name not in LOW_INPUTS)


# Inputs


def disturb_inputs(lanes: Sequence[int], pulses: int, seed: int = 3) -> Findings:
    """Sends pulses to each input of the lanes and of their plant interfaces. No pulse is longer than 5 ms, so nothing may happen.

    The pulses come while the line runs, and while fault 45 waits for a person.
    """
    findings, chance = Findings({"inputs": 0, "pulses": 0}), random.Random(seed)
    for lane in lanes:
        plant = PLANT[lane - 1] if lane <= len(PLANT) else None
        inputs = inputs_of(LANES[lane - 1]) | (inputs_of(plant) if plant else {})
        findings.counts["inputs"] += len(inputs)
        with start_mega(toolchain.build_firmware()) as mega:
            for pins in LANES:
                set_idle(mega, pins)
            if plant:
                set_idle(mega, plant)
            host = StepHost(mega)
            host.ask("HELLO", 1)
            host.configure(lane, LaneSettings(SLOW | {"use_plant": int(plant is not None)}))
            host.wait(50)
            for state, code in (("running", "0"), ("safe", "45")):
                if code == "45":
                    _press_stop(host, LANES[lane - 1].estop)
                for name, pin in inputs.items():
                    happened = []
                    for us in PULSES_US:
                        findings.counts["pulses"] += pulses
                        idle = pin in (inputs_of(plant) if plant else {}).values() or name not in LOW_INPUTS
                        happened += _send_pulses(host, pin, idle, us, pulses, chance)
                    host.wait(60)
                    happened += _take_events(host)
                    seen = host.ask("STATUS", lane, "chute").fields[5]
                    if happened or seen != "0" or host.ask("STATUS", lane, "line").fields[1:3] != (state, code):
                        findings.wrong.append(f"lane {lane}, {state}, {name}: pulses of up to 5 ms caused {happened[:3]}, seen {seen}")
    return findings


def _press_stop(host: StepHost, estop: Pin) -> None:
    for is_open in (True, False):
        host.mega.set_pin(estop.port, is_open)
        host.wait(100)
    _take_events(host)


def _take_events(host: StepHost) -> list[str]:
    """Returns and acknowledges the events about parts, gates and faults since the last call."""
    events = [event for event in host.events if event.name in ("FAULT", "PART", "GATE")]
    host.events.clear()
    for event in events:
        if event.name != "PART":
            host.ask("ACK", event.fields[0])
    return [event.body for event in events]


def _send_pulses(host: StepHost, pin: Pin, idle: bool, us: int, count: int, chance: random.Random) -> list[str]:
    """Sends `count` pulses of `us` microseconds, and returns the events. Between two pulses the input rests for longer than a pulse."""
    at_us = host.mega.now_us + 100
    for _ in range(count):
        host.mega.set_pin_at(at_us, pin.port, not idle)
        host.mega.set_pin_at(at_us + us, pin.port, idle)
        at_us += us + chance.uniform(1.2, 3) * us
    host.wait((at_us - host.mega.now_us) / 1000)
    host.ask("PING", 0)
    return _take_events(host)


def bounce_at_edges(castings: int, seed: int = 4) -> Findings:
    """Lets castings pass whose edges bounce at both photo-eyes for up to 4 ms. Each must be one part that is seen again."""
    findings, chance = Findings({"castings with bounce": castings}), random.Random(seed)
    with start_mega(toolchain.build_firmware()) as mega:
        set_idle(mega, LANES[0])
        host = StepHost(mega)
        host.ask("HELLO", 1)
        host.configure(1, LaneSettings({"step_um": 1000, "eye_gap_mm": 100, "window_mm": 40, "debounce_us": 1000, "servo_ms": 20}))
        host.wait(50)
        for _ in range(castings):
            begin_us = mega.now_us + 1000
            for pin, at_us in ((LANES[0].eye1, begin_us), (LANES[0].eye2, begin_us + 100_000)):
                _bounce(mega, pin, at_us, False, chance)
                _bounce(mega, pin, at_us + 20_000, True, chance)
            host.wait(100)
            host.ask("PING", 0)
            host.wait(100)
            for event in [event for event in host.events if event.name == "GATE"]:
                host.ask("ACK", event.fields[0])
        count = [int(text) for text in host.ask("STATUS", 1, "count").fields[1:]]
        if (count[0], count[3], count[4]) != (castings, 0, 0):
            findings.wrong.append(f"{castings} castings with bounce gave {count[0]} parts, {count[3]} missing and {count[4]} unmatched")
    return findings


def _bounce(mega: SimulatedBoard, pin: Pin, at_us: float, level: bool, chance: random.Random) -> None:
    """Changes an input to `level`, after up to ten short changes within 4 ms."""
    for _ in range(chance.randrange(10)):
        mega.set_pin_at(at_us, pin.port, level)
        at_us += chance.uniform(20, 200)
        mega.set_pin_at(at_us, pin.port, not level)
        at_us += chance.uniform(20, 200)
    mega.set_pin_at(at_us, pin.port, level)


# The serial line


def damage_frames(frames: int, folder: Path, share: float = 1 / 1000, seed: int = 5) -> Findings:
    """Damages one of 1,000 bytes in both directions, until host and board have exchanged `frames` frames."""
    chance, passed = random.Random(seed), [0, 0]

    def damage(data: bytes) -> bytes:
        passed[0] += data.count(b"\n")
        hit = [chance.random() < share for _ in data]
        passed[1] += sum(hit)
        return bytes(byte ^ chance.randrange(1, 256) if is_hit else byte for byte, is_hit in zip(data, hit, strict=True))

    def verdict_of(part: int) -> DelayedVerdict | None:
        return None if part % 7 == 0 else ("divert" if part % 2 else "keep", 100_000)

    with start_mega(toolchain.build_firmware(), folder / "eeprom") as mega:
        line = AvrLine(mega, Plant(BELT, CastingFeed(rate_per_s=8, jitter=0.2, least_gap_mm=80, seed=seed)))
        host = LineHost(line, SETTINGS, verdict_of)
        host.run_until(600_000)
        host.damage = damage
        line.plant.is_feeding = True
        while passed[0] < frames:
            host.run_for(500_000)
        line.plant.is_feeding = False
        host.damage = lambda data: data
        host.run_for(3_000_000)
        reports = host.gates_by_part()
        exits = line.plant.exits
        wrong_side = [
            casting
            for casting in exits
            if casting.side != {"divert": "diverted", "pass": "passed"}[reports[casting.counted].word("action")]
        ]
        wrong_pass = [casting for casting in exits if casting.side == "passed" and not (casting.counted % 2 == 0 and casting.counted % 7)]
        swings = sum(gate.number("moved") for gate in host.gates.values())
        moved = _count_swings(mega)
    findings = Findings({"frames": passed[0], "damaged bytes": passed[1], "castings": len(exits), "reports": len(reports), "moves": moved})
    if lost := sorted(set(range(1, len(exits) + 1)) - set(reports)):
        findings.wrong.append(f"castings without a report: {lost}")
    if wrong_side or wrong_pass:
        findings.wrong.append(f"castings on the wrong side: {wrong_side[:3]} {wrong_pass[:3]}")
    if moved != swings:
        findings.wrong.append(f"the gate moved {moved} times, but the reports name {swings} moves")
    return findings


def _count_swings(mega: SimulatedBoard) -> int:
    widths = [round(pulse.width_us) for pulse in mega.pulses if pulse.compare == LANES[0].compare]
    return sum(before == 1000 and after == 2000 for before, after in pairwise(widths))


# The EEPROM


@dataclass
class StoredBoard:
    """The EEPROM of a board whose four lanes were configured, and what a sound board reads from it."""

    eeprom: bytes
    used: list[int]
    values: list[list[str]]
    defaults: list[list[str]]
    run: int


def _read_board(mega: SimulatedBoard) -> tuple[StepHost, int]:
    for pins in LANES:
        set_idle(mega, pins)
    host = StepHost(mega)
    return host, int(host.ask("HELLO", 1).fields[1])


def _settings_of(host: StepHost, lane: int) -> list[str]:
    return [host.ask("SHOW", lane, setting.key).fields[1] for setting in TABLE]


def store_board(folder: Path) -> StoredBoard:
    """Configures four lanes, one of them with a stored fault, and returns what the firmware has stored.

    The bytes that the firmware uses are those that two boards with different settings and faults have written.
    """
    used: set[int] = set()
    values: list[list[str]] = []
    for round_number in range(2):
        file = folder / f"stored-{round_number}"
        with start_mega(toolchain.build_firmware(), file) as mega:
            host, _ = _read_board(mega)
            for lane in range(1, 5):
                host.configure(lane, LaneSettings({"dwell_mm": 70 + lane + round_number, "step_um": 300 + round_number * 300}))
            host.wait(100)
            for pins in LANES[round_number:]:
                mega.set_pin(pins.estop.port, True)
            host.wait(100)
            host.ask("RAISE", 700 + round_number)
            host.wait(1500)
            values = [_settings_of(host, lane) for lane in range(1, 5)]
        stored = file.read_bytes()
        used |= {at for at, byte in enumerate(stored) if byte != 0xFF}
    defaults = [[str(setting.default) for setting in TABLE]] * 4
    return StoredBoard(stored, sorted(used), values, defaults, 701)


def damage_eeprom(folder: Path, every: int = 1) -> Findings:
    """Damages each byte that the firmware uses, or every `every`-th of them, in three ways, and starts a board with it.

    The settings of a lane must be the stored ones, or the defaults together with fault 51. A stored fault must still hold its lane.
    """
    stored = store_board(folder)
    findings = Findings({"bytes in use": len(stored.used), "boards started": 0, "damages repaired": 0, "damages reported": 0})
    for at in stored.used[::every]:
        for wrong in sorted({0x00, 0xFF, stored.eeprom[at] ^ 1 << at % 8} - {stored.eeprom[at]}):
            file = folder / "damaged"
            content = bytearray(stored.eeprom)
            content[at] = wrong
            file.write_bytes(content)
            findings.counts["boards started"] += 1
            with start_mega(toolchain.build_firmware(), file) as mega:
                host, run = _read_board(mega)
                lost = [lane for lane in range(1, 5) if _settings_of(host, lane) != stored.values[lane - 1]]
                foreign = [lane for lane in lost if _settings_of(host, lane) != stored.defaults[lane - 1]]
                codes = {lane: int(host.ask("STATUS", lane, "line").fields[2]) for lane in range(1, 5)}
                is_reported = any(host.ask("STATUS", lane, "line").fields[2] == "51" for lane in range(1, 5)) or 51 in _faults(host)
            findings.counts["damages reported" if lost else "damages repaired"] += 1
            where = f"byte {at}, {stored.eeprom[at]:#04x} read as {wrong:#04x}"
            if foreign:
                findings.wrong.append(f"{where}: lane {foreign} has settings that nobody stored")
            if lost and not is_reported:
                findings.wrong.append(f"{where}: lane {lost} has lost its settings without fault 51")
            if not stored.run <= run <= stored.run + 1:
                findings.wrong.append(f"{where}: the run is {run}")
            if released := [lane for lane in (2, 3, 4) if codes[lane] in (0, 51)]:
                findings.wrong.append(f"{where}: the stored fault of lane {released} is gone")
    return findings


def _faults(host: StepHost) -> set[int]:
    host.wait(100)
    return {int(event.fields[2]) for event in host.events if event.name == "FAULT" and event.fields[3] == "1"}


def wait_36_minutes() -> Findings:
    """Lets a board without settings wait for more than half the range of its microsecond counter."""
    findings = Findings({"wait": 1})
    with closing(AvrRig()) as rig:
        try:
            check_eyes_after_36_minutes(rig)
        except AssertionError as error:
            findings.wrong.append(f"the photo-eyes after 36 minutes: {error}")
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--pulses", type=int, default=40, help="pulses of each length at each input")
    parser.add_argument("--castings", type=int, default=300, help="castings whose edges bounce")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="castline-noise-") as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Findings]] = {
            "pulses at every input": lambda: disturb_inputs((1, 2, 3, 4), options.pulses),
            "bounce at the photo-eyes": lambda: bounce_at_edges(options.castings),
            "damaged bytes on the serial line": lambda: damage_frames(options.frames, folder),
            "damage at each byte of the EEPROM": lambda: damage_eeprom(folder),
            "a wait of 36 minutes": wait_36_minutes,
        }
        is_wrong = False
        for title, run_part in parts.items():
            findings = run_part()
            is_wrong |= bool(findings.wrong)
            counts = ", ".join(f"{count} {what}" for what, count in findings.counts.items())
            print("\n".join([f"{title}: {counts}", *findings.wrong]), flush=True)
    print("something is wrong" if is_wrong else "no wrong move, no lost report, no foreign setting")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
