"""A broker, topics and an inspector of one's own for a measurement: real processes on free ports, gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import psutil
from kafka import KafkaAdminClient

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topics import create_topics


def bench_settings(base: Settings, folder: Path, lines: int) -> Settings:
    """The model, batch, inspector and picture sections of `base`; everything else of its own, below `folder`."""
    return Settings.model_validate(
        {
            **base.model_dump(include={"model", "batch", "inspector", "pictures"}),
            "broker": {"port": free_ports(2), "data_dir": folder / "kafka"},
            "service": {"run_dir": folder / "run"},
            "store": {"url": str(folder / "store")},
            "station": {"port": free_ports(1), "database": str(folder / "station.sqlite3"), "secret_key_file": folder / "key"},
            "lines": [{"name": f"line-{number}"} for number in range(1, lines + 1)],
        }
    )


@contextmanager
def running_broker(settings: Settings) -> Iterator[None]:
    """The embedded broker of `settings`, with its topics."""
    broker = EmbeddedBroker(settings)
    broker.start()
    try:
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
        create_topics(admin, settings)
        admin.close()
        yield
    finally:
        broker.stop(20)


def plain_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with `settings` but for their secrets as the variables that a `castline` process reads."""
    sections = settings.model_dump(mode="json", exclude_none=True, exclude={"gateway": {"token"}, "kafka": {"password"}})
    for line in sections["lines"]:
        line.pop("token")
    sections["station"].pop("secret_key")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
    return plain | {f"CASTLINE_{name.upper()}": json.dumps(value) for name, value in sections.items()}


class InspectorProcess:
    """A `castline inspector` with `settings`, ready when the block begins, stopped by SIGTERM at its end.

    `program` takes castline's place: another way to start the same command.
    """

    def __init__(self, settings: Settings, folder: Path, program: Sequence[str] = ()) -> None:
        self._command = [*(program or (str(Path(sys.executable).with_name("castline")),)), "inspector"]
        self._environment = plain_environment(settings)
        self._targets = settings.service.run_dir / "targets"
        self._log = folder / "inspector.log"
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> InspectorProcess:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(bound_command(self._command), env=self._environment, stdout=log, stderr=log)
        until = time.monotonic() + 180
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise BrokerError(f"expected the inspector to become ready, it did not: {self._log.read_text()[-2000:]}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        for target in self._targets.glob("inspector-*.json"):
            try:
                (entry,) = json.loads(target.read_text())
                with urllib.request.urlopen(f"http://{entry['targets'][0]}/readyz", timeout=2) as answer:
                    return bool(answer.status == 200)
            except (OSError, ValueError, HTTPException):
                continue
        return False

    def metrics_page(self) -> bytes:
        """What Prometheus would read."""
        (target,) = self._targets.glob("inspector-*.json")
        (entry,) = json.loads(target.read_text())
        with urllib.request.urlopen(f"http://{entry['targets'][0]}/metrics", timeout=10) as answer:
            page: bytes = answer.read()
        return page

    @property
    def pid(self) -> int:
        return self._process.pid

    def rss_mb(self) -> float:
        """Resident memory of the process, MB of 1,000,000 bytes."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6
