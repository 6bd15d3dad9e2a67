"""The firmware's portable core on this PC: unit tests with sanitizers, their coverage, and random sequences of castings."""

from __future__ import annotations

import json
import random
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware import lane_settings, protocol, toolchain
from firmware.board.plant import Belt, BeltCasting, Blade, CastingFeed, Plant
from firmware.fault_table import error_codes
from firmware.lane_settings import LaneSettings
from firmware.pins import LANES, PLANT
from firmware.simulator.avr import SimulatedBoard, start_core
from firmware.simulator.avr_line import AvrLine
from tests.firmware.line_host import DelayedVerdict, LineHost

SOURCES = {path.name: path.read_text() for path in sorted(toolchain.SORTER.glob("*.*"))}
# The lane whose servo moves the belt's second gate.
SECOND_GATE = 3
BELT = Belt(speed_mm_s=1000, eye_gap_mm=600, blade_mm=66, servo_s=0.04, further=(Blade(SECOND_GATE, blade_mm=266, servo_s=0.04),))
SETTINGS = LaneSettings(
    {"step_um": 1000, "eye_gap_mm": 600, "window_mm": 15, "spacing_mm": 66, "gate_mm": 20, "dwell_mm": 66, "servo_ms": 40, "lost_limit": 50}
)
SECOND_SETTINGS = LaneSettings({"lane_of": 1, "gate_mm": 220, "dwell_mm": 66, "servo_ms": 40})
PART_MM = 20


