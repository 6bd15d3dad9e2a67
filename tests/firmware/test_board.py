"""Tests of the simulated board alone: its memory, its plant, and faults that tests cannot cause at other boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware.board.board import Board
from firmware.board.lane import MAX_PART
from firmware.board.memory import MAX_RUN, BoardMemory, FileBoardMemory
from firmware.board.plant import EYE1, EYE2, STEPS, Belt, CastingFeed, InputChange, Plant
from firmware.lane_settings import LaneSettings
from tests.firmware.protocol_host import ProtocolHost
from tests.firmware.rigs import PythonRig


def test_boots_are_counted_over_restarts(tmp_path: Path) -> None:
    file = tmp_path / "eeprom"
    assert [Board(FileBoardMemory(file)).run for _ in range(3)] == [1, 2, 3]


def test_the_boot_count_begins_again_after_its_last_number() -> None:
    memory = BoardMemory()
    memory.run = MAX_RUN
    assert memory.begin_run() == 1


def test_settings_are_kept_over_restarts_and_written_only_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "eeprom"
    memory, settings = FileBoardMemory(file), LaneSettings({"dwell_mm": 99})
    memory.store(2, settings)
    written = file.stat().st_mtime_ns
    memory.store(2, settings)
    assert file.stat().st_mtime_ns == written
    assert FileBoardMemory(file).settings == {2: settings}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "x", "settings": {}}', '{"run": 3, "settings": {"1": {"dwell_mm": 0}}}'])
def test_a_damaged_memory_is_a_fault_until_settings_are_committed(tmp_path: Path, text: str) -> None:
    file = tmp_path / "eeprom"
    file.write_text(text)
    host = ProtocolHost(PythonRig(FileBoardMemory(file)))
    assert not host.rig.is_relay_closed()
    host.greet()
    host.wait(100)
    assert [fault for fault in host.faults() if fault[0] == 51] == [(51, 1, 0), (51, 0, 0)]
    assert not FileBoardMemory(file).is_damaged


def test_when_part_numbers_are_used_up_the_gate_is_held() -> None:
    rig = PythonRig()
    host = ProtocolHost(rig)
    host.greet()
    rig.lane.tracker.count = MAX_PART - 1
    part, _ = host.count_part()
    assert part == MAX_PART
    host.wait(100)
    host.block(1)
    host.rig.wait(30)
    assert (50, 1, 0) in host.faults()
    assert host.error_code("CLEAR", 1, 50) == 13
    rig.reset("button")
    assert ProtocolHost(rig).greet()


# The simulated belt


def signals(plant: Plant, ms: int, pulse_us: int = 1000) -> list[InputChange]:
    found: list[InputChange] = []
    for _ in range(ms):
        found += plant.advance(plant.now_us + 1000, pulse_us, True)
    return found


def test_a_casting_blocks_each_eye_for_its_length() -> None:
    plant = Plant(Belt(speed_mm_s=500, eye_gap_mm=200, part_mm=20))
    plant.place_casting(-10)
    assert [(each.at_us, each.what, each.value) for each in signals(plant, 520)] == [
        (20_000, EYE1, 1),
        (60_000, EYE1, 0),
        (420_000, EYE2, 1),
        (460_000, EYE2, 0),
    ]


def test_castings_that_touch_are_one_to_an_eye() -> None:
    plant = Plant(Belt(speed_mm_s=500, eye_gap_mm=900, part_mm=20))
    plant.place_casting(-10)
    plant.place_casting(-30)
    assert [(each.at_us, each.value) for each in signals(plant, 200)] == [(20_000, 1), (100_000, 0)]


def test_a_casting_taken_off_before_an_eye_frees_it() -> None:
    plant = Plant(Belt(speed_mm_s=500, eye_gap_mm=900, part_mm=20))
    casting = plant.place_casting(-5)
    assert [each.value for each in signals(plant, 20)] == [1]
    plant.take_off(casting)
    assert [each.value for each in signals(plant, 20)] == [0]


def test_the_encoder_gives_as_many_edges_as_the_belt_has_travelled() -> None:
    plant = Plant(Belt(speed_mm_s=500, eye_gap_mm=200, part_mm=20, encoder_um=250))
    plant.place_casting(-10)
    found = signals(plant, 1000)
    assert sum(each.value for each in found if each.what == STEPS) == 2000
    assert sum(each.value for each in found[: [each.what for each in found].index(EYE1)] if each.what == STEPS) == 40


def test_the_gate_takes_its_time_and_strikes_what_is_before_it() -> None:
    belt = Belt(speed_mm_s=500, eye_gap_mm=100, blade_mm=60, part_mm=20, servo_s=0.08)
    plant = Plant(belt)
    plant.place_casting(150)
    signals(plant, 30)
    signals(plant, 200, pulse_us=2000)
    assert plant.angle == pytest.approx(1)
    assert [(casting.side, casting.struck) for casting in plant.exits] == [("passed", True)]


def test_a_standing_belt_carries_nothing() -> None:
    plant = Plant(Belt(), is_feeding=True)
    signals(plant, 500)
    before = [casting.lead_mm for casting in plant.castings]
    assert before
    assert plant.advance(plant.now_us + 1_000_000, 1000, False) == []
    assert [casting.lead_mm for casting in plant.castings] == before


def test_castings_come_at_their_rate_and_the_same_for_a_seed() -> None:
    def fed(seed: int) -> list[int]:
        plant = Plant(Belt(), CastingFeed(rate_per_s=5, jitter=0.5, seed=seed), is_feeding=True)
        return [each.at_us for each in signals(plant, 20_000) if each.what == EYE1 and each.value]

    assert fed(3) == fed(3) != fed(4)
    assert 80 <= len(fed(3)) <= 120


def test_more_castings_than_fit_on_the_belt_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 7.69 parts a second"):
        Plant(Belt(speed_mm_s=500), CastingFeed(rate_per_s=10))


def test_feeding_ends_after_the_number_asked_for() -> None:
    plant = Plant(Belt(), CastingFeed(rate_per_s=5, parts=7), is_feeding=True)
    signals(plant, 6000)
    assert (plant.fed, plant.has_fed_all) == (7, True)
