"""A thread or task that must live as long as its process starts again after each error, and its error shows."""

from __future__ import annotations

import ast
import asyncio
import sqlite3
import subprocess
import sys
import threading

import pytest
from prometheus_client import REGISTRY

from streams.health import ProcessHealth, ProgressWatchdog
from streams.supervision import SupervisedThread, list_thread_faults, run_supervised
from tests.log_lines import castline_records
from tests.structure.tree import ROOT, modules


def count_failures(name: str) -> float:
    return REGISTRY.get_sample_value("castline_thread_failures_total", {"thread": name}) or 0.0


def test_a_thread_starts_again_after_an_error_which_shows_in_log_metric_and_health(caplog: pytest.LogCaptureFixture) -> None:
    calls, works_again = 0, threading.Event()

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise sqlite3.OperationalError("database is locked")
        works_again.set()

    before = count_failures("janitor")
    thread = SupervisedThread("janitor", work)
    thread.start()
    assert works_again.wait(30)
    thread.join(30)
    assert not thread.is_alive(), "the thread ends when its work returns"
    assert count_failures("janitor") == before + 1
    (record,) = [record for record in castline_records(caplog) if "janitor" in record.getMessage()]
    assert record.exc_info is not None, "the log has the traceback"
    status, text = ProcessHealth("gateway", ProgressWatchdog(30)).check_health()
    assert status == 200, "the thread lives again, so nothing has to be restarted"
    assert 'the thread "janitor" failed' in text
    assert "database is locked" in text


def test_a_thread_that_is_asked_to_stop_does_not_wait_for_its_next_start() -> None:
    stopping, has_failed = threading.Event(), threading.Event()

    def work() -> None:
        has_failed.set()
        raise ZeroDivisionError

    thread = SupervisedThread("stopped", work, stopping)
    thread.start()
    assert has_failed.wait(30)
    stopping.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_task_starts_again_after_an_error_and_ends_when_its_work_returns() -> None:
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError("an error that nobody expects")

    asyncio.run(run_supervised("task", work))
    assert calls == 2
    assert count_failures("task") == 1
    assert any("an error that nobody expects" in fault for fault in list_thread_faults())


def test_every_thread_of_the_plant_is_supervised() -> None:
    calls = [
        (str(file), ast.unparse(node.func))
        for file in modules("streams", "agents", "station", "deploy")
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    plain = {call for call in calls if call[1] in ("threading.Thread", "Thread") or call[1].endswith(".make_thread")}
    assert plain == {
        ("streams/operating_system.py", "threading.Thread"),
        ("streams/supervision.py", "system.make_thread"),
    }, "start a thread with SupervisedThread, so that an error does not end it for ever"


# A thread that fails as without memory, before `start` learns that it runs.
_NO_MEMORY = """
import threading
from streams.supervision import end_if_a_thread_cannot_begin

class Thread(threading.Thread):
    def _set_ident(self):
        raise MemoryError

end_if_a_thread_cannot_begin()
Thread().start()
"""


def test_a_thread_that_cannot_begin_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", _NO_MEMORY], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "A thread failed outside its work, so this process ends.\n"
