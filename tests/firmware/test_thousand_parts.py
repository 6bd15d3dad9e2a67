"""The whole firmware in the AVR simulator, at a line with 10 castings a second."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from firmware import toolchain
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.lane_settings import LaneSettings
from firmware.simulator.avr import SimulatedBoard, start_mega
from firmware.simulator.avr_line import AvrLine
from tests.firmware.line_host import LineHost, random_verdicts

pytestmark = pytest.mark.real

PARTS = 1000
FLASH, RAM = 262_144, 8192
SPEED_MM_S = 1000
GATE_MM = 20
BELT = Belt(speed_mm_s=SPEED_MM_S, eye_gap_mm=1000, blade_mm=66, servo_s=0.04)
FEED = CastingFeed(rate_per_s=10, jitter=0.2, least_gap_mm=75, seed=7, parts=PARTS)
SETTINGS = LaneSettings(
    {"step_um": SPEED_MM_S, "eye_gap_mm": 1000, "window_mm": 30, "spacing_mm": 66, "gate_mm": GATE_MM, "dwell_mm": 66, "servo_ms": 40}
)


def run_castings(mega: SimulatedBoard, parts: int) -> tuple[AvrLine, LineHost]:
    """Carries `parts` castings along the belt. Most of them get a verdict, after random delays and so in random order."""
    line = AvrLine(mega, Plant(BELT, FEED))
    host = LineHost(line, SETTINGS, random_verdicts(seed=3, silent_share=0.04, least_us=20_000, most_us=880_000))
    host.run_until(500_000)
    line.plant.is_feeding = True
    while len(line.plant.exits) < parts:
        host.run_for(100_000)
    host.run_for(1_500_000)
    return line, host


def test_a_thousand_castings_fall_on_the_right_side_and_the_pulses_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    elf = toolchain.build_firmware()
    with start_mega(elf) as mega:
        mega.record_all_pulses()
        line, host = run_castings(mega, PARTS)
        pulses = [pulse for pulse in mega.pulses if pulse.compare == "4A" and pulse.at_us > 500_000]
        resets = len(mega.resets)

    # Every casting was counted and decided once, and fell as its verdict says. A casting without verdict was diverted.
    reports = host.gates_by_part()
    assert sorted(reports) == list(range(1, PARTS + 1))
    assert [casting.counted for casting in line.plant.exits] == list(range(1, PARTS + 1))
    assert [casting for casting in line.plant.exits if casting.struck] == []
    silent = 0
    for casting in line.plant.exits:
        verdict, report = host.verdict_of(casting.counted), reports[casting.counted]
        silent += verdict is None
        expected = "diverted" if verdict is None or verdict[0] == "divert" else "passed"
        assert casting.side == expected, (casting, report)
        assert report["reason"] == ("no-verdict" if verdict is None else "verdict")
    assert resets == 0
    assert host.faults == {}

    # The servo left its rest position once for each report that says so.
    widths = [pulse.width_us for pulse in pulses]
    departures = [after for before, after in pairwise(pulses) if round(before.width_us) == 1000 and round(after.width_us) == 2000]
    moved = [part for part in range(1, PARTS + 1) if reports[part]["moved"]]
    assert len(departures) == len(moved)

    # The time of each pulse is compared with the place of its casting.
    late_us = [
        departure.at_us - line.belt.eye2_us[part - 1] - GATE_MM * 1e6 / SPEED_MM_S
        for part, departure in zip(moved, departures, strict=True)
    ]
    jitter_us = max(late_us) - min(late_us)
    worst_us = max(min(abs(width - 1000), abs(width - 2000)) for width in widths)
    flash, ram = toolchain.memory_use(elf)
    with capsys.disabled():
        print(
            f"\n1,000 castings at 10 a second: {Counter(f.side for f in line.plant.exits)}, {silent} without verdict, {len(moved)} moves; "
            f"pulse within {worst_us:.3f} us; moment {min(late_us):.0f} to {max(late_us):.0f} us "
            f"after the part's, jitter {jitter_us:.0f} us; flash {flash} bytes ({flash / FLASH:.1%}), RAM {ram} bytes ({ram / RAM:.1%})"
        )
    assert worst_us <= 1
    assert jitter_us <= 1250
    assert min(late_us) >= 0
    assert flash <= FLASH / 2
    assert ram <= RAM * 3 / 4
