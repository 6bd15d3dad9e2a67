"""The procedures of docs/maintenance.md, carried out word for word with the firmware in the AVR simulator and a real sorter.

Only the serial port has another name than on the page.
"""

from __future__ import annotations

import os
import re
import shlex
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner

from agents.sorter.decisions import lane_settings
from deploy.cli.main import castline
from deploy.supervisor.ports import free_ports
from firmware import toolchain
from firmware.board.board import Board
from firmware.board.line import SimulatedLine
from firmware.board.memory import BoardMemory
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.pins import LANES, PLANT
from firmware.simulator.avr import RealTimeBoard
from station.live.line_card import _describe_gate
from streams.records import Sorting
from streams.settings import FILE_VARIABLE, Settings, load_settings
from tests.agents.sorter.taught_line import run_sorter
from tests.docs.pages import DOCS, ROOT
from tests.fake_inspector import TOKEN, FakeInspector, SortedReader
from tests.firmware.castings import pass_casting
from tests.firmware.flashing import flash
from tests.firmware.releases import old_firmware
from tests.processes import CASTLINE, CastlineProcess, without_secrets
from tests.wired_line import wait_until

pytestmark = pytest.mark.real

PAGE = DOCS / "maintenance.md"
PAGE_PORT = "/dev/ttyACM0"
LINE = "line-1"
PINS, BYPASS = LANES[0], PLANT[0].bypass
TRAVEL_S = 2.0
GATE = {
    "travel_mm": 500 * TRAVEL_S,
    "belt_mm_per_s": 500,
    "board": {"use_plant": 1, "use_solenoid": 1, "window_mm": 150, "part_max_mm": 450, "dwell_mm": 77},
}

# The board has been reset 40 times. Its first copy of this number is stored with its complement, and all other bytes are blank.
EEPROM_OF_AN_OLD_BOARD = (40).to_bytes(2, "little") + (0xFFFF - 40).to_bytes(2, "little") + b"\xff" * 4092


@dataclass
class Step:
    """A command of the page, the texts that the page shows of its answer, and texts of the sorter's log."""

    command: str
    answers: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)


def steps_of(heading: str) -> Iterator[Step]:
    """Yields the commands below a heading of the page, in their order."""
    text = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (section,) = [part for part in text if part.startswith(f"{heading}\n")]
    steps: list[Step] = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        if language == "sh":
            steps += [Step(command) for command in block.splitlines()]
        else:
            (steps[-1].answers if language == "text" else steps[-1].logged).extend(block.splitlines())
    yield from steps


class MaintainedBoard:
    """A folder with castline.toml, and a simulated Mega with its stock boot loader at the port of the line."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.port = folder / "board"
        self.file = folder / "castline.toml"
        values = settings.model_dump(mode="json", exclude_none=True)
        self.file.write_text(tomli_w.dumps({name: without_secrets(value) for name, value in values.items()}))
        # The commands run in the folder, so the built firmware is looked for here.
        (folder / "var").symlink_to(ROOT / "var")
        self.board: RealTimeBoard
        self._boards = ExitStack()

    def plug(self, elf: Path, eeprom: str) -> None:
        """Replaces the board by another one, which has the firmware `elf` and the EEPROM in the file `eeprom`."""
        self.unplug()
        self.board = self._boards.enter_context(RealTimeBoard(elf, self.port, self.folder / eeprom, has_boot_loader=True))
        for level, pin in ((False, PINS.estop), (True, PINS.eye1), (True, PINS.eye2), (True, BYPASS)):
            self.board.set_pin(pin.port, level)
        self.board.poll_for(0.1)

    def unplug(self) -> None:
        self._boards.close()

    def cut_power(self) -> None:
        """Switches the supply off and on when the board has stored its settings."""
        self.board.poll_for(1)
        self.board.reset("power")
        self.board.poll_for(1)

    def wait_for(self, condition: Callable[[], object]) -> None:
        def is_met() -> object:
            self.board.poll()
            return condition()

        wait_until(is_met, 60)

    def turn_bypass_key(self, is_on: bool) -> None:
        self.board.set_pin(BYPASS.port, not is_on)
        self.board.poll_for(0.5)

    def follow(self, step: Step) -> None:
        """Runs a command of the page. Each text that the page shows must be in the answer."""
        words = [str(self.port) if word == PAGE_PORT else word for word in shlex.split(step.command)]
        assert words[0] == "castline"
        answer = self._flash(words) if "flash" in words else self._run(words)
        missing = [text for text in step.answers if " ".join(text.split()) not in " ".join(answer.split())]
        assert missing == [], f"{step.command} answered:\n{answer}"

    def _run(self, words: list[str]) -> str:
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            runner = CliRunner(env={FILE_VARIABLE: str(self.file)})
            result = runner.invoke(castline, words[1:], input="y\n", standalone_mode=False)
        finally:
            os.chdir(before)
        assert result.exception is None, result.exception
        return result.output

    def _flash(self, words: list[str]) -> str:
        self._lower_dtr()
        return flash(self.board, [str(CASTLINE), *words[1:]], self.folder, {**os.environ, FILE_VARIABLE: str(self.file)})

    def _lower_dtr(self) -> None:
        """Lowers DTR as avrdude does at a real port. A pseudo-terminal has no such line that a program could set."""
        descriptor = os.open(self.port, os.O_RDWR | os.O_NOCTTY)
        settings = termios.tcgetattr(descriptor)
        settings[2] |= termios.HUPCL
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        # The simulator looks at the terminal at intervals, so a short opening could stay unnoticed.
        self.board.poll_for(0.5)
        os.close(descriptor)
        self.board.poll_for(0.5)


def test_a_line_runs_without_castline_and_its_board_is_exchanged(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    firmware, old = toolchain.build_firmware(), old_firmware(tmp_path)
    toolchain.build_hex_image()
    settings = make_settings(lines=({"name": LINE, "gate": {"port": str(tmp_path / "board"), **GATE}},), gateway={"port": free_ports()})
    line = MaintainedBoard(tmp_path, settings)
    secrets = tmp_path / "castline.toml"
    secrets.write_text(secrets.read_text().replace("[gateway]\n", f'[gateway]\ntoken = "{TOKEN}"\n'))
    with ExitStack() as stack:
        stack.callback(line.unplug)
        stack.enter_context(FakeInspector(settings, lambda part: "defect"))
        (tmp_path / "old.eeprom").write_bytes(EEPROM_OF_AN_OLD_BOARD)
        line.plug(firmware, "old.eeprom")

        def start_sorter() -> CastlineProcess:
            sorter = CastlineProcess(settings, tmp_path / "sorter.log", "sorter", "--line", LINE, file=line.file)
            stack.enter_context(sorter)
            return sorter.wait_ready()

        sorter = start_sorter()
        records = run_without_castline(line, settings)
        exchange(line, sorter, start_sorter, old)
        pass_casting(line.board, TRAVEL_S)
        # On a busy machine, a verdict can come too late. The part then gets a second record, which names this verdict.
        line.wait_for(lambda: len({(record.run, record.part) for record in records.read()}) == 3)
        records.close()
    first_records = {(record.run, record.part): record for record in reversed(records.records)}
    first, second, third = (first_records[key] for key in sorted(first_records))
    assert (first.run, first.part, second.run, second.part) == (42, 1, 42, 2)
    assert (third.run, third.part, third.action, third.reason) == (43, 1, "diverted", "verdict")


def run_without_castline(line: MaintainedBoard, settings: Settings) -> SortedReader:
    """Carries out the first procedure. Returns the reader of the line's records."""
    in_bypass, traced, back, paused, resumed = steps_of("Run a line without Castline")
    line.turn_bypass_key(True)
    line.follow(in_bypass)
    pass_casting(line.board, TRAVEL_S)
    records = SortedReader(settings, LINE)
    line.wait_for(lambda: [record for record in records.read() if record.part == 1])
    line.follow(traced)
    record = records.records[0]
    assert not record.gate_moved
    assert_page_names_the_bypass(record)
    line.turn_bypass_key(False)
    line.follow(back)
    line.follow(paused)
    pass_casting(line.board, TRAVEL_S)
    line.wait_for(lambda: [record for record in records.read() if record.part == 2])
    assert (records.records[-1].action, records.records[-1].reason) == ("diverted", "no-verdict")
    line.follow(resumed)
    return records


