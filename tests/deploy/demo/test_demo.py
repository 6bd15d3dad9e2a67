"""`castline demo` as a person calls it: real processes, a real Kafka, and a report that adds up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.demo.report import PROMISED

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

CASTLINE = Path(sys.executable).with_name("castline")


class Demo:
    """A demo in a session of its own, with its run folder below `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.output = folder / "output.txt"
        self.report_file = folder / "report.json"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(CASTLINE), "demo", "--report", str(self.report_file), *arguments],
                stdout=output,
                stderr=output,
                cwd=folder,
                # A variable of a real plant must not reach the demo's processes.
                env={**environment, "TMPDIR": str(folder), "CASTLINE_KAFKA__BOOTSTRAP": "127.0.0.1:1"},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.report_file.read_text())
        return found

    def wait(self) -> int:
        return self.process.wait(240)

    def wait_until(self, done: Callable[[], bool], within_s: float = 120) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.1)

    def log(self) -> str:
        return "".join(file.read_text() for file in self.folder.glob("castline-demo-*/demo.log"))

    def started(self) -> list[psutil.Process]:
        """Every process below the demo, and whatever names its folder."""
        found = {
            process.pid: process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or ())
        }
        found.pop(self.process.pid, None)
        return list(found.values())

    def leaves_nothing(self) -> bool:
        _, alive = psutil.wait_procs(self.started(), timeout=15)
        return not alive


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    begun: list[Demo] = []

    def begin(*arguments: str) -> Demo:
        begun.append(Demo(tmp_path, *arguments))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.wait()


def test_every_part_of_three_lines_is_photographed_judged_and_sorted(demo: Callable[..., Demo]) -> None:
    run = demo("--seconds", "15")
    assert run.wait() == 0, run.said
    report = run.report()
    assert list(report)[: len(PROMISED)] == list(PROMISED)
    assert report["parts"] == report["pictures"] == report["verdicts"] == report["sorted"] >= 3 * 20
    assert report["lost"] == report["repeated_moves"] == report["physical_mismatches"] == report["unexplained_moves"] == 0
    assert report["physical"]["fallen"] == report["parts"]
    assert report["diverted"] > 0
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["cpu_s"] > 0
    assert report["rss_mb"] > 0
    assert set(report["lines"]) == {"line-1", "line-2", "line-3"}
    assert sum(line["parts"] for line in report["lines"].values()) == report["parts"]
    assert report["restarts"] == {}
    assert "passed over: CASTLINE_KAFKA__BOOTSTRAP" in run.said
    # Rendered castings of a seed that the project's own weights have not seen.
    assert report["accuracy"] > 0.8
    assert run.leaves_nothing()
    assert not list(run.folder.glob("castline-demo-*")), "the run folder is removed"


def test_a_killed_inspector_loses_nothing_and_no_gate_moves_twice(demo: Callable[..., Demo]) -> None:
    run = demo("--lines", "1", "--keep", "--no-station")
    run.wait_until(lambda: " running; " in run.said and "; verdicts 0 " not in run.said.splitlines()[-1])
    (target,) = run.folder.glob("castline-demo-*/run/targets/inspector-1.json")
    os.kill(int(json.loads(target.read_text())[0]["labels"]["pid"]), signal.SIGKILL)
    run.wait_until(lambda: run.log().count("inspector-1 ready") == 2)
    time.sleep(5)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 0, run.said
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
