"""The group commit: a callback that fails stops neither the other callbacks nor the line."""

from __future__ import annotations

import threading
from pathlib import Path

from agents.gateway.group_commit import GroupCommit
from agents.gateway.spool import Spool, SpoolBudget


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