def assert_page_names_the_bypass(record: Sorting) -> None:
    assert "a person has turned the bypass key" in _describe_gate(record)


def exchange(line: MaintainedBoard, sorter: CastlineProcess, start_sorter: Callable[[], CastlineProcess], old: Path) -> None:
    """Carries out the second procedure. The new board comes with the firmware of an old release, and has no settings."""
    saved, flashed, restored, kept, stored, runs, tested = steps_of("Exchange a board")
    line.follow(saved)
    assert sorter.stop() == 0
    line.plug(old, "new.eeprom")
    line.follow(flashed)
    line.follow(restored)
    line.follow(kept)
    line.cut_power()
    line.follow(stored)
    settings = (line.folder / "new-board-line-1.toml").read_text().splitlines()
    assert {"use_solenoid = 1", "use_plant = 1"} <= set(settings)
    started = start_sorter()
    line.follow(runs)
    for text in runs.logged:
        assert text in started.log()
    line.follow(tested)


def test_the_firmware_of_a_board_of_release_0_1_0_is_upgraded_and_keeps_its_settings(tmp_path: Path) -> None:
    toolchain.build_hex_image()
    gate = {"port": str(tmp_path / "board"), "travel_mm": 600, "belt_mm_per_s": 1000, "board": {"dwell_mm": 77}}
    line = MaintainedBoard(
        tmp_path, Settings.model_validate({"service": {"run_dir": tmp_path / "run"}, "lines": [{"name": LINE, "gate": gate}]})
    )
    saved, flashed, unchanged, runs, tested = steps_of("Upgrade the firmware")
    own_gate = load_settings(line.file, {}).find_line(LINE).gate
    assert own_gate is not None
    plant = Plant(Belt(), CastingFeed(parts=0))
    unused = SimulatedLine(Board(BoardMemory()), plant)
    line.plug(old_firmware(tmp_path), "eeprom")
    try:
        with run_sorter(line.file, unused, plant) as sorter:
            line.wait_for(lambda: sorter.lane.is_configured)
            assert sorter.lane.run > 0
            run = sorter.lane.run
            line.follow(saved)
            # The board stores its settings within half a second.
            line.board.poll_for(0.5)
        line.follow(flashed)
        line.follow(unchanged)
        with run_sorter(line.file, unused, plant) as sorter:
            line.wait_for(lambda: sorter.lane.is_configured)
            line.follow(runs)
            line.follow(tested)
            assert sorter.lane.run > run
            assert sorter.lane.settings_by_lane[1] == lane_settings(own_gate)
    finally:
        line.unplug()


def test_the_page_shows_the_answers_that_old_and_later_firmware_cause() -> None:
    """The tests of tests/firmware/test_other_releases.py check these sentences."""
    text = " ".join(PAGE.read_text().split())
    assert "does not support version 1 of the gate protocol" in text
    assert "fault 51 (`settings-lost`)" in text
