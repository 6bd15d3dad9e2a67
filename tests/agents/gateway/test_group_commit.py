"""The group commit: no picture is confirmed before its flush, and a callback that fails does not stop the line."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from agents.gateway.group_commit import GroupCommit
from agents.gateway.spool import Spool, SpoolBudget


class HeldSpool(Spool):
    """A spool whose disk answers a flush only when the test allows it, and then fails if `error` is set."""

    error: OSError | None = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "line-1", SpoolBudget(2**20))
        self.is_flushing, self.may_answer = threading.Event(), threading.Event()

    def flush(self) -> None:
        self.is_flushing.set()
        assert self.may_answer.wait(10)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "Input/output error")], ids=["flushed", "failed"])
@pytest.mark.parametrize("is_started", [True, False], ids=["in its thread", "without thread"])
def test_a_picture_is_answered_with_the_result_of_its_flush(tmp_path: Path, error: OSError | None, is_started: bool) -> None:
    spool = HeldSpool(tmp_path)
    spool.error = error
    commit, answers, is_answered = GroupCommit(spool, max_bytes=100), list[OSError | None](), threading.Event()

    def answer(failure: OSError | None) -> None:
        answers.append(failure)
        is_answered.set()

    if is_started:
        commit.start()
    adding = threading.Thread(target=commit.add, args=(1, answer))
    adding.start()
    assert spool.is_flushing.wait(10)
    assert answers == [], "the picture is not on the disk"
    spool.may_answer.set()
    assert is_answered.wait(10)
    assert answers == [error]
    adding.join(10)
    if is_started:
        commit.stop()
    spool.close()


def test_a_callback_that_fails_blocks_neither_its_group_nor_the_next_picture(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "line-1", SpoolBudget(2**20))
    commit = GroupCommit(spool, max_bytes=20)
    may_flush, is_third_answered, is_last_answered = threading.Event(), threading.Event(), threading.Event()

    def fail(error: OSError | None) -> None:
        raise RuntimeError("for this test")

    def wait(error: OSError | None) -> None:
        may_flush.wait(10)

    commit.start()
    # The thread waits in this callback until the next two pictures form a group.
    commit.add(1, wait)
    commit.add(9, fail)
    commit.add(11, lambda error: is_third_answered.set())
    may_flush.set()
    threading.Thread(target=commit.add, args=(1, lambda error: is_last_answered.set()), daemon=True).start()
    assert is_third_answered.wait(10)
    assert is_last_answered.wait(10), "the group with the failed callback still counts as waiting"
    commit.stop()
    spool.close()
