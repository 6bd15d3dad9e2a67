"""The EEPROM of the firmware: images of other releases, damage, and faults that must not get lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware import toolchain
from firmware.lane_settings import CHOICES, TABLE, SettingValue
from firmware.pins import LANES
from firmware.protocol import Deframer, Frame, crc16
from firmware.simulator.avr import SimulatedBoard, start_mega

pytestmark = pytest.mark.real

EEPROM_BYTES = 4096
# The number of settings of release 0.1.0, whose layout has the number 1.
FIRST_KEYS = 24
FAULTS_AT = 272
ESTOP = 45


def image(layout: int, keys: int, **values: SettingValue) -> bytes:
    """Returns the stored settings of one lane. Settings that this firmware does not know have the value 7."""
    numbers = []
    for index in range(keys):
        value = values.get(TABLE[index].key, TABLE[index].default) if index < len(TABLE) else 7
        numbers.append(1 + CHOICES.index(value) if isinstance(value, str) else value)
    content = bytes([layout]) + b"".join(number.to_bytes(2, "little") for number in numbers)
    return content + crc16(content).to_bytes(2, "little")


def eeprom_with(content: bytes | bytearray, at: int = 16) -> bytearray:
    eeprom = bytearray(b"\xff" * EEPROM_BYTES)
    eeprom[at : at + len(content)] = content
    return eeprom


class Mega:
    """A Mega that has started with the given EEPROM."""

    def __init__(self, board: SimulatedBoard) -> None:
        self.board = board
        self._deframer = Deframer("<!")
        for lane in LANES:
            board.set_pin(lane.estop.port, False)
        board.run_until(60_000)
        board.take_sent()

    def ask(self, name: str, *fields: object) -> Frame:
        self.board.send(Frame(">", 7, name, tuple(str(field) for field in fields)).encode())
        for _ in range(60):
            self.board.run_until(self.board.now_us + 1000)
            for sent in self.board.take_sent():
                for frame in self._deframer.feed(sent.data):
                    if frame.start == "<":
                        return frame
        raise AssertionError(f"no answer to {name} {fields}")

    def value(self, key: str) -> str:
        return self.ask("SHOW", 1, key).fields[1]

    def state(self) -> tuple[str, ...]:
        return self.ask("STATUS", 1, "line").fields[1:3]


@contextmanager
def started(tmp_path: Path, eeprom: bytes | bytearray) -> Iterator[Mega]:
    file = tmp_path / "eeprom"
    file.write_bytes(eeprom)
    with start_mega(toolchain.build_firmware(), file) as board:
        mega = Mega(board)
        mega.ask("HELLO", 1)
        yield mega


def test_settings_that_release_0_1_0_stored_are_kept(tmp_path: Path) -> None:
    with started(tmp_path, eeprom_with(image(1, FIRST_KEYS, dwell_mm=77, safe="pass"))) as mega:
        assert (mega.value("dwell_mm"), mega.value("safe"), mega.value("autostart")) == ("77", "pass", "1")
        assert mega.state() == ("waiting", "0"), "fault 51 would say that the settings are damaged"


def test_settings_of_a_newer_firmware_are_kept_as_far_as_they_are_known(tmp_path: Path) -> None:
    with started(tmp_path, eeprom_with(image(30, 30, dwell_mm=77, autostart=0))) as mega:
        assert (mega.value("dwell_mm"), mega.value("autostart")) == ("77", "0")
        assert mega.state() == ("waiting", "0")


@pytest.mark.parametrize("layout", [0, 2, 23, 31, 254])
def test_a_layout_that_no_firmware_has_is_damage(tmp_path: Path, layout: int) -> None:
    with started(tmp_path, eeprom_with(bytes([layout]) + bytes(60))) as mega:
        assert mega.state() == ("waiting", "51")
        assert mega.value("dwell_mm") == "60"


def test_damage_at_each_byte_of_the_settings_is_reported_and_no_damaged_value_is_used(tmp_path: Path) -> None:
    stored = image(len(TABLE), len(TABLE), dwell_mm=77)
    damages = [(at, stored[at] ^ 1 << at % 8) for at in range(len(stored))]
    for at, wrong in [*damages, (0, 0xFF)]:
        content = bytearray(stored)
        content[at] = wrong
        with started(tmp_path, eeprom_with(content)) as mega:
            assert mega.state() == ("waiting", "51"), (at, wrong)
            assert not mega.board.levels[LANES[0].relay.port], "the belt runs without valid settings"
            values = [mega.value(setting.key) for setting in TABLE]
            assert values == [str(setting.default) for setting in TABLE], (at, wrong)


def test_an_old_eeprom_holds_no_fault(tmp_path: Path) -> None:
    """Release 0.1.0 has never written the bytes of the faults."""
    with started(tmp_path, eeprom_with(image(1, FIRST_KEYS))) as mega:
        mega.ask("COMMIT", 1)
        assert mega.state() == ("running", "0")


def test_a_fault_survives_damage_at_each_byte(tmp_path: Path) -> None:
    sound = eeprom_with(image(1, FIRST_KEYS))
    copy = (0xFFFFFFFF ^ 1 << ESTOP - 40).to_bytes(4, "little")
    sound[FAULTS_AT : FAULTS_AT + 8] = copy * 2
    for at in range(FAULTS_AT, FAULTS_AT + 8):
        for wrong in (0x00, 0xFF, sound[at] ^ 0x20):
            damaged = bytearray(sound)
            damaged[at] = wrong
            with started(tmp_path, damaged) as mega:
                mega.ask("COMMIT", 1)
                assert mega.state()[0] == "safe", (at, wrong)
                mega.board.run_until(mega.board.now_us + 100_000)
                codes = [code for code in range(40, 60) if mega.ask("CLEAR", 1, code).fields == ("cleared",)]
                assert ESTOP in codes, (at, wrong)
                assert mega.state() == ("running", "0"), "a fault that comes from damage can be ended too"
                mega.board.run_until(mega.board.now_us + 200_000)
            assert (tmp_path / "eeprom").read_bytes()[FAULTS_AT : FAULTS_AT + 8] == b"\xff" * 8


def test_both_copies_of_a_fault_are_written_before_waiting_settings(tmp_path: Path) -> None:
    with started(tmp_path, eeprom_with(b"")) as mega:
        mega.ask("CONFIGURE", 1, "dwell_mm", 77)
        mega.ask("COMMIT", 1)
        mega.board.set_pin(LANES[0].estop.port, True)
        # The fault begins after contact_ms. Both copies are stored within 20 ms.
        mega.board.run_until(mega.board.now_us + 10_000 + 25_000)
    stored = (tmp_path / "eeprom").read_bytes()
    assert stored[FAULTS_AT : FAULTS_AT + 8] == (0xFFFFFFFF ^ 1 << ESTOP - 40).to_bytes(4, "little") * 2
    assert stored[16 + 50] == 0xFF, "the settings need more time"
