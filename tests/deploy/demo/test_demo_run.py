"""Tests of `castline demo` as a person calls it, with real processes and a real Kafka."""

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

from deploy.demo.report import PROMISED_FIELDS

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

CASTLINE = Path(sys.executable).with_name("castline")


class DemoProcess:
    """A demo as a process of its own, with its run folder below `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.output_file = folder / "output.txt"
        self.report_file = folder / "report.json"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
        with self.output_file.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(CASTLINE), "demo", "--report", str(self.report_file), *arguments],
                stdout=output,
                stderr=output,
                cwd=folder,
                env={
                    **environment,
                    "TMPDIR": str(folder),
                    # With the lowest priority, the localiser takes minutes to start while another test needs all processors.
                    "CASTLINE_INSPECTOR__LOCALISER_NICENESS": "0",
                    # This variable of a real plant must not reach the processes of the demo.
                    "CASTLINE_KAFKA__BOOTSTRAP": "127.0.0.1:1",
                },
                start_new_session=True,
            )

    @property
    def output_text(self) -> str:
        return self.output_file.read_text()

    def read_report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.report_file.read_text())
        return found

    def wait(self) -> int:
        return self.process.wait(240)

    def wait_until(self, done: Callable[[], bool], within_s: float = 120) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert self.process.poll() is None, self.output_text
            assert time.monotonic() < end, self.output_text
            time.sleep(0.1)

    def read_log(self) -> str:
        return "".join(file.read_text() for file in self.folder.glob("castline-demo-*/demo.log"))

    def list_processes(self) -> list[psutil.Process]:
        """Returns every process whose command line names the folder of the demo."""
        found = {
            process.pid: process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or ())
        }
        found.pop(self.process.pid, None)
        return list(found.values())

    def has_left_no_process(self) -> bool:
        _, alive = psutil.wait_procs(self.list_processes(), timeout=15)
        return not alive


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., DemoProcess]]:
    started: list[DemoProcess] = []

    def start(*arguments: str) -> DemoProcess:
        started.append(DemoProcess(tmp_path, *arguments))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.wait()


def test_every_part_of_three_lines_is_photographed_judged_and_sorted(demo: Callable[..., DemoProcess]) -> None:
    """The inspector is killed once while the lines run. Nothing is lost, no gate moves twice, and no other process starts again."""
    run = demo("--seconds", "15")
    run.wait_until(lambda: " running; " in run.output_text and "; verdicts 0 " not in run.output_text.splitlines()[-1])
    (target,) = run.folder.glob("castline-demo-*/run/targets/inspector-1.json")
    os.kill(int(json.loads(target.read_text())[0]["labels"]["pid"]), signal.SIGKILL)
    assert run.wait() == 0, run.output_text
    report = run.read_report()
    assert list(report)[: len(PROMISED_FIELDS)] == list(PROMISED_FIELDS)
    assert report["restarts"] == {"inspector-1": 1}
    assert report["parts"] == report["pictures"] == report["verdicts"] == report["sorted"] >= 3 * 20
    assert report["lost"] == report["repeated_moves"] == report["physical_mismatches"] == report["unexplained_moves"] == 0
    assert report["physical"]["fallen"] == report["parts"]
    assert report["diverted"] > 0
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["cpu_s"] > 0
    assert report["rss_mb"] > 0
    assert set(report["lines"]) == {"line-1", "line-2", "line-3"}
    assert sum(line["parts"] for line in report["lines"].values()) == report["parts"]
    assert "ignores: CASTLINE_KAFKA__BOOTSTRAP" in run.output_text
    # The castings were rendered with a seed on which the shipped weights were not trained.
    assert report["accuracy"] > 0.8
    assert run.has_left_no_process()
    assert not list(run.folder.glob("castline-demo-*")), "the run folder is removed"


def test_a_second_interrupt_ends_the_demo_at_once(demo: Callable[..., DemoProcess]) -> None:
    run = demo("--lines", "1", "--no-station")
    run.wait_until(lambda: "broker ready" in run.read_log())
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 130
    assert run.has_left_no_process()


def test_a_killed_demo_leaves_no_process(demo: Callable[..., DemoProcess]) -> None:
    run = demo("--lines", "1", "--no-station")
    run.wait_until(lambda: "topics done" in run.read_log())
    assert len(run.list_processes()) >= 3
    run.process.kill()
    run.process.wait()
    assert run.has_left_no_process()


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (("--model", "no-such-version"), "There is no version 'no-such-version'", 3),
        (("--images", "/nowhere"), "does not exist", 2),
        (("--lines", "0"), "--lines", 2),
        (("--report", "nowhere/report.json"), "Cannot write --report", 2),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...], words: str, status: int) -> None:
    found = subprocess.run([sys.executable, str(CASTLINE), "demo", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == status
    assert words in found.stderr
    assert not list(tmp_path.iterdir())
