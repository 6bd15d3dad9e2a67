"""The servo's positions are learnt by keys in a real terminal, and every line fits 60 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agents.sorter.taught_line import LINE, TaughtLine, taught_line
from tests.processes import CASTLINE, enable_ctrl_c
from tests.wired_line import wait_until

pytestmark = pytest.mark.real
COLUMNS = 60
LEFT, UP = "\x1b[D", "\x1b[A"


class Terminal:
    """A program in a terminal with 60 columns."""

    def __init__(self, *arguments: str) -> None:
        self.shown = ""
        self._fd, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_") and name != "COLUMNS"}

        def become_foreground() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            enable_ctrl_c()

        self.process = subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, env=environment, preexec_fn=become_foreground)
        os.close(slave)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := os.read(self._fd, 4096):
                self.shown += data.decode()
        except OSError:  # The program has ended.
            return

    def type(self, keys: str, then: str) -> None:
        """Types keys, and waits until the terminal shows the text `then`."""
        before = len(self.shown)
        os.write(self._fd, keys.encode())
        wait_until(lambda: then in self.shown[before:])


@contextmanager
def terminal(line: TaughtLine, *arguments: str) -> Iterator[Terminal]:
    page = str(line.file.with_name("page.html"))
    opened = Terminal(str(CASTLINE), "--settings", str(line.file), "board", "teach", "--line", LINE, "--page", page, *arguments)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        print(opened.shown, file=sys.stderr)


def pulse_us(line: TaughtLine) -> int:
    found = re.search(r"pulse_us (\d+)", line.call("status", "--line", LINE).output)
    assert found is not None
    return int(found[1])


def test_arrow_keys_move_the_servo_and_choose_its_positions(tmp_path: Path) -> None:
    with taught_line(tmp_path) as line, terminal(line, "--step", "servo") as shown:
        wait_until(lambda: "pulse 1000 us" in shown.shown, 30)
        shown.type(UP, "pulse 1050 us")
        shown.type(LEFT, "pulse 1045 us")
        wait_until(lambda: pulse_us(line) == 1045)
        shown.type("r", "rest 1045")
        shown.type(UP, "pulse 1095 us")
        shown.type("o", "out 1095")
        shown.type("\n", "Use these settings?")
        wait_until(lambda: pulse_us(line) == 1000)
        shown.type("y\n", "The teaching report")
        assert shown.process.wait(20) == 0
        assert "board = { rest_us = 1045, out_us = 1095 }" in line.file.read_text()
        wait_until(lambda: pulse_us(line) == 1045)
        rows = [row for part in shown.shown.split("\n") for row in part.split("\r")]
        paths = str(tmp_path)
        assert [row for row in rows if len(row) > COLUMNS and paths not in row] == []


def test_keys_that_come_at_once_all_count(tmp_path: Path) -> None:
    with taught_line(tmp_path) as line, terminal(line, "--step", "servo") as shown:
        wait_until(lambda: "pulse 1000 us" in shown.shown, 30)
        shown.type(UP * 3 + LEFT * 2 + "r" + UP, "pulse 1190 us")
        assert "rest 1140" in shown.shown


def test_ctrl_c_puts_the_servo_at_rest(tmp_path: Path) -> None:
    with taught_line(tmp_path) as line, terminal(line, "--step", "servo") as shown:
        wait_until(lambda: "pulse 1000 us" in shown.shown, 30)
        shown.type(UP, "pulse 1050 us")
        wait_until(lambda: pulse_us(line) == 1050)
        shown.type("\x03", "Stopped.")
        assert shown.process.wait(20) == 1
        assert pulse_us(line) == 1000
        assert "rest_us" not in line.file.read_text()
