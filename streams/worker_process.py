"""Sets up the process of a long-running role: signals, instance name, health pages, and the wait for Kafka.

The module loads quickly, because the health pages must answer before a role has loaded Faust or TensorFlow.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka.errors import KafkaError

from streams import metrics
from streams.errors import SettingsError
from streams.group_members import GroupIdentity, wait_until_free
from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog
from streams.kafka import wait_for_kafka
from streams.settings import Settings

log = logging.getLogger(__name__)

# Parameters of glibc's function mallopt: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The memory of a freed block of at least this size goes back to the operating system. The value is larger than most valid pictures and
# batches, because returning and requesting memory costs processor time.
_RETURNED_BLOCK_BYTES = 16 * 2**20


class StartSpans:
    """Measures how long the steps of a process's start take. A step is called a span.

    The first span begins when the process begins, before its first import.
    """

    def __init__(self, role: str) -> None:
        self._role = role
        self._ended_s = _read_process_start_s()
        self._processor_s = 0.0

    def end_span(self, name: str) -> None:
        """Ends the current span, gives it the name `name`, and begins the next span.

        Writes the length of the ended span to the log and to a metric.
        """
        now_s, processor_s = time.clock_gettime(time.CLOCK_BOOTTIME), time.process_time()
        length_s, used_s = now_s - self._ended_s, processor_s - self._processor_s
        self._ended_s, self._processor_s = now_s, processor_s
        metrics.start_span_seconds.labels(self._role, name).set(length_s)
        log.info("Start: %s took %.2f s, with %.2f s of processor time.", name, length_s, used_s)


def _read_process_start_s() -> float:
    """Returns the start time of this process, in seconds since the start of the machine."""
    # In /proc/self/stat, the program's name stands in brackets and may contain spaces. The start time is the 20th field after the name.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class WorkerProcess:
    """The running process of a role.

    - `instance`: the name that the process keeps after a restart on this machine.
    - `port`: the port of the health pages.
    - `stop_requested`: set by SIGTERM and SIGINT.
    - `spans`: measures the steps of the start.
    """

    settings: Settings
    role: str
    instance: str
    health: ProcessHealth
    stop_requested: threading.Event
    port: int
    spans: StartSpans

    def restart(self, reason: str) -> None:
        """Reports `reason` and restarts this process with the same command, process id and port, unless the process was asked to stop.

        The command must have the option `--port`. The threads and signal handlers of this process do not exist after the restart.
        """
        self.report_not_ready(reason)
        if not self.stop_requested.is_set():
            before, port = sys.orig_argv[1:], ["--port", str(self.port)]
            os.execv(sys.executable, [sys.executable, *before, *(port if before[-2:] != port else [])])

    def report_not_ready(self, reason: str) -> None:
        """Shows at /readyz that the process is not ready, and why (`reason`). Also writes `reason` to the log."""
        self.health.set_waiting(reason)
        log.warning(reason)

    def wait_for_topics(self, topics: Iterable[str], identities: Iterable[GroupIdentity] = ()) -> bool:
        """Waits until Kafka answers. Returns True if `topics` exist, and False if the process is asked to stop first.

        Raises SettingsError if one of `topics` does not exist. `identities` are the names of this process in its consumer groups. Raises
        DuplicateProcessError if another installation already runs a process with the same name or the same work.
        """
        self.health.set_waiting("waiting for Kafka")
        existing = None
        while existing is None:
            admin = wait_for_kafka(self.settings, self.role, self.report_not_ready, self.stop_requested.is_set)
            if admin is None:
                return False
            try:
                found = {topic["name"] for topic in admin.describe_topics(None)}
                for identity in identities:
                    session_s = self.settings.kafka.session_timeout_s
                    wait_until_free(admin, identity, session_s, self.report_not_ready, self.stop_requested.is_set)
                existing = found
            except (KafkaError, OSError) as error:
                self.report_not_ready(
                    f"Kafka at {self.settings.bootstrap} does not name its topics and groups ({error!r}). It is asked again."
                )
                self.stop_requested.wait(1)
            finally:
                admin.close()
        if missing := [topic for topic in topics if topic not in existing]:
            raise SettingsError(f"These topics do not exist: {', '.join(missing)}. Create them with: castline topics create")
        self.spans.end_span("finding Kafka")
        return not self.stop_requested.is_set()


def handle_stop_signals() -> threading.Event:
    """Installs handlers for SIGTERM and SIGINT, and returns the event that the first signal sets."""
    stop_requested = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop_requested.set())
    return stop_requested


def _return_large_freed_blocks() -> None:
    """Makes glibc return the memory of large blocks to the operating system when they are freed.

    Without this call, glibc raises its own limit when the first large blocks are freed. From then on, it keeps freed blocks of up to 32 MiB
    in several heaps, and does not return them. A worker that rejects records of that size then needs up to twice the memory.
    """
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _RETURNED_BLOCK_BYTES)
    # A heap may keep free memory of up to twice the limit above behind its last used block. glibc itself uses the factor 2, too. With the
    # default of glibc, 128 KiB, a worker would return the memory of nearly every picture and request it again.
    mallopt(_M_TRIM_THRESHOLD, 2 * _RETURNED_BLOCK_BYTES)


@contextmanager
def worker_process(settings: Settings, role: str, port: int, slot_name: str = "") -> Iterator[WorkerProcess]:
    """Sets up this process for `role`, and serves its health pages at `port` (0: a free port) until the block ends.

    `slot_name` is needed if the processes of a role have different tasks. It names the role and the task, such as `sorter-line-1`.
    """
    _return_large_freed_blocks()
    stop_requested = handle_stop_signals()
    slot = InstanceSlot(settings.service.run_dir, slot_name or role)
    health = ProcessHealth(role, ProgressWatchdog(settings.service.stall_s))
    with HealthServer(health, settings.service, str(slot), port) as pages:
        log.info("%s serves its health pages at %s.", slot, pages.address)
        spans = StartSpans(role)
        spans.end_span("loading the program")
        yield WorkerProcess(settings, role, str(slot), health, stop_requested, pages.port, spans)
