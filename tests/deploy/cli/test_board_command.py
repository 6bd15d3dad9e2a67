"""The command `castline board`: its subcommands at a simulated board, and the process of the simulated board."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agents.gate.link import GateLink, LinkSettings
from agents.gate.port import locked_port
from deploy.cli.main import castline
from firmware import toolchain
from firmware.board.board import Board
from firmware.board.line import SimulatedLine
from firmware.board.memory import BoardMemory
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.hex_image import check_image, checksum_file
from firmware.lane_settings import LaneSettings
from streams.settings import GateSettings, LineSettings, Settings
from tests.agents.sorter.taught_line import run_sorter, write_settings
from tests.processes import CASTLINE, CastlineProcess
from tests.wired_line import EventRecorder, WiredLine, wait_until

pytestmark = pytest.mark.real

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
    """A board with an empty belt."""
    with WiredLine(port, parts=0) as wired:
        yield wired


def call(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(castline, ["--settings", str(file), "board", *arguments], standalone_mode=False)


def test_status_shows_every_page(line: WiredLine, file: Path) -> None:
    result = call(file, "status", "--line", LINE, "--json")
    assert result.return_value == 0, result.output
    assert "No sorter on this machine takes commands" in result.stderr
    pages = json.loads(result.stdout)
    assert set(pages) == {"line", "count", "gate", "link", "eyes", "chute", "plant"}
    assert pages["line"]["state"] == "waiting"
    assert pages["count"]["parts"] == 0


def test_status_names_a_fault_by_its_exit_code(line: WiredLine, file: Path) -> None:
    call(file, "configure", "--line", LINE)
    line.line.board.lanes[0].change_estop(True, line.line.now_us)
    wait_until(lambda: line.line.board.lanes[0].faults.oldest == 45)
    assert call(file, "status", "--line", LINE).return_value == 1
    refused = call(file, "clear", "--line", LINE, "45")
    assert "12 fault-present" in str(refused.exception)
    line.line.board.lanes[0].change_estop(False, line.line.now_us)
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
        (("status",), "Pass --line or --port"),
        (("status", "--line", "line-2"), "line-2 has no gate in the settings"),
        (("status", "--line", "line-7"), "Known lines: line-1, line-2"),
        (("status", "--port", "/dev/no-such-board"), "There is no serial port /dev/no-such-board"),
        (("simulate", "--line", "line-2"), "line-2 has no gate to simulate"),
        (("simulate", "--line", "line-1", "--rate", "40"), "parts a second"),
    ],
)
def test_wrong_options_are_explained_in_a_sentence(file: Path, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in str(call(file, *arguments).exception)


def test_the_simulated_board_does_not_overwrite_a_file(file: Path, port: Path) -> None:
    port.write_text("precious")
    assert "would be overwritten" in str(call(file, "simulate", "--line", LINE).exception)
    assert port.read_text() == "precious"


# A fake avrdude that records its arguments. The port's name selects how it ends.
AVRDUDE = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD"
case "$*" in *absent*) echo "cannot open port" >&2; kill -TERM $$;; *broken*) exit 1;; esac
"""


def flash(
    tmp_path: Path, port: str, *arguments: str, avrdude: bool = True, file: Path | None = None, script: str = AVRDUDE
) -> subprocess.CompletedProcess[str]:
    """Runs `castline board flash` in a process that finds only a fake avrdude, or none."""
    tools = tmp_path / "tools"
    tools.mkdir()
    if avrdude:
        (tools / "avrdude").write_text(script)
        (tools / "avrdude").chmod(0o755)
    for name in ("sh", "flock", "avr-gcc", "avr-g++", "avr-objcopy", "avr-size", "gcc", "g++"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    environment = {"PATH": str(tools), "RECORD": str(tmp_path / "record")}
    call = [str(CASTLINE), *(("--settings", str(file)) if file else ()), "board", "flash", "--port", port, *arguments]
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


def test_flash_builds_the_firmware_and_hands_it_to_avrdude(tmp_path: Path) -> None:
    toolchain.build_firmware()
    done = flash(tmp_path, "/dev/ttyACM7")
    assert done.returncode == 0, done.stderr
    *arguments, image = (tmp_path / "record").read_text().splitlines()
    assert arguments == ["-p", "atmega2560", "-c", "wiring", "-P", "/dev/ttyACM7", "-b", "115200", "-D", "-U"]
    action, hex_file, form = image.removeprefix("flash:").split(":")
    assert (action, form) == ("w", "i")
    records = Path(hex_file).read_text().splitlines()
    assert {record[0] for record in records} == {":"}
    assert records[-1] == ":00000001FF", "the end of an Intel HEX file"


@pytest.fixture(scope="module")
def firmware_hex() -> str:
    return toolchain.build_hex_image().read_text()


def test_flash_takes_an_image_that_is_there(tmp_path: Path, firmware_hex: str) -> None:
    image = tmp_path / "other.hex"
    image.write_text(firmware_hex)
    assert flash(tmp_path, "/dev/ttyACM7", "--hex", str(image)).returncode == 0
    assert (tmp_path / "record").read_text().splitlines()[-1] == f"flash:w:{image}:i"


@pytest.mark.parametrize("port", ["/dev/broken", "/dev/absent"])
def test_flash_says_when_avrdude_could_not(tmp_path: Path, port: str, firmware_hex: str) -> None:
    image = tmp_path / "other.hex"
    image.write_text(firmware_hex)
    done = flash(tmp_path, port, "--hex", str(image))
    assert done.returncode == 1
    assert "repeat the command" in done.stderr


def truncated(image: Path) -> None:
    image.write_text("".join(image.read_text().splitlines(keepends=True)[:-40]))


def without_a_line(image: Path) -> None:
    lines = image.read_text().splitlines(keepends=True)
    image.write_text("".join(lines[:50] + lines[51:]))


def with_a_wrong_digit(image: Path) -> None:
    text = image.read_text()
    image.write_text(text[:1000] + ("0" if text[1000] != "0" else "1") + text[1001:])


def with_another_checksum(image: Path) -> None:
    checksum_file(image).write_text(f"{'0' * 64}  {image.name}\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda image: image.write_text(""), "It is empty"),
        (lambda image: image.write_text("<html>not found</html>"), "Line 1 is no valid record"),
        (lambda image: image.write_text(":00000001FF\n"), "another program"),
        (lambda image: image.write_bytes(toolchain.BOOT_LOADER.read_bytes()), "leaves a gap"),
        (truncated, "last record is missing"),
        (without_a_line, "Line 51 leaves a gap"),
        (with_a_wrong_digit, "is no valid record"),
        (with_another_checksum, "checksum is not the one"),
    ],
)
def test_a_wrong_firmware_is_refused_in_a_sentence(
    tmp_path: Path, firmware_hex: str, damage: Callable[[Path], object], reason: str
) -> None:
    image = tmp_path / "firmware.hex"
    image.write_text(firmware_hex)
    assert check_image(image) > 20_000
    damage(image)
    done = flash(tmp_path, "/dev/ttyACM7", "--hex", str(image))
    assert done.returncode not in (0, 1)
    assert reason in done.stderr
    assert "was not written to the board" in done.stderr
    assert not (tmp_path / "record").exists()


