"""Logs that do not fill the disk."""

from __future__ import annotations

import errno
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest

from deploy.supervisor import Journal, LogFile
from deploy.supervisor.process import ChildProcess
from tests.agents.gateway.camera_line import wait_until


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


def test_a_log_that_is_too_large_is_renamed_and_not_copied_while_all_roles_wait(tmp_path: Path) -> None:
    file = tmp_path / "up.log"
    with LogFile(file, max_bytes=10) as log:
        first = file.stat().st_ino
        log.write("more than ten bytes\n")
        log.flush()
        log.write("later\n")
        log.flush()
    assert (tmp_path / "up.log.1").stat().st_ino == first
    assert (tmp_path / "up.log.1").read_text() == "more than ten bytes\n"
    assert file.read_text() == "later\n"


def test_a_log_that_is_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    link, file = tmp_path / "up.log", tmp_path / "large disk.log"
    link.symlink_to(file)
    with LogFile(link, max_bytes=10) as log:
        log.write("more than ten bytes\n")
        log.flush()
    assert link.is_symlink()
    assert (tmp_path / "large disk.log.1").read_text() == "more than ten bytes\n"


def test_a_log_whose_successor_cannot_be_opened_goes_on_and_loses_no_line(tmp_path: Path) -> None:
    class FullDisk(LogFile):
        has_room = True

        def _open(self) -> TextIO:
            if not self.has_room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super()._open()

    file = tmp_path / "up.log"
    with FullDisk(file, max_bytes=10) as log:
        log.has_room = False
        for _ in range(2):
            log.write("ten bytes\n")
            log.flush()
        assert file.read_text() == "ten bytes\n" * 2
        log.has_room = True
        log.write("the last line\n")
        log.flush()
    assert (tmp_path / "up.log.1").read_text() == "ten bytes\n" * 2 + "the last line\n"
    assert file.read_text() == ""


def test_a_log_that_another_program_has_renamed_begins_again(tmp_path: Path) -> None:
    file = tmp_path / "up.log"
    with LogFile(file, max_bytes=10) as log:
        file.rename(tmp_path / "up.log-monday")
        log.write("more than ten bytes\n")
        log.flush()
        log.write("later\n")
        log.flush()
    assert (tmp_path / "up.log-monday").read_text() == "more than ten bytes\n"
    assert file.read_text() == "later\n"


def test_a_log_that_logrotate_has_renamed_and_created_again_keeps_its_lines(tmp_path: Path) -> None:
    """`logrotate` with the option `create` makes an empty file in the place of the renamed one. No signal tells the supervisor about it."""
    file = tmp_path / "up.log"
    with LogFile(file, max_bytes=10) as log:
        log.write("first\n")
        log.flush()
        file.rename(tmp_path / "up.log.1")
        file.touch()
        for text in ("more than ten bytes\n", "later\n"):
            log.write(text)
            log.flush()
    assert (tmp_path / "up.log.1").read_text() == "first\nmore than ten bytes\n"
    assert file.read_text() == "later\n"


def test_a_log_can_be_a_pipe_to_another_program() -> None:
    """A shell passes a pipe as `/dev/fd/NUMBER`, for example for `castline up --log >(rotatelogs …)`."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as output:
        with LogFile(Path(f"/dev/fd/{writer}"), max_bytes=0) as log:
            os.close(writer)
            for text in ("first\n", "second\n"):
                log.write(text)
                log.flush()
        assert output.read() == "first\nsecond\n"


@pytest.mark.real
def test_tail_follows_a_log_over_all_its_files_and_sees_each_line(tmp_path: Path) -> None:
    file, seen = tmp_path / "up.log", list[str]()
    with LogFile(file, max_bytes=1_000) as log:
        tail = ChildProcess(("/usr/bin/tail", "-n", "+1", "-F", str(file)), seen.append)
        try:
            for number in range(300):
                log.write(f"line {number}\n")
                log.flush()
                # A file is kept until the next one is full. The test waits in between, so that the reader is never behind by two files.
                if number % 100 == 99:
                    wait_until(partial(seen.__contains__, f"line {number}"))
        finally:
            tail.kill()
            wait_until(lambda: tail.exit_status() is not None)
    assert (tmp_path / "up.log.1").exists()
    assert [line for line in seen if line.startswith("line ")] == [f"line {number}" for number in range(300)]


@pytest.mark.real
def test_an_output_without_line_breaks_is_passed_on_in_pieces() -> None:
    pieces: list[str] = []
    process = ChildProcess((sys.executable, "-S", "-c", "print('x' * 1_000_000, end='')"), pieces.append)
    while process.exit_status() is None:
        time.sleep(0.01)
    assert sum(map(len, pieces)) == 1_000_000
    assert max(map(len, pieces)) == 65_536