@pytest.mark.real
def test_the_unit_tests_pass_under_the_address_and_undefined_behaviour_sanitizers() -> None:
    done = subprocess.run([toolchain.build_unit_tests()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) tests, (\d+) checks, 0 failed", done.stdout)
    assert found is not None
    assert int(found[1]) >= 25


# The words and bounds of the core are those of firmware/PROTOCOL.md


def words_of(name: str) -> tuple[str, ...]:
    """Returns the words of a list in flash, whose literal may take several lines."""
    source = "\n".join(SOURCES.values())
    match = re.search(rf"{name}\[\] PROGMEM =\s*((?:\"[^\"]*\"\s*)+);", source)
    assert match is not None, name
    return tuple("".join(re.findall(r'"([^"]*)"', match[1])).split())


def test_the_words_of_the_core_are_those_of_the_protocol() -> None:
    assert words_of("kCommandNames") == tuple(protocol.COMMANDS)
    assert words_of("kEventNames") == tuple(protocol.EVENTS)
    assert words_of("kPageWords") == tuple(protocol.PAGES)
    for name, list_name in (
        ("reason", "kReasonWords"),
        ("told", "kToldWords"),
        ("verdict", "kVerdictWords"),
        ("cause", "kCauseWords"),
        ("state", "kStateWords"),
        ("lamp", "kLampWords"),
        ("position", "kPositionWords"),
        ("what", "kTestWords"),
        ("warning", "kWarningWords"),
    ):
        assert words_of(list_name) == protocol.WORDS[name], name
    assert set(words_of("kActionWords")) == set(protocol.WORDS["action"])


def test_the_fields_of_the_core_are_those_of_the_protocol() -> None:
    letters = {
        **{"version": "v", "lane": "l", "run": "r", "part": "p", "gate": "g", "event": "e", "token": "e", "host_ms": "m", "code": "c"},
        **{"servo_us": "u", "key": "k", "value": "t", "verdict": "d", "page": "P", "what": "T"},
    }
    needs = {"": "-", "hello": "+", "commit": "*"}
    shapes = tuple("".join(letters[field] for field in fields) + needs[need] for fields, _, need in protocol.COMMANDS.values())
    assert words_of("kShapes") == shapes
    bounds = re.search(r"kNumberBounds\[\]\[2\] PROGMEM = \{(.*)\};", SOURCES["commands.cpp"])
    assert bounds is not None
    pairs = [tuple(int(each.strip("UL"), 0) for each in pair.split(", ")) for pair in re.findall(r"\{([^{}]+)\}", bounds[1])]
    by_letter = dict(zip(words_of("kNumberLetters"), pairs, strict=True))
    for field, letter in letters.items():
        if field in protocol.NUMBERS:
            assert by_letter[letter] == protocol.NUMBERS[field], field


def test_the_settings_of_the_core_are_those_of_the_protocol() -> None:
    assert words_of("kKeyWords") == tuple(setting.key for setting in lane_settings.TABLE)
    rows = re.findall(r"\{(\w+), (\w+), (\w+)\},\s+// (\w+)", SOURCES["settings.cpp"])
    assert len(rows) == len(lane_settings.TABLE)
    for (least, most, default, key), setting in zip(rows, lane_settings.TABLE, strict=True):
        assert key == setting.key
        if setting.unit == "word":
            assert (least, most, default) == ("kWordMark", "kStop", f"k{str(setting.default).capitalize()}")
        else:
            assert (int(least), int(most), int(default)) == (setting.least, setting.most, setting.default), key


def test_the_codes_of_the_core_are_those_of_the_table() -> None:
    names = {code.code: code.name for code in error_codes().values()}
    assert words_of("kErrorWords")[1:] == tuple(names[code] for code in range(1, 14))
    assert words_of("kPartErrorWords") == tuple(names[code] for code in range(20, 24))
    listed = re.search(r"enum Fault : uint8_t \{([^}]*)\}", SOURCES["faults.h"])
    assert listed is not None
    faults = [name.split("=")[0].strip() for name in listed[1].split(",")]
    codes = sorted(code.code for code in error_codes().values() if code.kind == "fault")
    assert ["".join(word.capitalize() for word in names[code].split("-")) for code in codes] == [name[1:] for name in faults]


def test_the_sketch_is_short_and_the_core_knows_no_arduino() -> None:
    assert len(SOURCES["sorter.ino"].splitlines()) <= 60
    for path in toolchain.core_sources():
        text = re.sub(r"//.*", "", path.read_text() + SOURCES.get(f"{path.stem}.h", ""))
        for word in ("Arduino.h", "digitalWrite", "millis(", "micros(", "delay(", "String ", "malloc", "new "):
            assert word not in text, (path.name, word)


# Random sequences of castings


class CastingSequence:
    """A sequence of castings. Each has its distance to the casting before, its verdict, the verdict's delay in ms, an event and its place.

    A verdict is `keep`, `divert` (at the belt's own gate) or `second` (at the additional gate).
    """

    def __init__(self, castings: list[tuple[int, str | None, int, str, int]], error_rate: float, seed: int) -> None:
        self.castings, self.error_rate = castings, error_rate
        self._chance = random.Random(seed)

    def verdict_of(self, part: int) -> DelayedVerdict | None:
        _, verdict, delay_ms, _, _ = self.castings[part - 1]
        return None if verdict is None else (verdict, delay_ms * 1000)

    def gate_of(self, part: int) -> int:
        """Returns the additional gate at which the part must fall, 0 for the belt's own gate or none."""
        return SECOND_GATE if self.castings[part - 1][1] == "second" else 0

    def damage(self, data: bytes) -> bytes:
        """Loses, damages and repeats lines at random, like a bad wire."""
        lines = []
        for line in data.splitlines(keepends=True):
            if self._chance.random() < self.error_rate / 2:
                continue
            if self._chance.random() < self.error_rate:
                at = self._chance.randrange(len(line))
                line = line[:at] + bytes([line[at] ^ 1 << self._chance.randrange(8)]) + line[at + 1 :]
            lines += [line] * (2 if self._chance.random() < self.error_rate else 1)
        return b"".join(lines)


castings = st.tuples(
    st.integers(26, 200),
    st.sampled_from(["keep", "keep", "divert", "second", None]),
    st.one_of(st.integers(0, 300), st.integers(400, 900)),
    st.sampled_from(["none"] * 6 + ["taken off", "followed by an uncounted casting"]),
    st.integers(60, 560),
)


def run_sequence(board: SimulatedBoard, sequence: CastingSequence) -> tuple[AvrLine, LineHost]:
    """Carries all castings along the belt, over a bad wire."""
    line = AvrLine(board, Plant(BELT, CastingFeed(rate_per_s=1)))
    host = LineHost(line, SETTINGS, sequence.verdict_of, grades={SECOND_GATE: SECOND_SETTINGS}, further_gates={"second": SECOND_GATE})
    host.run_until(500_000)
    host.damage = sequence.damage
    at_mm, placed = -100.0, []
    for gap_mm, *_ in sequence.castings:
        placed.append(line.plant.place_casting(at_mm))
        at_mm -= gap_mm
    host.run_for(4000)
    belt_empty_us = line.now_us + int(-at_mm + 1100) * 1000
    while line.now_us < belt_empty_us:
        for (_, _, _, event, event_mm), casting in zip(sequence.castings, placed, strict=True):
            let_happen(line.plant, event, event_mm, casting)
        host.run_for(4000)
    host.damage = lambda data: data
    host.greet()
    host.run_for(1_500_000)
    return line, host


def let_happen(plant: Plant, event: str, event_mm: int, casting: BeltCasting) -> None:
    """Lets the event happen when the casting is at its place."""
    if casting not in plant.castings or not casting.lead_mm >= event_mm > casting.lead_mm - 4:
        return
    if event == "taken off":
        plant.take_off(casting)
    elif event == "followed by an uncounted casting" and has_room(plant, casting.lead_mm - 40):
        plant.place_casting(casting.lead_mm - 40)


def has_room(plant: Plant, lead_mm: float) -> bool:
    """Returns whether a casting can be put between the eyes at `lead_mm` without touching another one."""
    return 30 < lead_mm < 580 and all(abs(lead_mm - other.lead_mm) > PART_MM + 5 for other in plant.castings)


@pytest.mark.real
@settings(max_examples=16)
@given(st.lists(castings, min_size=1, max_size=16), st.sampled_from([0.0, 0.05, 0.25]), st.integers(0, 2**16))
def test_no_part_is_diverted_wrongly_twice_or_late(
    planned: list[tuple[int, str | None, int, str, int]], error_rate: float, seed: int
) -> None:
    sequence = CastingSequence(planned, error_rate, seed)
    with start_core() as simulated:
        line, host = run_sequence(simulated, sequence)
    reports = host.gates_by_part()
    counted = max((casting.counted for casting in line.plant.exits), default=0)
    assert sorted(reports) == list(range(1, len(reports) + 1)), "each counted part has one report"
    assert counted <= len(reports)

    swings = 0
    for lane in (1, SECOND_GATE):
        pulses = pairwise(widths(simulated, LANES[lane - 1].compare))
        swings += sum(before == 1000 and after == 2000 for before, after in pulses)
    assert sum(gate.number("moved") for gate in host.gates.values()) == swings
    assert [casting for casting in line.plant.exits if casting.struck] == []

    for casting in line.plant.exits:
        if not casting.counted:
            continue
        report, verdict = reports[casting.counted], planned[casting.counted - 1][1]
        assert casting.side == {"divert": "diverted", "pass": "passed"}[report.word("action")], report
        assert casting.gate == report.get("gate", 0)
        if report["reason"] == "verdict":
            assert casting.side == ("passed" if verdict == "keep" else "diverted")
            assert casting.gate == sequence.gate_of(casting.counted)
        if report["reason"] == "no-verdict":
            assert casting.side == "diverted"
            assert host.verdict_answers.get(casting.counted) in (None, "20"), "the verdict was in time and was ignored"
        if casting.side == "passed":
            assert verdict == "keep" or report["reason"] == "spacing"


def widths(simulated: SimulatedBoard, compare: str) -> list[int]:
    return [round(pulse.width_us) for pulse in simulated.pulses if pulse.compare == compare]


def covered_lines(folder: Path) -> dict[str, dict[int, bool]]:
    """Returns by source file and line of the core whether the programs in `folder` have executed the line."""
    lines: dict[str, dict[int, bool]] = {}
    for counts in folder.glob("*/*.gcda"):
        report = subprocess.run(
            ["gcov", "--json-format", "--stdout", counts.name], cwd=counts.parent, capture_output=True, text=True, check=True
        )
        for line_of_json in report.stdout.splitlines():
            for file in json.loads(line_of_json)["files"]:
                path = Path(file["file"])
                if path.parent == toolchain.SORTER:
                    known = lines.setdefault(path.name, {})
                    for line in file["lines"]:
                        known[line["line_number"]] = known.get(line["line_number"], False) or line["count"] > 0
    return lines


def use_plant_interface(line: AvrLine, host: LineHost) -> None:
    """Turns the bypass key and presses the reset button of the plant interface, while a fault sounds the buzzer."""
    host.settings = LaneSettings(SETTINGS.values | {"use_plant": 1, "use_solenoid": 1, "reject_limit": 1})
    host.greet()
    host.run_for(500_000)
    for pin in (PLANT[0].bypass.port, LANES[0].estop.port, PLANT[0].reset.port):
        line.board.set_pin(pin, pin == LANES[0].estop.port)
        host.run_for(1_500_000)
        host.ask("STATUS", 1, "plant")
        line.board.set_pin(pin, pin != LANES[0].estop.port)
        host.run_for(300_000)


def send_every_command(line: AvrLine, host: LineHost) -> None:
    """Sends every command with right and wrong fields, and causes every fault that an input pin can cause."""
    asked: list[tuple[object, ...]] = [(name, *("1",) * len(fields)) for name, (fields, _, _) in protocol.COMMANDS.items()]
    asked += [("STATUS", lane, page) for lane in (0, 1, 7) for page in protocol.PAGES]
    asked += [("TEST", 1, token, what) for token, what in enumerate(protocol.WORDS["what"])]
    asked += [("SHOW", 1, key) for key in ("safe", "step_um", "nothing")] + [
        ("CLEAR", lane, code) for lane in (0, 1) for code in range(40, 60)
    ]
    asked += [
        ("VERDICT", lane, 1, part, word, gate)
        for lane in (1, 2)
        for part in (1, 9999)
        for word, gate in (("keep", 0), ("divert", 1), ("divert", 3), ("keep", 2))
    ]
    asked += [("CANCEL", 1, run, part) for run in (1, 2) for part in (1, 9999)] + [("SEEN", 1, run, 1) for run in (1, 2)]
    asked += [("CONFIGURE", 1, *pair) for pair in (("lane_of", 2), ("lane_of", 0), ("rest_us", 2000), ("rest_us", 1), ("x", 1))] + [
        ("COMMIT", 1)
    ]
    for name, *fields in asked:
        host.ask(str(name), *fields)
        host.run_for(20_000)
    host.run_for(4_000_000)
    host.verdict_of = lambda part: None
    for each in (SETTINGS, LaneSettings(SETTINGS.values | {"encoder": 1, "use_servo_power": 1, "safe": "stop", "no_verdict": "stop"})):
        host.settings = each
        host.greet()
        host.run_for(500_000)
        for pin in (LANES[0].estop.port, LANES[0].eye1.port, LANES[0].eye2.port, LANES[0].servo_power.port):
            level = pin == LANES[0].estop.port
            line.board.set_pin(pin, level)
            host.run_for(1_500_000)
            line.board.set_pin(pin, not level)
            for code in range(40, 60):
                host.ask("CLEAR", 1, code)
            host.run_for(300_000)
    use_plant_interface(line, host)


@pytest.mark.real
def test_most_of_the_core_is_covered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    unit_tests, pc_board = toolchain.build_for_coverage(tmp_path)
    subprocess.run([unit_tests], check=True, capture_output=True)
    events = ("none", "none", "taken off", "none", "followed by an uncounted casting")
    gaps = [(40 + 17 * n % 150, ("keep", "divert", "second", None)[n % 4], 37 * n % 600, events[n % 5], 300) for n in range(40)]
    with SimulatedBoard([str(pc_board), "0"]) as simulated:
        line, host = run_sequence(simulated, CastingSequence(gaps, 0.05, 3))
        send_every_command(line, host)
    lines = covered_lines(tmp_path)
    assert {path.name for path in toolchain.core_sources()} <= set(lines)
    share = {name: sum(each.values()) / len(each) for name, each in lines.items()}
    total = sum(sum(each.values()) for each in lines.values()) / sum(len(each) for each in lines.values())
    with capsys.disabled():
        print(f"\nlines of the core reached by its unit tests, one sequence and every command: {total:.1%}")
        print("  " + ", ".join(f"{name} {part:.0%}" for name, part in sorted(share.items())))
    assert total > 0.8
