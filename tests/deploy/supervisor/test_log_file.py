"""Logs that do not fill the disk."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from deploy.supervisor import Journal, LogFile
from deploy.supervisor.process import ChildProcess


def test_a_log_of_many_restarts_stays_small_and_keeps_its_last_lines(tmp_path: Path) -> None:
    file = tmp_path / "up.log"
    with LogFile(file, max_bytes=10_000) as log:
        journal = Journal(log)
        for number in range(2_000):
            journal.warn(f"worker-1 ended by itself, status 1 ({number})")
    kept = [line for one in (tmp_path / "up.log.1", file) for line in one.read_text().splitlines()]
    assert file.stat().st_size + (tmp_path / "up.log.1").stat().st_size < 21_000
    assert [int(line.rsplit("(")[1][:-1]) for line in kept] == list(range(2_000 - len(kept), 2_000)), "no line is lost in the move"


def test_a_log_is_appended_to_and_a_device_is_never_emptied(tmp_path: Path) -> None:
    file = tmp_path / "up.log"
    for text in ("first\n", "second\n"):
        with LogFile(file) as log:
            log.write(text)
            log.flush()
    assert file.read_text() == "first\nsecond\n"
    with LogFile(Path("/dev/null"), max_bytes=0) as log:
        log.write("text")
        log.flush()


def test_a_log_without_room_for_its_predecessor_begins_again(tmp_path: Path) -> None:
    file = tmp_path / "up.log"
    (tmp_path / "up.log.1").mkdir()
    with LogFile(file, max_bytes=10) as log:
        log.write("more than ten bytes\n")
        log.flush()
        assert file.read_text() == ""
        log.write("later\n")
        log.flush()
    assert file.read_text() == "later\n"


@pytest.mark.real
def test_an_output_without_line_breaks_is_passed_on_in_pieces() -> None:
    pieces: list[str] = []
    process = ChildProcess((sys.executable, "-S", "-c", "print('x' * 1_000_000, end='')"), pieces.append)
    while process.exit_status() is None:
        time.sleep(0.01)
    assert sum(map(len, pieces)) == 1_000_000
    assert max(map(len, pieces)) == 65_536
