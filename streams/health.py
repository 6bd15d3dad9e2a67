"""What a process says of itself: GET /metrics, /healthz (progress, not only life) and /readyz.

The pages are served by a thread of their own, so that a stalled event loop is reported instead of silent.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams import metrics
from streams.settings import ServiceSettings


class ProgressWatchdog:
    """Whether a process gets its work done: how much waits, and when a piece was last finished.

    Thread-safe; `clock` gives monotonic seconds.
    """

    def __init__(self, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._clock = clock
        self._moved_at = clock()
        self._waiting = 0
        self._lock = threading.Lock()

    def record_progress(self) -> None:
        """A piece of work was finished and committed."""
        with self._lock:
            self._moved_at = self._clock()

    def set_pending(self, pieces: int) -> None:
        """So many pieces of work wait. Work that comes to an idle process starts its time anew."""
        with self._lock:
            if self._waiting == 0 and pieces > 0:
                self._moved_at = self._clock()
            self._waiting = pieces

    def find_stall(self) -> str:
        """What is wrong, empty when nothing is."""
        with self._lock:
            still_s = self._clock() - self._moved_at
            if self._waiting and still_s > self._stall_s:
                return f"{self._waiting} pieces of work wait and none was finished for {still_s:.0f} s (limit {self._stall_s:.0f} s)"
            return ""


class ProcessHealth:
    """The process's answer to /healthz and /readyz; not ready until told so."""

    def __init__(self, role: str, watchdog: ProgressWatchdog) -> None:
        self.role = role
        self.watchdog = watchdog
        self._missing = {"start": "starting"}
        self._checks: list[Callable[[], str]] = [watchdog.find_stall]

    def add_check(self, complaint: Callable[[], str]) -> None:
        """`complaint` returns what is wrong, empty when nothing is; it is called from the serving thread."""
        self._checks.append(complaint)

    def set_ready(self, about: str = "start") -> None:
        """Nothing is missing any more in the matter `about`; the process is ready when that holds for all matters."""
        self._missing.pop(about, None)
        metrics.process_ready.labels(self.role).set(0 if self._missing else 1)

    def set_not_ready(self, why: str, about: str = "start") -> None:
        """`why` the process cannot take work, in the matter `about`."""
        self._missing[about] = why
        metrics.process_ready.labels(self.role).set(0)

    def set_problem(self, why: str, about: str = "kafka") -> None:
        """`not_ready` with a reason, `ready` with an empty one."""
        if why:
            self.set_not_ready(why, about)
        else:
            self.set_ready(about)

    def is_ready(self) -> bool:
        return not self._missing

    def check_readiness(self) -> tuple[int, str]:
        """HTTP status and text of /readyz."""
        missing = "; ".join(list(self._missing.values()))
        return (503, missing) if missing else (200, "ready")

    def check_health(self) -> tuple[int, str]:
        """HTTP status and text of /healthz."""
        complaints = [complaint for check in self._checks if (complaint := check())]
        return (503, "; ".join(complaints)) if complaints else (200, "ok")


class InstanceSlot:
    """The lowest free number of a role on this machine, held by a file lock until the process ends, however it ends.

    Gives a restarted worker the same group instance id, so that Kafka hands it back its partitions at once.
    """

    def __init__(self, run_dir: Path, role: str) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.role = role
        self.number = 0
        self._file: IO[str]
        while True:
            self.number += 1
            file = (run_dir / f"{role}-{self.number}.lock").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            self._file = file
            return

    def __str__(self) -> str:
        return f"{self.role}-{self.number}"

    def release(self) -> None:
        self._file.close()


class HealthServer:
    """Serves the three pages from a thread, and leaves its address in `run_dir` for Prometheus' file discovery."""

    def __init__(self, health: ProcessHealth, service: ServiceSettings, instance: str, port: int = 0) -> None:
        class Pages(BaseHTTPRequestHandler):
            def handle(self) -> None:
                with suppress(ConnectionError):  # who asked has hung up: nobody's trouble
                    super().handle()

            def do_GET(self) -> None:
                content_type = "text/plain; charset=utf-8"
                if self.path == "/metrics":
                    metrics.process_stalled.labels(health.role).set(health.check_health()[0] != 200)
                    status, body, content_type = 200, generate_latest(), CONTENT_TYPE_LATEST
                elif self.path in ("/healthz", "/readyz"):
                    status, text = health.check_health() if self.path == "/healthz" else health.check_readiness()
                    body = f"{text}\n".encode()
                else:
                    status, body = 404, b"expected /metrics, /healthz or /readyz\n"
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Scrapes are not logged."""

        self._server = ThreadingHTTPServer((service.host, port), Pages)
        self._server.daemon_threads = True
        self.address = f"{service.host}:{self._server.server_address[1]}"
        self._target_file = service.run_dir / "targets" / f"{instance}.json"
        self._labels = {"role": health.role, "instance_name": instance}
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._target_file.parent.mkdir(parents=True, exist_ok=True)
        target = {"targets": [self.address], "labels": {**self._labels, "pid": str(os.getpid())}}
        partial = self._target_file.with_suffix(".partial")
        partial.write_text(json.dumps([target]))
        partial.replace(self._target_file)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._target_file.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()
