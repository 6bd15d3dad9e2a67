"""Starts, checks, kills and stops real `castline` processes in tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.supervisor.launch import bound_command
from streams.health import PAGE_AGE_HEADER
from streams.settings import Settings

CASTLINE = Path(sys.executable).with_name("castline")


def enable_ctrl_c() -> None:
    """For `preexec_fn`: lets a program react to SIGINT, because a shell that runs the tests in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def make_environment(settings: Settings) -> dict[str, str]:
    """Returns the environment for a `castline` process: that of this process, plus `settings` as variables, without secrets."""
    sections = settings.model_dump(mode="json", exclude_none=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
    return inherited | {f"CASTLINE_{name.upper()}": json.dumps(without_secrets(value)) for name, value in sections.items()}


def without_secrets(value: object) -> object:
    """Returns a value of settings without empty and hidden secrets."""
    if isinstance(value, dict):
        return {name: without_secrets(inner) for name, inner in value.items() if inner not in ("", "**********")}
    return [without_secrets(inner) for inner in value] if isinstance(value, list) else value


def get_page(url: str) -> tuple[int, str]:
    """Returns the HTTP status and the text of the page at `url`."""
    return _get_page(url)[:2]


def _get_page(url: str) -> tuple[int, str, Message]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


class CastlineProcess:
    """A running `castline` process. Its log goes to a file, whose end is printed if the test fails.

    With `file` the process reads its settings from that file, secrets included, and none from the environment. `environment` holds further
    variables of the environment.
    """

    def __init__(
        self, settings: Settings, log: Path, *arguments: str, file: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._file = file
        self._environment = environment or {}
        self._log = log
        self.arguments = arguments
        self.started_s = 0.0
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Starts the process, or starts it again."""
        self.started_s = time.monotonic()
        command = [CASTLINE, *(("--settings", self._file) if self._file else ()), *self.arguments]
        environment = make_environment(self._settings)
        if self._file:
            environment = {name: value for name, value in environment.items() if not name.startswith("CASTLINE_")}
        environment |= self._environment
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(bound_command(command), env=environment, stdout=log, stderr=log)

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
        """Returns the address of the process's health pages, or None if it does not serve them yet."""
        for target in (self._settings.service.run_dir / "targets").glob("*.json"):
            (entry,) = json.loads(target.read_text())
            if entry["labels"]["pid"] == str(self.process.pid):
                return str(entry["targets"][0])
        return None

    def page(self, path: str) -> tuple[int, str]:
        """Returns HTTP status and text of a health page. The status is 0 if the process does not answer."""
        return self._page(path)[:2]

    def _page(self, path: str) -> tuple[int, str, Message]:
        address = self.address()
        if address is None:
            return 0, "", Message()
        try:
            return _get_page(f"http://{address}{path}")
        except (OSError, HTTPException):  # The process may end while it answers.
            return 0, "", Message()

    def metric(self, name: str, **labels: str) -> float:
        """Returns the sum of all samples of the metric `name` that have these labels, or 0 while the process starts.

        The samples are not older than the call. Fails if the process has ended.
        """
        began_s = time.monotonic()
        while True:
            assert self.process.poll() is None, f"{self.arguments} ended with {self.process.returncode}, so it has no metrics"
            text, age_s = self._metrics()
            if age_s <= time.monotonic() - began_s:
                break
            time.sleep(0.02)
        pairs = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(pair in line for pair in pairs))

    def _metrics(self) -> tuple[str, float]:
        """Returns the text of the page /metrics and its age in seconds. A process that starts has an empty page."""
        status, text, headers = self._page("/metrics")
        return text, float(headers[PAGE_AGE_HEADER]) if status == 200 else 0.0

    def wait_ready(self, within_s: float = 180) -> Self:
        """Returns once the process is ready. Fails if it ends, or is not ready after `within_s` seconds."""
        deadline_s = time.monotonic() + within_s
        while self.page("/readyz")[0] != 200:
            assert self.process.poll() is None, f"{self.arguments} ended with {self.process.returncode}\n{self.log()[-4000:]}"
            assert time.monotonic() < deadline_s, (
                f"{self.arguments} is not ready after {within_s} s: {self.page('/readyz')}\n{self.log()[-4000:]}"
            )
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """Kills the process with SIGKILL, so that it cannot finish its work."""
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 40) -> int:
        """Sends SIGTERM, waits for the end of the process and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
