"""`castline board teach` through the socket of a sorter, with simulated boards in Python and with the real firmware."""

from __future__ import annotations

import _thread
import io
import os
import re
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.sorter.command_socket import ask_sorter
from deploy.cli.main import castline
from firmware.board.board import Board, CommandError
from firmware.board.line import SimulatedLine
from firmware.board.memory import BoardMemory
from firmware.board.plant import END_SWITCH, Belt
from firmware.protocol import EDGE_PAGES, Fields
from firmware.simulator.avr_line import AvrLine
from streams.records import CommandAnswer, make_command
from tests.agents.sorter.taught_line import LINE, TaughtLine, taught_line, write_settings
from tests.wired_line import wait_until

pytestmark = pytest.mark.real

# Only root may give a file to another user.
OWNER = 65534 if os.geteuid() == 0 else os.geteuid()
FORMER = {"eye_gap_mm": 720, "lost_limit": 5}


def used(line: TaughtLine) -> dict[str, object]:
    """Returns what the board uses of the settings FORMER."""
    shown = dict(row.split(" = ") for row in line.call("configure", "--line", LINE).output.splitlines() if " = " in row)
    return {key: int(shown[key]) for key in FORMER}


@pytest.mark.parametrize(
    ("travel_mm", "encoder_um"), [(720, 0), (480, 0), (720, 500)], ids=["20-percent-too-far", "20-percent-too-near", "with-encoder"]
)
def test_the_real_firmware_is_taught_within_3_mm_from_a_travel_that_is_20_percent_off(
    tmp_path: Path, travel_mm: int, encoder_um: int
) -> None:
    board = "{ encoder = 1, step_um = 500, window_mm = 40 }  # from the data sheet" if encoder_um else "{ window_mm = 40 }"
    belt = Belt(speed_mm_s=1000, eye_gap_mm=600, encoder_um=encoder_um)
    with taught_line(tmp_path, travel_mm, avr=True, board=board, belt=belt) as line:
        result = line.teach("--step", "travel", "--yes")
        assert result.return_value == 0, f"{result.output}\n{result.exception}"
        text = line.file.read_text()
        gate = tomllib.loads(text)["lines"][0]["gate"]
        assert abs(gate["travel_mm"] - 600) <= 3
        assert 5 <= gate["board"]["window_mm"] < 40
        assert "# measured with a ruler" in text
        wait_until(lambda: line.lane.is_configured)
        assert int(line.call("configure", "--line", LINE).output.split("eye_gap_mm = ")[1].split()[0]) == gate["travel_mm"]
        assert line.gates[-1].travel_mm == gate["travel_mm"], "the sorter computes deadlines from the old travel"
        page = (tmp_path / "page.html").read_text()
        assert "<td>travel_mm</td><td>" in page
        assert page.count("<tr><td>") > 10
        assert re.search("<td>Castings used</td><td>(8|9|10) of 10</td>", page)


def test_without_castings_teach_says_so_after_the_stated_time_and_changes_nothing(tmp_path: Path) -> None:
    with taught_line(tmp_path) as line:
        before = line.file.read_text()
        result = line.teach("--step", "travel", "--yes", "--wait-s", "1", feed=lambda: None)
        assert "No casting passed both photo-eyes within 1 s" in str(result.exception)
        assert "Nothing was written" in str(result.exception)
        assert line.file.read_text() == before
        assert not (tmp_path / "page.html").exists()
        wait_until(lambda: line.lane.is_configured)
        assert used(line) == FORMER


@pytest.mark.parametrize(
    ("leads_mm", "sentence"),
    [
        ((-50.0, -350.0), "The castings are too close together"),
        ((300.0,), "A casting was at photo-eye 2 first"),
    ],
    ids=["too-close", "between-the-eyes"],
)
def test_castings_that_cannot_be_measured_are_refused_with_a_sentence(tmp_path: Path, leads_mm: tuple[float, ...], sentence: str) -> None:
    with taught_line(tmp_path) as line:
        before = line.file.read_text()

        def feed() -> None:
            for lead_mm in leads_mm:
                line.plant.place_casting(lead_mm)

        result = line.teach("--step", "travel", "--yes", feed=feed)
        assert sentence in str(result.exception)
        assert line.file.read_text() == before
        wait_until(lambda: line.lane.is_configured)
        assert used(line) == FORMER


