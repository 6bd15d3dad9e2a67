"""The health pages of a process: /metrics, /healthz, /readyz and, for one component of the process, /readyz/<part>.

A separate thread serves the pages, so they answer even if the event loop of the process is blocked.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams import metrics
from streams.atomic_file import make_public_folder, publish_atomically
from streams.secrets import mask_secrets
from streams.server_limits import HEADER_TIME_S, Connection, ConnectionLimits
from streams.settings import ServiceSettings
from streams.supervision import SupervisedThread, list_thread_faults

log = logging.getLogger(__name__)

_MAX_CONNECTIONS = 64
_MAX_CONNECTIONS_PER_ADDRESS = 16
# The process uses at most a tenth of its time for the page /metrics. For example, if a page took 1 s, no new page is made for 9 s.
_PAUSE_SHARE = 9
# If the file with the address of the health pages cannot be written, the process tries again after this many seconds.
_PUBLISH_AGAIN_S = 5.0
# If a process waits for a person, the answer of its page /readyz has this header with the value "person". If the process waits for Kafka,
# for the database or for free space on a disk, the value is "outside".
WAITS_FOR_HEADER = "X-Castline-Waits-For"
# The keys of problems for which the process tries again by itself, such as a lost connection to Kafka. Each failed attempt sets the problem
# again.
_RETRIED_TOPICS = frozenset({"kafka", "producer", "database", "store"})
# The keys of all problems that can end without a restart of the process, such as a full disk.
_OUTSIDE_TOPICS = _RETRIED_TOPICS | {"disk", "journal", "port"}
# The header of the page /metrics that says how many seconds ago the page was made.
PAGE_AGE_HEADER = "X-Castline-Page-Age"


class ProgressWatchdog:
    """Finds out whether a process is stalled: records wait, but the process has finished none of them for `stall_s` seconds.

    Thread-safe. `clock` returns monotonic seconds.
    """

    def __init__(self, stall_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_s
        self._clock = clock
        self._last_progress_s = clock()
        self._pending = 0
        self._lock = threading.Lock()

    def record_progress(self) -> None:
        """Notes that a piece of work was finished and committed."""
        with self._lock:
            self._last_progress_s = self._clock()

    def set_pending(self, count: int) -> None:
        """Sets how many pieces of work wait. If no work waited before, the time without progress starts again from 0."""
        with self._lock:
            if self._pending == 0 and count > 0:
                self._last_progress_s = self._clock()
            self._pending = count

    def find_stall(self) -> str:
        """Returns a sentence that describes the stall, or "" if the process is not stalled."""
        with self._lock:
            idle_s = self._clock() - self._last_progress_s
            if self._pending and idle_s > self._stall_s:
                return f"{self._pending} pieces of work wait and none was finished for {idle_s:.0f} s (limit {self._stall_s:.0f} s)"
            return ""


class ProcessHealth:
    """Decides what a process answers at /readyz and /healthz.

    - Ready: `set_ready` was called, and no problem is set.
    - Healthy: no check finds a problem. A supervisor restarts an unhealthy process.
    - Complaint: a fault that a restart would not remove. /healthz shows the fault, but says that the process is healthy.
    """

    def __init__(self, role: str, watchdog: ProgressWatchdog) -> None:
        self.role = role
        self.watchdog = watchdog
        self._problems = {"start": "starting"}
        # The keys of the problems that only a person can solve. `set_person_problem` adds them.
        self._person_topics: set[str] = set()
        # The keys of the present problems that `set_waiting` has set. These problems end without a restart.
        self._waiting_topics: set[str] = set()
        self._wait_count = 0
        self._checks: list[Callable[[], str]] = [watchdog.find_stall]
        self._complaint_checks: list[Callable[[], str]] = []
        # Maps each component of the process, such as the camera of a line, to its problem, or to "" if it has none. The process
        # is ready in spite of these problems.
        self._part_problems: dict[str, str] = {}

    def add_check(self, find_problem: Callable[[], str]) -> None:
        """Adds a check to /healthz. `find_problem` returns a sentence about a problem, or "" if all is well.

        The thread of the health pages calls `find_problem`.
        """
        self._checks.append(find_problem)

    def add_complaint_check(self, find_complaint: Callable[[], str]) -> None:
        """Adds a check for a fault that a restart would not remove. /healthz shows this fault but still answers with status 200.

        `find_complaint` returns a sentence, or "" if all is well.
        """
        self._complaint_checks.append(find_complaint)

    def set_ready(self, topic: str = "start") -> None:
        """Removes the problem with the key `topic`, such as "start" or "kafka". The process is ready if no problem is left."""
        self._problems.pop(topic, None)
        metrics.process_ready.labels(self.role).set(0 if self._problems else 1)

    def set_not_ready(self, problem: str, topic: str = "start") -> None:
        """Sets the problem with the key `topic`, such as "start" or "kafka". The process is then not ready.

        `problem` is a sentence that says why the process cannot accept work. Each key has at most one problem.
        """
        self._waiting_topics.discard(topic)
        self._problems[topic] = problem
        metrics.process_ready.labels(self.role).set(0)
        if topic in _RETRIED_TOPICS:
            self.record_wait()

    def record_wait(self) -> None:
        """Notes that the process waits for Kafka, the database or the object store, and has just tried again.

        While the process keeps trying, it is not reported as stalled, because a restart would not help. A process that stops trying is
        reported as stalled.
        """
        self._wait_count += 1
        self.watchdog.record_progress()

    def count_waits(self) -> int:
        """Returns how often `record_wait` was called."""
        return self._wait_count

    def set_waiting(self, problem: str, topic: str = "start") -> None:
        """Sets a problem that ends without a restart of this process, such as a database that does not answer.

        While such a problem is set and the health pages answer, a supervisor does not restart this process, even if the start takes long.
        """
        self.set_not_ready(problem, topic)
        self._waiting_topics.add(topic)

    def set_problem(self, problem: str, topic: str = "kafka") -> None:
        """Sets the problem with the key `topic`, which makes the process not ready. If `problem` is "", removes the problem."""
        if problem:
            self.set_not_ready(problem, topic)
        else:
            self.set_ready(topic)

    def set_person_problem(self, problem: str, topic: str) -> None:
        """Sets a problem that only a person can solve, with the key `topic`. If `problem` is "", removes the problem.

        A process with such a problem is not ready. A supervisor does not wait for this process and does not restart it.
        """
        self._person_topics.add(topic)
        self.set_problem(problem, topic)

    def set_part_problem(self, part: str, problem: str) -> None:
        """Sets the problem of a component of the process, such as the camera of a line. If `problem` is "", removes the problem.

        The process stays ready. The page /readyz/`part` shows the problem.
        """
        self._part_problems[part] = problem

    def is_ready(self) -> bool:
        return not self._problems

    def waits_for_person(self) -> bool:
        """Returns True if the process is not ready and each of its problems can be solved only by a person."""
        return bool(self._problems) and self._person_topics.issuperset(list(self._problems))

    def describe_wait(self) -> str:
        """Returns what the process waits for before it can be ready: "person", "outside" or "", as in the header of /readyz."""
        if self.waits_for_person():
            return "person"
        # A sorter adds the name of a line to the key of a problem, as in `kafka line-1`. Compare only the first word.
        waits = any(topic in self._waiting_topics or topic.partition(" ")[0] in _OUTSIDE_TOPICS for topic in list(self._problems))
        return "outside" if waits else ""

    def check_readiness(self) -> tuple[int, str]:
        """Returns the HTTP status and the text of the page /readyz."""
        problems = "; ".join(list(self._problems.values()))
        return (503, problems) if problems else (200, "ready")

    def check_part(self, part: str) -> tuple[int, str]:
        """Returns the HTTP status and the text of the page /readyz/`part`."""
        if part not in self._part_problems:
            return 404, f"expected one of {', '.join(sorted(self._part_problems)) or 'no names'} after /readyz/, found {part[:80]!r}"
        problem = self._part_problems[part]
        return (503, problem) if problem else (200, "ready")

    def check_health(self) -> tuple[int, str]:
        """Returns the HTTP status and the text of the page /healthz."""
        problems = [problem for find_problem in self._checks if (problem := find_problem())]
        complaints = [complaint for find_complaint in self._complaint_checks if (complaint := find_complaint())] + list_thread_faults()
        if problems:
            return 503, "; ".join([*problems, *complaints])
        return 200, f"ok, but: {'; '.join(complaints)}" if complaints else "ok"


class InstanceSlot:
    """Reserves the lowest free number for a process of a role on this machine, until the process ends.

    A restarted worker gets the same number and the same group instance id. So Kafka gives the worker its partitions back at once.
    """

    def __init__(self, run_dir: Path, role: str) -> None:
        # All users may list `run_dir`, because Prometheus reads its subfolder `targets` and may run as another user.
        make_public_folder(run_dir)
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


def remove_stale_targets(run_dir: Path) -> None:
    """Deletes the files with the addresses of processes that have ended, for example because they were killed.

    A process has ended if its lock file is no longer locked. The process id in the file is not used, because a new process can have the
    same id.
    """
    for file in (run_dir / "targets").glob("*.json"):
        with suppress(OSError), (run_dir / f"{file.stem}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


class _MetricsPage:
    """The page /metrics. The process uses at most a tenth of its time for making the page, and keeps the rest for its records.

    If requests come too often, they get the last page again. The header `X-Castline-Page-Age` says how old the page is.
    """

    def __init__(self, health: ProcessHealth) -> None:
        self._health = health
        self._page = b""
        self._made_s = 0.0
        self._valid_until_s = float("-inf")
        self._lock = threading.Lock()

    def render(self) -> tuple[bytes, float]:
        """Returns the page and its age in seconds."""
        with self._lock:
            began_s = time.monotonic()
            if began_s >= self._valid_until_s:
                metrics.process_stalled.labels(self._health.role).set(self._health.check_health()[0] != 200)
                self._page, self._made_s = generate_latest(), began_s
                ended_s = time.monotonic()
                self._valid_until_s = ended_s + _PAUSE_SHARE * (ended_s - began_s)
            return self._page, time.monotonic() - self._made_s


class _LimitedServer(ThreadingHTTPServer):
    """A server with a thread for each connection. Each connection ends after `connection_time_s` seconds.

    The number of connections is limited, in total and for each client. If a limit is reached, a new connection takes the place of the
    oldest one.
    """

    daemon_threads = True
    # The number of new connections that can wait until the server accepts them. With Python's default of 5, Linux would drop further
    # connections, and their clients would try again only after a second.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connection_time_s: float) -> None:
        self._connection_time_s = connection_time_s
        self._limits = ConnectionLimits(_MAX_CONNECTIONS_PER_ADDRESS, _MAX_CONNECTIONS)
        # Maps the socket of each open connection to the connection and to the monotonic time at which it must end. The oldest connection
        # comes first.
        self._open: dict[socket.socket, tuple[Connection, float]] = {}
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        place = self._limits.add(client_address[0], partial(_shut_down, request))
        if place is None:
            self.shutdown_request(request)
            return
        self._open[request] = place, time.monotonic() + self._connection_time_s
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Ends the connections whose time is over. `serve_forever` calls this method at least twice a second."""
        now_s = time.monotonic()
        for request, (_, end_s) in list(self._open.items()):
            if end_s > now_s:
                return
            _shut_down(request)

    def shutdown_request(self, request: Any) -> None:
        if (found := self._open.pop(request, None)) is not None:
            found[0].close()
        super().shutdown_request(request)


