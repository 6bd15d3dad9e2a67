"""Short forms of `make campaign-noise`: disturbed inputs, damaged bytes on the serial line, and damaged bytes of the EEPROM."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware.lane_settings import TABLE
from tests.firmware.test_eeprom import EEPROM_BYTES, image, started
from tests.gate_noise import bounce_at_edges, damage_eeprom, damage_frames, disturb_inputs

pytestmark = pytest.mark.real


def test_short_pulses_at_every_input_of_a_lane_change_nothing() -> None:
    assert disturb_inputs((2,), pulses=40).wrong == []


def test_castings_whose_edges_bounce_are_counted_once() -> None:
    assert bounce_at_edges(castings=30).wrong == []


def test_one_wrong_byte_in_a_thousand_loses_no_report_and_moves_nothing_wrongly(tmp_path: Path) -> None:
    assert damage_frames(600, tmp_path).wrong == []


def test_damaged_bytes_of_the_eeprom_are_reported_or_repaired(tmp_path: Path) -> None:
    assert damage_eeprom(tmp_path, every=30).wrong == []


@pytest.mark.parametrize("lane", [1, 4])
def test_damage_at_each_byte_of_the_second_area_is_reported(tmp_path: Path, lane: int) -> None:
    """The settings of a lane have 64 bytes from byte 16 on, and 64 bytes from byte 512 on. A firmware with 62 settings uses them all."""
    stored = image(62, 62, dwell_mm=77)
    first, second = 16 + 64 * (lane - 1), 512 + 64 * (lane - 1)
    for at in (None, *range(64, len(stored))):
        content = bytearray(stored)
        if at is not None:
            content[at] ^= 1 << at % 8
        eeprom = bytearray(b"\xff" * EEPROM_BYTES)
        eeprom[first : first + 64] = content[:64]
        eeprom[second : second + len(content) - 64] = content[64:]
        with started(tmp_path, eeprom) as mega:
            values = [mega.ask("SHOW", lane, setting.key).fields[1] for setting in TABLE[:10]]
            is_damaged = mega.ask("STATUS", lane, "line").fields[2] == "51"
            assert is_damaged == (at is not None), at
            assert values == [str(77 if at is None and setting.key == "dwell_mm" else setting.default) for setting in TABLE[:10]], at
