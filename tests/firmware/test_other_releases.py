"""A new host at a board of release 0.1.0, a host of release 0.1.0 at a new board, and the change from one firmware to the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.gate.lane import GateLane, GateState
from agents.gate.link import GateLink, LinkSettings
from firmware import toolchain
from firmware.board.board import Board, CommandError
from firmware.board.line import PseudoTerminal, SimulatedLine, run_in_real_time
from firmware.board.memory import BoardMemory
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.lane_settings import TABLE, LaneSettings, SettingValue
from firmware.pins import LANES
from firmware.protocol import MAX_FRAME_BYTES_0_1_0, Deframer, Fields, Frame
from firmware.simulator.avr import RealTimeBoard, SimulatedBoard, start_mega
from tests.agents.sorter.taught_line import in_thread
from tests.firmware.castings import pass_casting
from tests.firmware.releases import KEYS_0_1_0, old_firmware, recorded_session
from tests.wired_line import EventRecorder, wait_until

pytestmark = pytest.mark.real

PINS = LANES[0]
TRAVEL_MS = 2000
SETTINGS: dict[str, SettingValue] = {"step_um": 1000, "eye_gap_mm": TRAVEL_MS, "window_mm": 200, "part_max_mm": 900, "dwell_mm": 77}
OLD_KEYS = [setting.key for setting in TABLE[:KEYS_0_1_0]]


@pytest.fixture
def old_board(tmp_path: Path) -> Iterator[RealTimeBoard]:
    with RealTimeBoard(old_firmware(tmp_path), tmp_path / "board", tmp_path / "eeprom") as board:
        for level, pin in ((False, PINS.estop), (True, PINS.eye1), (True, PINS.eye2)):
            board.set_pin(pin.port, level)
        yield board


@contextmanager
def connect(folder: Path, recorder: EventRecorder, **settings: SettingValue) -> Iterator[GateLane]:
    link = GateLink(LinkSettings(str(folder / "board")))
    lane = link.add_lane("line-1", recorder, LaneSettings(SETTINGS | settings))
    link.start()
    try:
        yield lane
    finally:
        link.stop()


def wait_for(board: RealTimeBoard, condition: Callable[[], object]) -> None:
    """Waits until `condition()` is true, and reads the events of the simulator in the meantime."""

    def is_met() -> object:
        board.poll()
        return condition()

    wait_until(is_met, 30)


def test_a_new_host_sorts_with_a_board_of_release_0_1_0(old_board: RealTimeBoard, tmp_path: Path) -> None:
    recorder = EventRecorder()
    with connect(tmp_path, recorder) as lane:
        wait_for(old_board, lambda: lane.state is GateState.RUNNING)
        pass_casting(old_board, TRAVEL_MS / 1000)
        wait_for(old_board, lambda: recorder.counted)
        told = lane.send_verdict(1, recorder.counted[0].part, "divert")
        wait_for(old_board, told.done)
        assert told.result().fields["told"] == "accepted"
        wait_for(old_board, lambda: recorder.sorted)
        (part,) = recorder.sorted
        assert (part.part, part.action, part.reason, part.moved) == (1, "divert", "verdict", True)
        assert part.is_confirmed is None, "the board has no eye in its chute"
        lane.acknowledge_event(part.event, part.run)


def test_a_setting_that_an_old_board_does_not_know_is_explained_and_the_lane_stays_safe(
    old_board: RealTimeBoard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(tmp_path, EventRecorder(), eye_light_on=1) as lane:
        wait_for(old_board, lambda: lane.state is GateState.REFUSED)
        wait_for(old_board, lambda: lane.problem)
        assert not lane.is_configured
    for text in (lane.problem, caplog.text):
        assert "does not know the setting eye_light_on" in text
        assert "castline board flash" in text
    assert not old_board.levels.get(PINS.relay.port), "the belt runs without settings"


def test_an_old_board_that_repeats_runs_is_served_and_the_log_says_what_to_do(
    old_board: RealTimeBoard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(tmp_path, EventRecorder()) as lane:
        lane.choose_run = lambda run, counted: 18
        with caplog.at_level(logging.ERROR):
            wait_for(old_board, lambda: lane.state is GateState.RUNNING)
        assert lane.run == 1
    assert "from 1 to 18, but refuses the change" in caplog.text
    assert "castline board flash" in caplog.text


class NextBoard(Board):
    """A board with firmware of the future, which supports only version 2 of the gate protocol."""

    def _do_hello(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        raise CommandError("version")


def test_a_board_that_supports_only_another_protocol_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    line = SimulatedLine(NextBoard(BoardMemory()), Plant(Belt(), CastingFeed(parts=0)))
    with (
        PseudoTerminal(tmp_path / "board") as terminal,
        in_thread(lambda stopping: run_in_real_time(line, terminal, stopping)),
        connect(tmp_path, EventRecorder()) as lane,
    ):
        wait_until(lambda: lane.problem)
        assert lane.state is GateState.REFUSED
    assert "does not support version 1 of the gate protocol" in lane.problem
    assert "castline board flash" in lane.problem
    assert line.board.state == "waiting"


class Replay:
    """Sends the recorded frames and inputs to a board at the recorded times, and stores all frames of the board."""

    def __init__(self, board: SimulatedBoard) -> None:
        self.board = board
        self.frames: list[Frame] = []
        self.longest = 0
        self._deframer = Deframer("<!")

    def run(self) -> None:
        session = recorded_session()
        for at_ms, what in session:
            self._run_until(at_ms)
            if isinstance(what, Frame):
                self.board.send(what.encode())
            else:
                name, level = what.split()
                self.board.set_pin(getattr(PINS, name).port, level == "1")
        self._run_until(session[-1][0] + 1000)

    def _run_until(self, at_ms: int) -> None:
        self.board.run_until(at_ms * 1000)
        for sent in self.board.take_sent():
            for frame in self._deframer.feed(sent.data):
                self.frames.append(frame)
                self.longest = max(self.longest, len(frame.encode()))

    def events(self, name: str) -> list[tuple[str, ...]]:
        """Returns the fields of all events of that name without repetitions."""
        return list(dict.fromkeys(frame.fields for frame in self.frames if frame.start == "!" and frame.name == name))


def test_a_host_of_release_0_1_0_sorts_with_the_new_firmware(tmp_path: Path) -> None:
    with start_mega(toolchain.build_firmware(), tmp_path / "eeprom") as board:
        replay = Replay(board)
        replay.run()
    commands = [what for _, what in recorded_session() if isinstance(what, Frame)]
    answers = [frame for frame in replay.frames if frame.start == "<"]
    assert [answer.seq for answer in answers] == [command.seq for command in commands]
    by_command = {" ".join((command.name, *command.fields)): answer for command, answer in zip(commands, answers, strict=True)}
    # Part 4 had already reached its gate, and part 5 already had another verdict.
    refusals = {command: answer.fields for command, answer in by_command.items() if answer.name != "OK"}
    assert refusals == {"VERDICT 1 1 4 keep 0": ("20", "late"), "VERDICT 1 1 5 keep 0": ("23", "conflict")}
    gates = replay.events("GATE")
    assert [gate[3:7] for gate in gates] == [
        ("1", "divert", "verdict", "1"),
        ("2", "pass", "verdict", "0"),
        ("3", "divert", "no-verdict", "1"),
        ("4", "divert", "no-verdict", "1"),
        ("5", "divert", "verdict", "1"),
        ("6", "divert", "verdict", "1"),
    ]
    assert [fault[2:4] for fault in replay.events("FAULT")] == [("45", "1"), ("45", "0")]
    # The fields that release 0.1.0 knew come first in each frame, and it ignores later fields.
    assert by_command["HELLO 1"].fields == ("1", "1", "power", "4", "64", "64", "4", "1")
    assert by_command["SHOW 1 dwell_mm"].fields == ("dwell_mm", "60")
    assert by_command["TEST 1 7 lamp"].fields == ("done",)
    assert by_command["STATUS 1 count"].fields[:2] == ("count", "6")
    assert {len(gate) for gate in gates} == {10}
    assert replay.longest <= MAX_FRAME_BYTES_0_1_0


class Mega:
    """A Mega that runs in the time of the test. Its EEPROM is kept in a file."""

    def __init__(self, board: SimulatedBoard) -> None:
        self.board = board
        self._deframer = Deframer("<!")
        board.set_pin(PINS.estop.port, False)
        board.run_until(60_000)
        board.take_sent()

    def ask(self, name: str, *fields: object) -> tuple[str, ...]:
        self.board.send(Frame(">", 7, name, tuple(map(str, fields))).encode())
        for _ in range(60):
            self.board.run_until(self.board.now_us + 1000)
            for sent in self.board.take_sent():
                for frame in self._deframer.feed(sent.data):
                    if frame.start == "<":
                        return frame.name, *frame.fields
        raise AssertionError(f"no answer to {name} {fields}")

    def configure(self, keys: list[str]) -> None:
        self.ask("HELLO", 1)
        for key, value in LaneSettings(SETTINGS).values.items():
            if key in keys:
                assert self.ask("CONFIGURE", 1, key, value)[0] == "OK"
        assert self.ask("COMMIT", 1)[0] == "OK"
        # Storing the settings takes 3.3 ms a byte.
        self.board.run_until(self.board.now_us + 500_000)

    def settings(self) -> dict[str, str]:
        return {key: self.ask("SHOW", 1, key)[2] for key in OLD_KEYS}


EXPECTED = {key: str(value) for key, value in LaneSettings(SETTINGS).values.items() if key in OLD_KEYS}


def test_an_upgrade_of_the_firmware_keeps_the_settings_and_the_run(tmp_path: Path) -> None:
    with start_mega(old_firmware(tmp_path), tmp_path / "eeprom") as board:
        Mega(board).configure(OLD_KEYS)
    with start_mega(toolchain.build_firmware(), tmp_path / "eeprom") as board:
        mega = Mega(board)
        assert mega.ask("HELLO", 1)[:3] == ("OK", "1", "2"), "the second run"
        assert mega.settings() == EXPECTED
        assert mega.ask("STATUS", 1, "line")[2:4] == ("waiting", "0")


def test_a_return_to_old_firmware_loses_the_stored_settings_and_says_so(tmp_path: Path) -> None:
    """Firmware of release 0.1.0 cannot read the stored settings of later firmware. The sorter sends all settings again."""
    with start_mega(toolchain.build_firmware(), tmp_path / "eeprom") as board:
        Mega(board).configure([setting.key for setting in TABLE])
    with start_mega(old_firmware(tmp_path), tmp_path / "eeprom") as board:
        mega = Mega(board)
        assert mega.ask("STATUS", 1, "line")[2:4] == ("waiting", "51")
        assert not board.levels.get(PINS.relay.port)
        mega.configure(OLD_KEYS)
        assert mega.settings() == EXPECTED
        assert mega.ask("STATUS", 1, "line")[2:4] == ("running", "0")