def _shut_down(request: socket.socket) -> None:
    """Shuts a connection down at once. The thread that waits for data on this connection then stops waiting."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class HealthServer:
    """Serves the health pages in a thread. Writes their address to a file in `run_dir`, so that Prometheus finds the pages.

    Each connection ends at the latest `connection_time_s` seconds after it was opened.
    """

    def __init__(
        self, health: ProcessHealth, service: ServiceSettings, instance: str, port: int = 0, connection_time_s: float = HEADER_TIME_S
    ) -> None:
        metrics_page = _MetricsPage(health)

        class HealthPages(BaseHTTPRequestHandler):
            def handle(self) -> None:
                # A client may close the connection before it has read the page. This is not an error.
                with suppress(ConnectionError):
                    super().handle()

            def do_GET(self) -> None:
                content_type, age_s = "text/plain; charset=utf-8", None
                if self.path == "/metrics":
                    body, age_s = metrics_page.render()
                    status, content_type = 200, CONTENT_TYPE_LATEST
                elif self.path in ("/healthz", "/readyz"):
                    status, text = health.check_health() if self.path == "/healthz" else health.check_readiness()
                    body = f"{text}\n".encode()
                elif self.path.startswith("/readyz/"):
                    status, text = health.check_part(self.path.removeprefix("/readyz/"))
                    body = f"{text}\n".encode()
                else:
                    status, body = 404, b"expected /metrics, /healthz or /readyz\n"
                if self.path != "/metrics":
                    body = mask_secrets(body.decode()).encode()
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                if age_s is not None:
                    self.send_header(PAGE_AGE_HEADER, f"{age_s:.3f}")
                if self.path == "/readyz" and (wait := health.describe_wait()):
                    self.send_header(WAITS_FOR_HEADER, wait)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Logs nothing, because Prometheus requests the pages every few seconds."""

        self._server = _LimitedServer((service.host, port), HealthPages, connection_time_s)
        self.port = int(self._server.server_address[1])
        self.address = f"{service.host}:{self.port}"
        self._target_file = service.run_dir / "targets" / f"{instance}.json"
        self._labels = {"role": health.role, "instance_name": instance, "plant": service.site, "machine": service.machine_name}
        self._thread = SupervisedThread("health", self._server.serve_forever)
        self._target_fault = ""
        self._closing = threading.Event()
        self._publisher = SupervisedThread("target", self._publish_when_possible, self._closing)
        health.add_complaint_check(lambda: self._target_fault)

    def __enter__(self) -> Self:
        # Publish the address first. If the thread cannot begin for lack of memory, a supervisor then notices that nobody answers there.
        self._publish()
        self._thread.start()
        if self._target_fault:
            log.error(self._target_fault)
            self._publisher.start()
        return self

    def _publish(self) -> None:
        """Writes the file with the address of the health pages. If this fails, `_target_fault` gets a sentence with the reason."""
        target = json.dumps([{"targets": [self.address], "labels": {**self._labels, "pid": str(os.getpid())}}])
        try:
            publish_atomically(self._target_file, target)
            self._target_fault = ""
        except OSError as error:
            self._target_fault = (
                f"The address of the health pages, {self.address}, cannot be written to {self._target_file}: {error.strerror}. "
                "Free space on its disk."
            )
            # A full disk has no room for a new file. But if the file of an earlier process is still there, it can be overwritten with the
            # new address.
            with suppress(OSError), self._target_file.open("r+") as file:
                file.write(target)
                file.truncate()
                file.flush()
                self._target_fault = ""

    def _publish_when_possible(self) -> None:
        while self._target_fault and not self._closing.wait(_PUBLISH_AGAIN_S):
            self._publish()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._publisher.join()
        with suppress(OSError):
            self._target_file.unlink()
        self._server.shutdown()
        self._server.server_close()
