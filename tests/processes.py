"""Castline's roles as real processes, started, watched, killed and stopped by the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.supervisor.launch import bound_command
from streams.settings import Settings

CASTLINE = Path(sys.executable).with_name("castline")


def make_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with `settings` as the variables that a `castline` process reads. Secrets stay behind."""
    sections = settings.model_dump(mode="json", exclude_none=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
    return plain | {f"CASTLINE_{name.upper()}": json.dumps(_without_secrets(value)) for name, value in sections.items()}


def _without_secrets(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_secrets(inner) for name, inner in value.items() if inner not in ("", "**********")}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _answer(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


class CastlineProcess:
    """One `castline` process. Its log goes to a file, which a failure shows."""

    def __init__(self, settings: Settings, log: Path, *arguments: str) -> None:
        self._settings = settings
        self._log = log
        self.arguments = arguments
        self.started_s = 0.0
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Starts the process (again)."""
        self.started_s = time.monotonic()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                bound_command([CASTLINE, *self.arguments]), env=make_environment(self._settings), stdout=log, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.stop()
        if error is not None:
            print(f"--- {' '.join(self.arguments)}\n{self.log()[-6000:]}")

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def address(self) -> str | None:
        """Where this process serves its health, None before it does."""
        for target in (self._settings.service.run_dir / "targets").glob("*.json"):
            (entry,) = json.loads(target.read_text())
            if entry["labels"]["pid"] == str(self.process.pid):
                return str(entry["targets"][0])
        return None

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages; 0 when it does not answer."""
        address = self.address()
        if address is None:
            return 0, ""
        try:
            return _answer(f"http://{address}{path}")
        except (OSError, HTTPException):  # it may end in the middle of its answer
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called `name` whose labels include `labels`."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in self.page("/metrics")[1].splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    def wait_ready(self, within_s: float = 90) -> Self:
        """Returns once /readyz says so."""
        until = time.monotonic() + within_s
        while self.page("/readyz")[0] != 200:
            assert self.process.poll() is None, f"{self.arguments} ended with {self.process.returncode}\n{self.log()[-4000:]}"
            assert time.monotonic() < until, (
                f"{self.arguments} is not ready after {within_s} s: {self.page('/readyz')}\n{self.log()[-4000:]}"
            )
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 40) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
