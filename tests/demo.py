"""`castline demo` as a person calls it, in a session of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.processes import CASTLINE


class Demo:
    """A demo with its run folder below `folder`."""

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

    @property
    def run_folder(self) -> Path:
        (found,) = self.folder.glob("castline-demo-*")
        return found

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

    def end(self) -> None:
        """At once, whatever it does."""
        self.process.kill()
        self.process.wait()