def is_port_in_use(port: Path) -> bool:
    with locked_port(str(port)) as is_free:
        return not is_free


def test_flash_is_refused_while_a_sorter_holds_the_port(tmp_path: Path, line: WiredLine, port: Path) -> None:
    link = GateLink(LinkSettings(str(port)))
    link.add_lane(LINE, EventRecorder(), LaneSettings())
    link.start()
    try:
        wait_until(lambda: is_port_in_use(port))
        done = flash(tmp_path, str(port))
    finally:
        link.stop()
    assert done.returncode != 0
    assert "Another program uses the serial port" in done.stderr
    assert "systemctl stop castline" in done.stderr
    assert not (tmp_path / "record").exists()


def test_flash_is_refused_while_a_sorter_waits_before_it_opens_the_port_again(tmp_path: Path, firmware_hex: str) -> None:
    image = tmp_path / "other.hex"
    image.write_text(firmware_hex)
    file = write_settings(tmp_path, 600)
    plant = Plant(Belt(speed_mm_s=1000, eye_gap_mm=600), CastingFeed(parts=0))
    with run_sorter(file, SimulatedLine(Board(BoardMemory()), plant), plant) as sorter:
        wait_until(lambda: bool(sorter.lane.problem))
        done = flash(tmp_path, str(tmp_path / "board"), "--hex", str(image), file=file)
    assert done.returncode not in (0, 1)
    assert "The sorter of line-1 uses the serial port" in done.stderr
    assert "systemctl stop castline" in done.stderr
    assert not (tmp_path / "record").exists()


# A fake avrdude that tries to open the port as a sorter does, and writes what happened.
SECOND_OPENER = """#!/bin/sh
flock -n "$6" sh -c 'printf free > "$RECORD"' || printf locked > "$RECORD"
"""


def test_no_sorter_can_open_the_port_while_the_firmware_is_written(tmp_path: Path, line: WiredLine, port: Path, firmware_hex: str) -> None:
    image = tmp_path / "other.hex"
    image.write_text(firmware_hex)
    done = flash(tmp_path, str(port), "--hex", str(image), script=SECOND_OPENER)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "record").read_text() == "locked"
    assert not is_port_in_use(port)


def test_flash_names_the_package_that_is_missing(tmp_path: Path) -> None:
    done = flash(tmp_path, "/dev/ttyACM7", avrdude=False)
    assert done.returncode == 3
    assert "avrdude is not installed. On Debian, install it with: apt-get install avrdude" in done.stderr


def test_a_simulated_board_that_is_stopped_lets_the_belt_run_empty(tmp_path: Path, port: Path) -> None:
    gate = GateSettings(port=str(port), travel_mm=600, belt_mm_per_s=1000)
    settings = Settings(lines=(LineSettings(name=LINE, gate=gate),))
    truth, events = tmp_path / "truth.jsonl", EventRecorder()
    arguments = ("board", "simulate", "--line", LINE, "--rate", "8", "--log", str(truth))
    with CastlineProcess(settings, tmp_path / "board.log", *arguments) as board:
        wait_until(port.exists, 30)
        link = GateLink(LinkSettings(str(port)))
        lane = link.add_lane(LINE, events, LaneSettings({"eye_gap_mm": 600, "step_um": 1000}))
        link.start()
        wait_until(lambda: len(events.counted) >= 6, 30)
        events.then = lambda event: None
        for event in events.sorted:
            lane.acknowledge_event(event.event, event.run)
        assert board.stop() == 0
        link.stop()
    fell = [line for line in map(json.loads, truth.read_text().splitlines()) if line["what"] == "fell"]
    assert [line["counted"] for line in fell] == [event.part for event in events.counted]
    assert not port.is_symlink()
    assert json.loads(port.with_name(f"{LINE}.eeprom").read_text())["run"] == 1
