"""The portable core on this PC: unit tests with sanitizers, how much they reach, and no sequence of castings that goes wrong."""

from __future__ import annotations

import json
import random
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware import toolchain
from firmware.board import lane_settings, words
from firmware.board.lane_settings import LaneSettings
from firmware.board.plant import Belt, Blade, Feed, Plant
from firmware.fault_table import error_codes
from firmware.pins import LANES
from firmware.simulator.avr import Simulated, core
from firmware.simulator.line import AvrLine
from tests.firmware.hosts import PacedHost, Verdict

pytestmark = pytest.mark.real

SOURCES = {path.name: path.read_text() for path in sorted(toolchain.SORTER.glob("*.*"))}
FAR = 3  # the lane whose servo moves the belt's second gate
BELT = Belt(speed_mm_s=1000, eye_gap_mm=600, blade_mm=66, servo_s=0.04, further=(Blade(FAR, blade_mm=266, servo_s=0.04),))
SETTINGS = LaneSettings(
    {"step_um": 1000, "eye_gap_mm": 600, "window_mm": 15, "spacing_mm": 66, "gate_mm": 20, "dwell_mm": 66, "servo_ms": 40, "lost_limit": 50}
)
FAR_SETTINGS = LaneSettings({"lane_of": 1, "gate_mm": 220, "dwell_mm": 66, "servo_ms": 40})
PART_MM = 20


