"""`castline board save` and `restore`: the settings of a line's board go to another board, and into the settings file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agents.gate.link import GateLink, LinkSettings
from agents.sorter.decisions import grade_settings, lane_settings
from agents.sorter.saved_settings import keep_settings, settings_path
from deploy.cli.board_restore import plan_edit
from deploy.cli.main import castline
from firmware.lane_settings import LaneSettings
from streams.errors import SettingsError
from streams.settings import GateSettings, load_settings
from tests.agents.sorter.taught_line import taught_line
from tests.wired_line import SETTINGS, EventRecorder, WiredLine, wait_until

pytestmark = pytest.mark.real

LINE = "line-1"
OLD = LaneSettings({"eye_gap_mm": 640, "step_um": 1000, "dwell_mm": 77, "rest_us": 1234, "safe": "pass", "no_verdict": "pass"})
TEXT = """[service]
run_dir = "{folder}/run"
[sorter]
journal_dir = "{folder}/journal"

[[lines]]
name = "line-1"

[lines.gate]
port = "{folder}/board"  # the socket at the left
travel_mm = 600  # measured with a ruler
belt_mm_per_s = 1000
{more}

[[lines]]
name = "line-2"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_settings(tmp_path)
    return tmp_path


def write_settings(folder: Path, more: str = "") -> None:
    (folder / "castline.toml").write_text(TEXT.format(folder=folder, more=more))


def call(folder: Path, *arguments: str, keys: str = "") -> Result:
    command = ["--settings", str(folder / "castline.toml"), "board", *arguments]
    return CliRunner().invoke(castline, command, input=keys, standalone_mode=False)


def board_with(folder: Path, settings: LaneSettings | None) -> WiredLine:
    """Returns a board with an empty belt. Its EEPROM has the settings of lane 1, or nothing."""
    line = WiredLine(folder / "board", parts=0)
    if settings is not None:
        line.memory.store(1, settings)
        line.reset()
    return line


def save(folder: Path, settings: LaneSettings = OLD) -> Path:
    out = folder / "saved.toml"
    with board_with(folder, settings):
        call(folder, "save", "--line", LINE, "--out", str(out))
    return out


def test_saved_settings_are_readable_and_what_differs_from_the_file_is_shown(folder: Path) -> None:
    with board_with(folder, OLD):
        result = call(folder, "save", "--line", LINE, "--out", str(folder / "saved.toml"))
    assert result.return_value == 1
    assert "The settings file has other settings than the board" in result.output
    assert [line.split() for line in result.output.splitlines() if line.startswith("dwell_mm")] == [["dwell_mm", "77", "60"]]
    saved = tomllib.loads((folder / "saved.toml").read_text())
    assert (saved["format"], saved["line"]) == ("castline.board-settings.v1", LINE)
    assert saved["lanes"]["1"] == OLD.values


def test_the_settings_of_a_running_line_are_saved_through_its_sorter(tmp_path: Path) -> None:
    with taught_line(tmp_path, travel_mm=600, board="{ dwell_mm = 77 }") as line:
        result = line.call("save", "--line", LINE, "--out", str(tmp_path / "saved.toml"))
        assert result.return_value == 0, result.output
        assert line.lane.is_configured
    assert tomllib.loads((tmp_path / "saved.toml").read_text())["lanes"]["1"]["dwell_mm"] == 77


def test_a_new_board_and_the_settings_file_get_the_saved_settings_after_the_difference_was_shown(folder: Path) -> None:
    saved = save(folder)
    with board_with(folder, None) as new:
        result = call(folder, "restore", "--line", LINE, str(saved), keys="y\n")
        assert result.return_value == 0, result.output
        assert new.memory.settings[1] == OLD
    shown = [line.split() for line in result.output.splitlines()]
    assert ["rest_us", "1000", "1234"] in shown
    assert "travel_mm = 640" in result.output
    text = (folder / "castline.toml").read_text()
    assert "travel_mm = 640  # measured with a ruler" in text
    gate = load_settings(folder / "castline.toml", {}).find_line(LINE).gate
    assert gate is not None
    assert lane_settings(gate) == OLD
    assert gate.safe == "pass"
    with board_with(folder, OLD):
        again = call(folder, "restore", "--line", LINE, str(saved))
    assert "already have these settings" in again.output


def test_an_answer_of_no_changes_nothing(folder: Path) -> None:
    saved, before = save(folder), (folder / "castline.toml").read_text()
    with board_with(folder, None) as new:
        result = call(folder, "restore", "--line", LINE, str(saved), keys="n\n")
        assert result.return_value == 1
        assert new.memory.settings == {}
    assert "Nothing was changed." in result.output
    assert (folder / "castline.toml").read_text() == before


