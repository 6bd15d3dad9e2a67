"""`castline demo` as a person calls it: real processes, a real Kafka, and a report that adds up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.demo import Demo
from tests.processes import CASTLINE

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    begun: list[Demo] = []

    def begin(*arguments: str) -> Demo:
        begun.append(Demo(tmp_path, *arguments))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def test_a_killed_inspector_loses_nothing_and_no_gate_moves_twice(demo: Callable[..., Demo]) -> None:
    run = demo("--lines", "1", "--keep", "--no-station", "--seconds", "25")
    run.wait_until(lambda: " running; " in run.said and "; verdicts 0 " not in run.said.splitlines()[-1])
    target = run.run_folder / "run" / "targets" / "inspector-1.json"
    os.kill(int(json.loads(target.read_text())[0]["labels"]["pid"]), signal.SIGKILL)
    assert run.wait() == 0, run.said
    assert run.log().count("inspector-1 ready") == 2
    report = run.report()
    assert report["restarts"] == {"inspector-1": 1}
    assert report["lost"] == report["repeated_moves"] == report["physical_mismatches"] == 0
    assert report["parts"] == report["pictures"] == report["verdicts"] == report["sorted"]
    assert run.leaves_nothing()


def test_a_second_interrupt_ends_it_at_once_and_leaves_nothing(demo: Callable[..., Demo]) -> None:
    run = demo("--lines", "1", "--no-station")
    run.wait_until(lambda: "broker ready" in run.log())
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 130
    assert run.leaves_nothing()


def test_a_killed_demo_leaves_no_process(demo: Callable[..., Demo]) -> None:
    run = demo("--lines", "1", "--no-station")
    run.wait_until(lambda: "topics done" in run.log())
    assert len(run.started()) >= 3
    run.process.kill()
    run.process.wait()
    assert run.leaves_nothing()


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (("--model", "no-such-version"), "expected the model folder", 3),
        (("--images", "/nowhere"), "does not exist", 2),
        (("--lines", "0"), "--lines", 2),
        (("--report", "nowhere/report.json"), "--report: expected an existing folder", 2),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...], words: str, status: int) -> None:
    found = subprocess.run([sys.executable, str(CASTLINE), "demo", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == status
    assert words in found.stderr
    assert not list(tmp_path.iterdir())