def test_the_unit_tests_pass_under_the_address_and_undefined_behaviour_sanitizers() -> None:
    done = subprocess.run([toolchain.unit_tests()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) tests, (\d+) checks, 0 failed", done.stdout)
    assert found is not None
    assert int(found[1]) >= 25


# The core against the page's tables, as the Python side knows them


def words_of(name: str) -> tuple[str, ...]:
    """The words of a list in flash, over all the lines that its literal takes."""
    source = "\n".join(SOURCES.values())
    match = re.search(rf"{name}\[\] PROGMEM =\s*((?:\"[^\"]*\"\s*)+);", source)
    assert match is not None, name
    return tuple("".join(re.findall(r'"([^"]*)"', match[1])).split())


def test_the_words_of_the_core_are_those_of_the_protocol() -> None:
    assert words_of("kCommandNames") == tuple(words.COMMANDS)
    assert words_of("kEventNames") == tuple(words.EVENTS)
    assert words_of("kPageWords") == tuple(words.PAGES)
    for name, list_name in (
        ("reason", "kReasonWords"),
        ("told", "kToldWords"),
        ("verdict", "kVerdictWords"),
        ("cause", "kCauseWords"),
        ("state", "kStateWords"),
        ("lamp", "kLampWords"),
        ("position", "kPositionWords"),
        ("what", "kTestWords"),
    ):
        assert words_of(list_name) == words.WORDS[name], name
    assert set(words_of("kActionWords")) == set(words.WORDS["action"])


def test_the_fields_of_the_core_are_those_of_the_protocol() -> None:
    letters = {
        **{"version": "v", "lane": "l", "run": "r", "part": "p", "gate": "g", "event": "e", "token": "e", "host_ms": "m", "code": "c"},
        **{"key": "k", "value": "t", "verdict": "d", "page": "P", "what": "T"},
    }
    needs = {"": "-", "hello": "+", "commit": "*"}
    shapes = tuple("".join(letters[field] for field in fields) + needs[need] for fields, _, need in words.COMMANDS.values())
    assert words_of("kShapes") == shapes
    bounds = re.search(r"kNumberBounds\[\]\[2\] PROGMEM = \{(.*)\};", SOURCES["commands.cpp"])
    assert bounds is not None
    pairs = [tuple(int(each.strip("UL"), 0) for each in pair.split(", ")) for pair in re.findall(r"\{([^{}]+)\}", bounds[1])]
    by_letter = dict(zip(words_of("kNumberLetters"), pairs, strict=True))
    for field, letter in letters.items():
        if field in words.NUMBERS:
            assert by_letter[letter] == words.NUMBERS[field], field


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
    assert ["".join(word.capitalize() for word in names[code].split("-")) for code in range(40, 52)] == [name[1:] for name in faults]


def test_the_sketch_is_short_and_the_core_knows_no_arduino() -> None:
    assert len(SOURCES["sorter.ino"].splitlines()) <= 60
    for path in toolchain.core_sources():
        text = re.sub(r"//.*", "", path.read_text() + SOURCES.get(f"{path.stem}.h", ""))
        for word in ("Arduino.h", "digitalWrite", "millis(", "micros(", "delay(", "String ", "malloc", "new "):
            assert word not in text, (path.name, word)


# Whatever comes down the belt


class Sequence:
    """Castings by hand: how far behind the one before, what is told and when, and what befalls them on the way.

    What is told is `keep`, `divert` (at the belt's own gate) or `far` (at the further one).
    """

    def __init__(self, castings: list[tuple[int, str | None, int, str, int]], harm: float, seed: int) -> None:
        self.castings, self.harm, self.seed = castings, harm, seed

    def opinion(self, part: int) -> Verdict | None:
        _, verdict, delay_ms, _, _ = self.castings[part - 1]
        return None if verdict is None else (verdict, delay_ms * 1000)

    def gate(self, part: int) -> int:
        """The further gate that the part is to fall at, 0 for the belt's own or none."""
        return FAR if self.castings[part - 1][1] == "far" else 0


castings = st.tuples(
    st.integers(26, 200),
    st.sampled_from(["keep", "keep", "divert", "far", None]),
    st.one_of(st.integers(0, 300), st.integers(400, 900)),
    st.sampled_from(["arrives"] * 6 + ["taken off", "followed by a stranger"]),
    st.integers(60, 560),
)


def played(simulated: Simulated, sequence: Sequence) -> tuple[AvrLine, PacedHost]:
    """The whole way of all castings, over a wire that loses, doubles and damages."""
    chance = random.Random(sequence.seed)

    def harm(data: bytes) -> bytes:
        lines = []
        for line in data.splitlines(keepends=True):
            if chance.random() < sequence.harm / 2:
                continue
            if chance.random() < sequence.harm:
                at = chance.randrange(len(line))
                line = line[:at] + bytes([line[at] ^ 1 << chance.randrange(8)]) + line[at + 1 :]
            lines += [line] * (2 if chance.random() < sequence.harm else 1)
        return b"".join(lines)

    line = AvrLine(simulated, Plant(BELT, Feed(rate_per_s=1)))
    host = PacedHost(line, SETTINGS, sequence.opinion, grades={FAR: FAR_SETTINGS}, gates_by_word={"far": FAR})
    host.run_until(500_000)
    host.harm = harm
    at_mm, placed = -100.0, []
    for gap_mm, *_ in sequence.castings:
        placed.append(line.plant.place_casting(at_mm))
        at_mm -= gap_mm
    host.run_for(4000)
    ends_us = line.now_us + int(-at_mm + 1100) * 1000
    while line.now_us < ends_us:
        for (_, _, _, fate, fate_mm), casting in zip(sequence.castings, placed, strict=True):
            if casting in line.plant.castings and casting.lead_mm >= fate_mm > casting.lead_mm - 4:
                if fate == "taken off":
                    line.plant.take_off(casting)
                elif fate == "followed by a stranger" and fits(line.plant, casting.lead_mm - 40):
                    line.plant.place_casting(casting.lead_mm - 40)
        host.run_for(4000)
    host.harm = lambda data: data
    host.greet()
    host.run_for(1_500_000)
    return line, host


def fits(plant: Plant, lead_mm: float) -> bool:
    """Whether a casting can be put there, between the eyes and touching none."""
    return 30 < lead_mm < 580 and all(abs(lead_mm - other.lead_mm) > PART_MM + 5 for other in plant.castings)


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(castings, min_size=1, max_size=16), st.sampled_from([0.0, 0.05, 0.25]), st.integers(0, 2**16))
def test_no_part_is_diverted_wrongly_none_twice_none_late(
    sequence: list[tuple[int, str | None, int, str, int]], harm: float, seed: int
) -> None:
    wanted = Sequence(sequence, harm, seed)
    with core() as simulated:
        line, host = played(simulated, wanted)
    reports = host.by_part()
    counted = max((fallen.counted for fallen in line.plant.fallen), default=0)
    assert sorted(reports) == list(range(1, len(reports) + 1)), "each counted part has one report"
    assert counted <= len(reports)

    swings = sum(
        before == 1000 and after == 2000 for lane in (1, FAR) for before, after in pairwise(widths(simulated, LANES[lane - 1].compare))
    )
    assert sum(gate.number("moved") for gate in host.gates.values()) == swings
    assert [fallen for fallen in line.plant.fallen if fallen.struck] == []

    for fallen in line.plant.fallen:
        if not fallen.counted:
            continue  # a stranger
        report, verdict = reports[fallen.counted], sequence[fallen.counted - 1][1]
        assert fallen.side == {"divert": "diverted", "pass": "passed"}[report.word("action")], report
        assert fallen.gate == report.get("gate", 0)
        if report["reason"] == "verdict":
            assert fallen.side == ("passed" if verdict == "keep" else "diverted")
            assert fallen.gate == wanted.gate(fallen.counted)
        if report["reason"] == "no-verdict":
            assert fallen.side == "diverted"
            assert host.told.get(fallen.counted) in (None, "20"), "told in time, and not heeded"
        if fallen.side == "passed":
            assert verdict == "keep" or report["reason"] == "spacing"


