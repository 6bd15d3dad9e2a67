"""Starts a broker and an inspector for a measurement. They are real processes on free ports, and they are stopped after the measurement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from kafka import KafkaAdminClient

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topic_creation import create_topics

CASTLINE = Path(sys.executable).with_name("castline")
MEASURED_SECTIONS = ("model", "batch", "inspector", "pictures")
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 60.0


def make_bench_settings(base: Settings, folder: Path, line_count: int = 3) -> Settings:
    """Returns settings for a measurement.

    The sections that affect the speed come from `base`. All other sections are new, with free ports and with files below `folder`.
    """
    return Settings.model_validate(
        {
            **base.model_dump(include=set(MEASURED_SECTIONS)),
            "broker": {"port": free_ports(2), "data_dir": folder / "kafka", "access": "open"},
            "service": {"run_dir": folder / "run"},
            "store": {"url": str(folder / "store")},
            "station": {"port": free_ports(1), "database": str(folder / "station.sqlite3"), "secret_key_file": folder / "key"},
            "lines": [{"name": f"line-{number}"} for number in range(1, line_count + 1)],
        }
    )


@contextmanager
def run_broker(settings: Settings, properties: Mapping[str, str] | None = None) -> Iterator[EmbeddedBroker]:
    """Runs an embedded broker with `settings` during a `with` block. `properties` are additional properties for Kafka."""
    broker = EmbeddedBroker(settings, properties=properties)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop(20)


def create_bench_topics(settings: Settings) -> None:
    """Creates all topics of `settings` on its broker."""
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    try:
        create_topics(admin, settings)
    finally:
        admin.close()


def make_environment(sections: Mapping[str, Any]) -> dict[str, str]:
    """Returns the environment variables for a program that must use the settings in `sections`.

    Each section becomes one variable, such as CASTLINE_BATCH, with its settings as JSON. All other variables that begin with CASTLINE_ are
    left out. The rest comes from this process.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
    return plain | {f"CASTLINE_{name.upper()}": json.dumps(value) for name, value in sections.items()}


def make_settings_environment(settings: Settings) -> dict[str, str]:
    """Returns the environment variables of this process, plus a CASTLINE_ variable for each setting in `settings`.

    Tokens and passwords are left out.
    """
    sections = settings.model_dump(mode="json", exclude_none=True, exclude={"gateway": {"token"}, "kafka": {"password"}})
    for line in sections["lines"]:
        line.pop("token")
    sections["station"].pop("secret_key")
    return make_environment(sections)


class RoleProcess:
    """Runs one role of Castline, such as `castline inspector`, as a process during a `with` block.

    `run_dir` is the value of `service.run_dir`. The process writes the address of its health pages there.

    Raises BrokerError if the process does not become ready.
    """

    def __init__(
        self,
        castline: Sequence[str | Path],
        environment: Mapping[str, str],
        run_dir: Path,
        log_file: Path,
        folder: Path | None = None,
        role: str = "inspector",
    ) -> None:
        """Creates the object and starts nothing yet.

        `castline` is the program with options such as --settings, and `folder` is the working directory of the process.
        """
        self._role = role
        self._command = [*castline, role]
        self._environment = environment
        self._targets = run_dir / "targets"
        self._log_file = log_file
        self._folder = folder
        self._process: subprocess.Popen[bytes]

    @classmethod
    def of_settings(cls, settings: Settings, folder: Path, castline: Sequence[str | Path] = (CASTLINE,), role: str = "inspector") -> Self:
        """Returns a process of the role `role` that uses `settings`. The process writes its log to the file `folder`/`role`.log."""
        return cls(castline, make_settings_environment(settings), settings.service.run_dir, folder / f"{role}.log", role=role)

    def __enter__(self) -> Self:
        # A process that was killed leaves a file with its address behind. Delete this file, because the new process has another address.
        for target in self._targets.glob(f"{self._role}-*.json"):
            target.unlink()
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                bound_command(self._command), env=dict(self._environment), cwd=self._folder, stdout=log, stderr=log
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            self.check_alive()
            if time.monotonic() > deadline_s:
                raise BrokerError(f"The {self._role} was not ready within {_START_TIMEOUT_S:.0f} s. {self._describe_log()}")
            time.sleep(0.2)

    def check_alive(self) -> None:
        """Raises BrokerError, with the end of the log, if the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise BrokerError(f"The {self._role} ended with exit status {status}. {self._describe_log()}")

    def _describe_log(self) -> str:
        return f"The end of its log: {self._log_file.read_text(errors='replace')[-2000:]}"

    def _is_ready(self) -> bool:
        try:
            return bool(self._get_page("/readyz"))
        except (OSError, ValueError, HTTPException):
            return False

    def read_metrics(self) -> bytes:
        """Returns the metrics page of the process.

        Raises OSError or ValueError if the process does not serve the page, for example before it is ready.
        """
        return self._get_page("/metrics")

    def _get_page(self, path: str) -> bytes:
        (target,) = self._targets.glob(f"{self._role}-*.json")
        (entry,) = json.loads(target.read_text())
        with urllib.request.urlopen(f"http://{entry['targets'][0]}{path}", timeout=10) as response:
            page: bytes = response.read()
        return page

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_resident_mb(self) -> float:
        """Returns the resident memory of the process in MB of 1,000,000 bytes."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6
