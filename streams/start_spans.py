"""Measures how long the steps of a process's start take. After a crash, a role does no work until these steps are done."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from streams import metrics

log = logging.getLogger(__name__)


class StartSpans:
    """Measures the named steps (spans) of a process's start. The first span begins when the process begins, before its first import."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._ended_s = _read_process_start_s()
        self._processor_s = 0.0

    def end_span(self, name: str) -> None:
        """Ends the present span, gives it the name `name`, and begins the next span.

        Writes the length of the ended span to the log and to a metric.
        """
        now_s, processor_s = time.clock_gettime(time.CLOCK_BOOTTIME), time.process_time()
        length_s, used_s = now_s - self._ended_s, processor_s - self._processor_s
        self._ended_s, self._processor_s = now_s, processor_s
        metrics.start_span_seconds.labels(self._role, name).set(length_s)
        log.info("Start: %s took %.2f s, with %.2f s of processor time.", name, length_s, used_s)


def _read_process_start_s() -> float:
    """Returns the start time of this process, in seconds since the start of the machine."""
    # In this file, the name of the program stands in brackets and may contain spaces. The start time is the 20th field after the name.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
