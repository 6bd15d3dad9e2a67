"""Trouble at the serial port gives a sentence that says what to do, through the socket and the commands of `castline board`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agents.sorter.command_socket import ask_sorter
from firmware.board.board import Board
from firmware.board.line import PseudoTerminal, SimulatedLine
from firmware.board.memory import BoardMemory
from firmware.board.plant import Plant
from streams.records import make_command
from tests.agents.sorter.taught_line import LINE, TaughtLine, in_thread, run_sorter, taught_line, write_settings
from tests.wired_line import wait_until

pytestmark = pytest.mark.real


def check_all_commands(line: TaughtLine, *sentences: str) -> None:
    """Checks that `status`, `monitor`, `teach` and the socket itself say the sentences."""
    wait_until(lambda: sentences[0] in line.lane.problem, 30)
    results = [line.call("status", "--line", LINE), line.call("monitor", "--once", "--line", LINE), line.teach(feed=lambda: None)]
    texts = [str(result.exception) for result in results]
    answered = ask_sorter(line.file.parent / "run", make_command(LINE, "status", "anna", 5))
    assert answered is not None
    assert answered.answer is not None
    assert answered.answer.outcome == "failed"
    for text in (*texts, answered.answer.message):
        for sentence in sentences:
            assert sentence in text


def unconnected_line() -> SimulatedLine:
    return SimulatedLine(Board(BoardMemory()), Plant())


def test_another_sketch_at_the_port_is_named_with_the_remedy(tmp_path: Path) -> None:
    file, line = write_settings(tmp_path, 600), unconnected_line()
    with PseudoTerminal(tmp_path / "board") as terminal:

        def blink(stopping: threading.Event) -> None:
            while not stopping.wait(0.1):
                terminal.read(0)
                terminal.write(b"Blink! The LED is on.\r\n")

        with in_thread(blink), run_sorter(file, line, line.plant) as sorter:
            check_all_commands(sorter, "sends bytes that are no frames of the gate protocol", 'with "castline board flash"')


def test_a_port_that_vanishes_is_named_with_the_remedy(tmp_path: Path) -> None:
    with taught_line(tmp_path) as line:
        before = line.file.read_text()
        result = line.teach("--step", "travel", "--yes", feed=line.unplug)
        assert "no connection to the board" in str(result.exception)
        assert line.file.read_text() == before
        check_all_commands(line, "There is no serial port", "Connect the board")


def test_two_sorters_for_one_board_are_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with taught_line(tmp_path) as first:
        file = write_settings(tmp_path / "second", 600)
        file.write_text(file.read_text().replace(str(tmp_path / "second" / "board"), str(tmp_path / "board")))
        with run_sorter(file, first.line, first.plant) as second:
            check_all_commands(second, "Another program uses the serial port", "Stop that program")
        assert first.call("status", "--line", LINE).return_value == 0