def widths(simulated: Simulated, compare: str) -> list[int]:
    return [round(pulse.width_us) for pulse in simulated.pulses if pulse.compare == compare]


def reached(folder: Path) -> dict[str, dict[int, bool]]:
    """By source file of the core: which lines the programs that were built in `folder` have run."""
    lines: dict[str, dict[int, bool]] = {}
    for counts in folder.glob("*/*.gcda"):
        told = subprocess.run(
            ["gcov", "--json-format", "--stdout", counts.name], cwd=counts.parent, capture_output=True, text=True, check=True
        )
        for part in told.stdout.splitlines():
            for file in json.loads(part)["files"]:
                path = Path(file["file"])
                if path.parent == toolchain.SORTER:
                    known = lines.setdefault(path.name, {})
                    for line in file["lines"]:
                        known[line["line_number"]] = known.get(line["line_number"], False) or line["count"] > 0
    return lines


def tour(line: AvrLine, host: PacedHost) -> None:
    """Every command, rightly and wrongly, and every fault that a level at a pin makes."""
    asked: list[tuple[object, ...]] = [(name, *("1",) * len(fields)) for name, (fields, _, _) in words.COMMANDS.items()]
    asked += [("STATUS", lane, page) for lane in (0, 1, 7) for page in words.PAGES]
    asked += [("TEST", 1, token, what) for token, what in enumerate(words.WORDS["what"])]
    asked += [("SHOW", 1, key) for key in ("safe", "step_um", "nothing")] + [
        ("CLEAR", lane, code) for lane in (0, 1) for code in range(40, 52)
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
    host.opinion = lambda part: None
    for each in (SETTINGS, LaneSettings(SETTINGS.values | {"encoder": 1, "use_servo_power": 1, "safe": "stop", "no_verdict": "stop"})):
        host.settings = each
        host.greet()
        host.run_for(500_000)
        for pin in (LANES[0].estop.port, LANES[0].eye1.port, LANES[0].eye2.port, LANES[0].servo_power.port):
            level = pin == LANES[0].estop.port
            line.simulated.pin(pin, level)
            host.run_for(1_500_000)
            line.simulated.pin(pin, not level)
            for code in range(40, 52):
                host.ask("CLEAR", 1, code)
            host.run_for(300_000)


def test_how_much_of_the_core_these_tests_reach(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    unit_tests, pc_board = toolchain.for_coverage(tmp_path)
    subprocess.run([unit_tests], check=True, capture_output=True)
    fates = ("arrives", "arrives", "taken off", "arrives", "followed by a stranger")
    gaps = [(40 + 17 * n % 150, ("keep", "divert", "far", None)[n % 4], 37 * n % 600, fates[n % 5], 300) for n in range(40)]
    with Simulated([str(pc_board), "0"]) as simulated:
        line, host = played(simulated, Sequence(gaps, 0.05, 3))
        tour(line, host)
    lines = reached(tmp_path)
    assert {path.name for path in toolchain.core_sources()} <= set(lines)
    share = {name: sum(each.values()) / len(each) for name, each in lines.items()}
    total = sum(sum(each.values()) for each in lines.values()) / sum(len(each) for each in lines.values())
    with capsys.disabled():
        print(f"\nlines of the core reached by its unit tests, one sequence and a tour of the words: {total:.1%}")
        print("  " + ", ".join(f"{name} {part:.0%}" for name, part in sorted(share.items())))
    assert total > 0.8
