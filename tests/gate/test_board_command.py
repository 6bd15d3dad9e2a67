"""`castline board`: a person talks to a board, and the simulated one behaves as a process should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agents.gate_link import GateLink, LinkSettings
from deploy.cli import castline
from firmware.board.lane_settings import LaneSettings
from streams.settings import GateSettings, LineSettings, Settings
from tests.gate.wired import Ear, WiredLine, until
from tests.processes import Role

LINE = "line-1"


@pytest.fixture
def port(tmp_path: Path) -> Path:
    return tmp_path / LINE


@pytest.fixture
def file(tmp_path: Path, port: Path) -> Path:
    file = tmp_path / "castline.toml"
    file.write_text(
        f'[service]\nrun_dir = "{tmp_path / "run"}"\n[[lines]]\nname = "{LINE}"\n'
        f'[lines.gate]\nport = "{port}"\ntravel_mm = 600\nbelt_mm_per_s = 1000\n[[lines]]\nname = "line-2"\n'
    )
    return file


@pytest.fixture
def line(port: Path) -> Iterator[WiredLine]:
    """A board on a belt that nothing is put on."""
    with WiredLine(port, parts=0) as wired:
        yield wired


def call(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(castline, ["--settings", str(file), "board", *arguments], standalone_mode=False)


def test_status_shows_every_page(line: WiredLine, file: Path) -> None:
    result = call(file, "status", "--line", LINE, "--json")
    assert result.return_value == 0, result.output
    pages = json.loads(result.output)
    assert set(pages) == {"line", "count", "gate", "link", "eyes"}
    assert pages["line"]["state"] == "waiting"
    assert pages["count"]["parts"] == 0


def test_status_names_a_fault_by_its_exit_code(line: WiredLine, file: Path) -> None:
    call(file, "configure", "--line", LINE)
    line.line.board.lanes[0].estop_open = True
    until(lambda: line.line.board.lanes[0].faults.oldest == 45)
    assert call(file, "status", "--line", LINE).return_value == 1
    refused = call(file, "clear", "--line", LINE, "45")
    assert "12 fault-present" in str(refused.exception)
    line.line.board.lanes[0].estop_open = False
    assert "cleared" in call(file, "clear", "--line", LINE, "45").output


def test_configure_sends_the_lines_settings(line: WiredLine, file: Path) -> None:
    result = call(file, "configure", "--line", LINE)
    assert "eye_gap_mm = 600" in result.output
    assert "step_um = 1000" in result.output
    assert line.memory.settings[1].number("eye_gap_mm") == 600


def test_a_test_swings_the_gate_once(line: WiredLine, file: Path) -> None:
    result = call(file, "test", "gate", "--line", LINE)
    assert "gate: done" in result.output
    assert line.line.board.lanes[0].gate.moves == 1
    assert line.line.board.lanes[0].gate.pulse_us == 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("status",), "expected --line or --port"),
        (("status", "--line", "line-2"), "expected the settings of a gate"),
        (("status", "--line", "line-7"), "expected one of line-1, line-2"),
        (("status", "--port", "/dev/no-such-board"), "expected a serial port at /dev/no-such-board"),
        (("simulate", "--line", "line-2"), "expected the settings of a gate"),
        (("simulate", "--line", "line-1", "--rate", "40"), "parts a second"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(file: Path, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in str(call(file, *arguments).exception)


def test_the_simulated_board_does_not_overwrite_a_file(file: Path, port: Path) -> None:
    port.write_text("precious")
    assert "found something else" in str(call(file, "simulate", "--line", LINE).exception)
    assert port.read_text() == "precious"


def test_a_simulated_board_that_is_stopped_lets_the_belt_run_empty(tmp_path: Path, port: Path) -> None:
    gate = GateSettings(port=str(port), travel_mm=600, belt_mm_per_s=1000)
    settings = Settings(lines=(LineSettings(name=LINE, gate=gate),))
    truth, ear = tmp_path / "truth.jsonl", Ear()
    arguments = ("board", "simulate", "--line", LINE, "--rate", "8", "--log", str(truth))
    with Role(settings, tmp_path / "board.log", *arguments) as board:
        until(port.exists, 30)
        link = GateLink(LinkSettings(str(port)))
        lane = link.serve(LINE, ear, LaneSettings({"eye_gap_mm": 600, "step_um": 1000}))
        link.start()
        until(lambda: len(ear.counted) >= 6, 30)
        ear.then = lambda event: None
        for event in ear.sorted:
            lane.acknowledge(event.event, event.run)
        assert board.stop() == 0
        link.stop()
    fell = [line for line in map(json.loads, truth.read_text().splitlines()) if line["what"] == "fell"]
    assert [line["counted"] for line in fell] == [event.part for event in ear.counted]
    assert not port.is_symlink()
    assert json.loads(port.with_name(f"{LINE}.eeprom").read_text())["run"] == 1