class OldBoard(Board):
    """A board with the firmware of release 0.1.0, which does not know the status pages of the edges."""

    def _do_status(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        if fields.word("page") in EDGE_PAGES:
            raise CommandError("wrong-fields")
        fields_of_page: tuple[object, ...] = super()._do_status(fields, now_us)
        return fields_of_page


def test_a_board_with_old_firmware_is_refused_and_its_other_commands_work(tmp_path: Path) -> None:
    with taught_line(tmp_path, make_board=lambda: OldBoard(BoardMemory())) as line:
        error = str(line.teach().exception)
        assert "is too old" in error
        assert "castline board flash" in error
        assert "eye 1 free" in line.call("monitor", "--once", "--line", LINE).output
        assert used(line) == FORMER


def test_a_second_person_must_wait_and_an_ended_session_leaves_the_servo_at_rest(tmp_path: Path) -> None:
    with taught_line(tmp_path) as line:
        folder = tmp_path / "run"

        def ask(teach: str, **fields: object) -> CommandAnswer:
            answered = ask_sorter(folder, make_command(LINE, "teach", "anna@line-pc", 15, teach=teach, **fields))
            assert answered is not None
            assert answered.answer is not None
            return answered.answer

        session = ask("begin").values["board"]["session"]
        assert used(line) == FORMER | {"lost_limit": 50}
        refusal = str(line.teach(feed=lambda: None).exception)
        assert "anna@line-pc has been teaching line-1 since" in refusal
        assert "Wait until that person has finished" in refusal
        assert ask("servo", session=session, servo_us=1300).outcome == "done"
        wait_until(lambda: "pulse_us 1300" in line.call("status", "--line", LINE).output)
        line.plant.place_casting(-10.0)
        wait_until(lambda: "pulse_us 1000" in line.call("status", "--line", LINE).output)
        assert "A casting is on the belt of line-1" in ask("servo", session=session, servo_us=1300).message
        wait_until(lambda: ask("servo", session=session, servo_us=1300).outcome == "done")
        ask("end", session=session)
        wait_until(lambda: "pulse_us 1000" in line.call("status", "--line", LINE).output)
        wait_until(lambda: line.lane.is_configured)
        assert used(line) == FORMER
        assert "session has ended" in ask("eyes", session=session).message


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """A function that does what Ctrl-C does, also if the shell that started the tests ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield _thread.interrupt_main
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_leaves_the_lane_and_the_file_as_they_were(tmp_path: Path, ctrl_c: Callable[[], None]) -> None:
    with taught_line(tmp_path) as line:
        before = line.file.read_text()
        result = line.teach("--step", "travel", feed=ctrl_c)
        assert result.return_value == 1
        assert "Stopped. Nothing was written." in result.output
        assert line.file.read_text() == before
        wait_until(lambda: line.lane.is_configured)
        assert used(line) == FORMER


def test_ctrl_c_after_the_board_has_the_new_settings_does_not_say_that_nothing_was_written(
    tmp_path: Path, ctrl_c: Callable[[], None]
) -> None:
    with taught_line(tmp_path) as line:
        before = line.file.read_text()
        line.commands.teaching.on_gate_changed = lambda gate: ctrl_c()
        result = line.teach("--step", "swing", "--yes", keys="90\n", feed=lambda: None)
        assert result.return_value == 1
        assert "Stopped while the new settings were sent." in result.output
        assert "Nothing was written" not in result.output
        assert line.file.read_text() == before
        assert line.lane.settings_by_lane[1].number("servo_ms") == 90


def test_a_person_who_says_no_changes_nothing_and_a_file_that_cannot_be_written_is_printed(tmp_path: Path) -> None:
    with taught_line(tmp_path, board='{ safe = "pass" }\nsafe = "pass"\nbaud = 115200') as line:
        before = line.file.read_text()
        assert line.teach("--step", "swing", keys="90\nn\n", feed=lambda: None).return_value == 1
        assert line.file.read_text() == before
        wait_until(lambda: line.lane.is_configured)
        # A header with spaces is valid TOML, but teach does not understand it.
        line.file.write_text(
            before.replace('board = { safe = "pass" }', 'board = { "safe" = "pass" } # { }').replace("[lines.gate]", "[ lines . gate ]")
        )
        changed = line.file.read_text()
        result = line.teach("--step", "swing", keys="90\ny\n", feed=lambda: None)
        assert result.return_value == 0, f"{result.output}\n{result.exception}"
        assert line.file.read_text() == changed
        assert "[lines.gate.board]\nservo_ms = 90" in result.output
        assert line.lane.settings_by_lane[1].number("servo_ms") == 90


def test_the_settings_file_keeps_its_owner_its_mode_and_the_link_that_leads_to_it(tmp_path: Path) -> None:
    with taught_line(tmp_path) as line:
        real = tmp_path / "etc" / "castline.toml"
        real.parent.mkdir()
        line.file.rename(real)
        line.file.symlink_to(real)
        os.chown(real, OWNER, OWNER)
        real.chmod(0o640)
        result = line.teach("--step", "swing", "--yes", keys="90\n", feed=lambda: None)
        assert result.return_value == 0, f"{result.output}\n{result.exception}"
        assert line.file.is_symlink()
        assert "servo_ms = 90" in real.read_text()
        status = real.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (OWNER, OWNER, 0o640)


class LateKeys(io.BytesIO):
    """The keys of a person who waits until the belt has moved before each line is typed."""

    def __init__(self, keys: bytes, line: TaughtLine) -> None:
        super().__init__(keys)
        self._line = line

    def read1(self, size: int | None = -1, /) -> bytes:
        assert isinstance(self._line.line, SimulatedLine)
        lane = self._line.line.board.lanes[0]
        before = lane.position_steps
        wait_until(lambda: lane.position_steps > before)
        return self.readline()


def test_a_length_that_a_person_types_in_gives_the_step_of_the_encoder(tmp_path: Path) -> None:
    belt = Belt(speed_mm_s=1000, eye_gap_mm=600, encoder_um=20)
    with taught_line(tmp_path, 600, board="{ encoder = 1, step_um = 20 }", belt=belt) as line:
        result = line.teach("--step", "encoder", "--yes", keys=LateKeys(b"\n100\n", line), feed=lambda: None)
        assert result.return_value == 0, f"{result.output}\n{result.exception}"
        page = (tmp_path / "page.html").read_text()
        steps = int(page.split(" um (")[1].split(" edges")[0])
        assert line.lane.settings_by_lane[1].step_nm == round(100 * 1e6 / steps)


def test_the_end_switch_gives_the_time_of_a_swing_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    """The simulated gate needs 120 ms for a swing. Later its end switch stays on, as with a bridged wire."""
    swing_ms, before_ms = 120, 80
    belt = Belt(speed_mm_s=1000, eye_gap_mm=600, servo_s=swing_ms / 1000)
    with taught_line(tmp_path, 600, avr=True, board="{ use_end_switch = 1 }", belt=belt) as line:
        result = line.teach("--step", "swing", "--yes", feed=lambda: None)
        assert result.return_value == 0, f"{result.output}\n{result.exception}"
        learnt_ms = tomllib.loads(line.file.read_text())["lines"][0]["gate"]["board"]["servo_ms"]
        assert learnt_ms >= swing_ms * 1.1 > before_ms
        assert "longest of 6 swings by the end switch" in (tmp_path / "page.html").read_text()
        wait_until(lambda: line.lane.is_configured)
        assert line.lane.oldest_fault == 0, "the board took the swings for a stuck gate"

        assert isinstance(line.line, AvrLine)
        line.line.belt.broken.add(END_SWITCH)
        refused = line.teach("--step", "swing", "--yes", feed=lambda: None)
        assert "has not left its end 2 s after the order to move" in str(refused.exception)
        assert tomllib.loads(line.file.read_text())["lines"][0]["gate"]["board"]["servo_ms"] == learnt_ms


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (("--port", "{port}", "--lane", "2"), "No running sorter of line-2 was found"),
        (("--line", "line-2", "--lane", "2"), "No running sorter of line-2 was found"),
        (("--port", "{port}"), "The options describe 2 lines. In the settings, line-1 is lane 1 of"),
        (("--port", "{port}", "--lane", "3"), "No line has this port and this lane. In the settings, line-1 is lane 1 of"),
        (("--line", "line-1", "--lane", "2"), "No line has this port and this lane. In the settings, line-1 is lane 1 of"),
        (("--lane", "2"), "Pass --line, or --port and --lane."),
        (("--line", "line-3"), "line-3"),
    ],
)
def test_a_board_with_two_lanes_is_taught_by_line_or_by_port_and_lane(tmp_path: Path, options: tuple[str, ...], answer: str) -> None:
    file, port = write_settings(tmp_path, 600), str(tmp_path / "board")
    with file.open("a") as text:
        text.write(f'\n[[lines]]\nname = "line-2"\n[lines.gate]\nport = "{port}"\nlane = 2\ntravel_mm = 600\n')
    arguments = [option.format(port=port) for option in options]
    runner = CliRunner(env=dict.fromkeys(name for name in os.environ if name.startswith("CASTLINE_")))
    result = runner.invoke(castline, ["--settings", str(file), "board", "teach", "--page", str(tmp_path / "page.html"), *arguments])
    assert answer in f"{result.output}{result.exception}"
    assert result.exit_code != 0