def test_without_a_file_the_board_gets_the_settings_that_the_sorter_kept(folder: Path) -> None:
    keep_settings(settings_path(folder / "journal", LINE), LINE, "/dev/old-board", {1: OLD})
    with board_with(folder, None) as new:
        result = call(folder, "restore", "--line", LINE, "--yes")
        assert result.return_value == 0, result.output
        assert new.memory.settings[1] == OLD
    assert "from the board at /dev/old-board" in result.output


def test_settings_are_kept_once_and_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    file = settings_path(tmp_path, LINE)
    keep_settings(file, LINE, "/dev/board", {1: OLD})
    first = file.stat()
    keep_settings(file, LINE, "/dev/board", {1: OLD})
    assert file.stat().st_ino == first.st_ino, "equal settings are not written again"
    keep_settings(file, LINE, "/dev/new-board", {1: OLD})
    assert 'port = "/dev/new-board"' in file.read_text()
    file.write_text("")
    keep_settings(file, LINE, "/dev/board", {1: OLD})
    assert tomllib.loads(file.read_text())["lanes"]["1"] == OLD.values


def changed(old: str, new: str) -> Callable[[Path], object]:
    def change(file: Path) -> None:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: file.unlink(), "There is no file"),
        (lambda file: file.write_text(""), "holds no saved settings of a board"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "Cannot read the saved settings"),
        (lambda file: file.write_text('[[lines]]\nname = "line-1"\n'), "holds no saved settings of a board"),
        (lambda file: file.write_text(file.read_text()[:300]), "Nothing was changed"),
        (changed("dwell_mm = 77", "dwell_mm = 78"), "Its checksum is wrong"),
        (changed('line = "line-1"', 'line = "line-2"'), "Its checksum is wrong"),
        (changed("[lanes.1]", "[lanes.2]"), "Its checksum is wrong"),
        (changed("saved_at", "written_at"), "Its checksum is wrong"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_a_sentence(folder: Path, damage: Callable[[Path], object], sentence: str) -> None:
    file = folder / "saved.toml"
    keep_settings(file, LINE, "/dev/board", {1: OLD})
    damage(file)
    before = (folder / "castline.toml").read_text()
    with board_with(folder, None) as new:
        assert sentence in str(call(folder, "restore", "--line", LINE, str(file), "--yes").exception)
        assert new.memory.settings == {}
    assert (folder / "castline.toml").read_text() == before


@pytest.mark.parametrize(
    ("line", "lane", "sentence"),
    [("line-2", 1, "settings of line-2, and not those of line-1"), (LINE, 2, "holds lane 2 of the board, but line-1 has lane 1")],
)
def test_the_settings_of_another_line_or_lane_are_refused(folder: Path, line: str, lane: int, sentence: str) -> None:
    keep_settings(folder / "saved.toml", line, "/dev/board", {lane: OLD})
    assert sentence in str(call(folder, "restore", "--line", LINE, str(folder / "saved.toml"), "--yes").exception)


def test_settings_of_a_later_release_are_refused_and_those_of_an_older_one_get_defaults(folder: Path) -> None:
    file = folder / "saved.toml"
    older = LaneSettings(OLD.values)
    older.values = {key: value for key, value in OLD.values.items() if key not in ("use_plant", "result_ms")}
    keep_settings(file, LINE, "/dev/board", {1: older})
    with board_with(folder, None) as new:
        assert call(folder, "restore", "--line", LINE, str(file), "--yes").return_value == 0
        assert new.memory.settings[1] == OLD
    older.values |= {"wind_mm": 3}
    keep_settings(file, LINE, "/dev/board", {1: older})
    error = str(call(folder, "restore", "--line", LINE, str(file), "--yes").exception)
    assert "wind_mm" in error
    assert "Use the release that saved them" in error


def test_a_running_sorter_must_be_stopped_first(tmp_path: Path) -> None:
    with taught_line(tmp_path, travel_mm=600) as line:
        line.call("save", "--line", LINE, "--out", str(tmp_path / "saved.toml"))
        error = str(line.call("restore", "--line", LINE, str(tmp_path / "saved.toml")).exception)
    assert "The sorter of line-1 uses the serial port" in error
    assert "systemctl stop castline" in error


def test_castings_on_the_belt_are_named_and_nothing_is_changed(folder: Path) -> None:
    keep_settings(folder / "saved.toml", LINE, "/dev/board", {1: OLD})
    before = (folder / "castline.toml").read_text()
    with WiredLine(folder / "board", rate_per_s=8) as line:
        link = GateLink(LinkSettings(str(folder / "board")))
        link.add_lane(LINE, EventRecorder(), LaneSettings(SETTINGS.values | {"safe": "stop", "no_verdict": "stop"}))
        link.start()
        # A casting without a verdict stops the belt at the gate, and other castings stay behind it.
        wait_until(lambda: line.line.board.state == "stopped")
        link.stop()
        error = str(call(folder, "restore", "--line", LINE, str(folder / "saved.toml"), "--yes").exception)
        assert line.memory.settings[1] != OLD
    assert "A casting is on the belt" in error
    assert "Let the belt run empty" in error
    assert (folder / "castline.toml").read_text() == before


def test_without_a_board_nothing_is_changed(folder: Path) -> None:
    keep_settings(folder / "saved.toml", LINE, "/dev/board", {1: OLD})
    before = (folder / "castline.toml").read_text()
    error = str(call(folder, "restore", "--line", LINE, str(folder / "saved.toml"), "--yes").exception)
    assert "There is no serial port" in error
    assert (folder / "castline.toml").read_text() == before


def test_a_saved_file_is_not_overwritten(folder: Path) -> None:
    (folder / "saved.toml").write_text("precious")
    assert "Choose another --out" in str(call(folder, "save", "--line", LINE, "--out", str(folder / "saved.toml")).exception)


@pytest.mark.parametrize(
    "wanted",
    [
        OLD,
        LaneSettings({"eye_gap_mm": 600, "step_um": 12, "step_nm": 400, "stuck_mm": 500, "gate_mm": 20}),
        LaneSettings({"encoder": 1, "step_um": 500, "step_nm": 37}),
        LaneSettings({"safe": "stop"}),
        LaneSettings({"encoder": 0, "step_um": 7, "eye_gap_mm": 100, "stuck_mm": 100, "window_mm": 20}),
    ],
)
@pytest.mark.parametrize(
    "more", ["", "board = { dwell_mm = 50, encoder = 1, step_um = 200 }", "[lines.gate.board]\neye_gap_mm = 700\nsafe = 'pass'"]
)
def test_the_edited_settings_file_gives_the_saved_settings(tmp_path: Path, wanted: LaneSettings, more: str) -> None:
    write_settings(tmp_path, more)
    file = tmp_path / "castline.toml"
    gate = load_settings(file, {}).find_line(LINE).gate
    assert gate is not None
    edit = plan_edit(file, LINE, gate, {1: wanted})
    assert edit is not None
    edit.write()
    after = load_settings(file, {}).find_line(LINE).gate
    assert after is not None
    assert lane_settings(after) == wanted
    assert plan_edit(file, LINE, after, {1: wanted}) is None


def test_a_settings_file_that_cannot_be_edited_is_explained_before_anything_is_changed(tmp_path: Path) -> None:
    gate = GateSettings(port="/dev/board", travel_mm=600, belt_mm_per_s=1000)
    with pytest.raises(SettingsError, match=r"(?s)there is no settings file.*travel_mm = 640"):
        plan_edit(None, LINE, gate, {1: OLD})


def test_other_settings_of_an_additional_gate_are_named(tmp_path: Path) -> None:
    gate = GateSettings.model_validate(
        {"port": "/dev/board", "grades": [{"name": "rework", "lane": 2, "takes": ["review"], "gate_mm": 300}]}
    )
    own = lane_settings(gate)
    other = LaneSettings({"gate_mm": 350, "lane_of": 1})
    with pytest.raises(SettingsError, match=r"lane 2: gate_mm = 350"):
        plan_edit(tmp_path / "castline.toml", LINE, gate, {1: own, 2: other})


def test_a_change_of_the_line_that_also_changes_its_additional_gate_is_planned(tmp_path: Path) -> None:
    write_settings(tmp_path, "[[lines.gate.grades]]\nname = 'rework'\nlane = 2\ntakes = ['review']\ngate_mm = 300")
    file = tmp_path / "castline.toml"
    gate = load_settings(file, {}).find_line(LINE).gate
    assert gate is not None
    passing = gate.model_copy(update={"safe": "pass"})
    edit = plan_edit(file, LINE, gate, {1: lane_settings(passing), **grade_settings(passing)})
    assert edit is not None
    assert edit.changes == {"safe": "pass"}
