"""Protects Kafka's records from a clock that is far ahead. With such a clock, Kafka would delete all records as too old."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from streams import metrics
from streams.atomic_file import write_atomically
from streams.clock_trust import ClockTrust, is_far_ahead
from streams.security_finding import SecurityFinding

log = logging.getLogger(__name__)

CLOCK_FILE = "clock"
# If the clock was wrong when Kafka started, Kafka looks for old records only every 100 years, which means never. When the clock has been
# corrected, Kafka is started again with its usual interval. Java's timer accepts at most 146 years.
_RETENTION_CHECK_MS = 36_500 * 86_400_000
_WRITE_EVERY_S = 60.0


class BrokerClock:
    """Remembers in the broker's data folder when the clock of this machine was last right. Call `check` once a second."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / CLOCK_FILE
        self._remedy = f"If the clock is right, delete the file {self._file}."
        self._trust = ClockTrust(self._remedy)
        self._write_at_s = 0.0
        # Whether the clock was far ahead at the start. If so, Kafka deletes no files until it is started again, not even the files of
        # dropped records.
        self.was_far_ahead = is_far_ahead(time.time(), _read_time(self._file))
        metrics.broker_clock_doubted.set(self.was_far_ahead)
        if problem := self.find_problem():
            log.error(problem)

    @property
    def properties(self) -> dict[str, object]:
        """The properties with which Kafka must be started."""
        if not self.was_far_ahead:
            return {}
        # While the clock is far ahead, all records seem too old. So Kafka must not look for old records. It looks for them after an initial
        # delay, and then at a regular interval. Make both times very long.
        return {"log.initial.task.delay.ms": _RETENTION_CHECK_MS, "log.retention.check.interval.ms": _RETENTION_CHECK_MS}

    def find_problem(self) -> str:
        """If a wrong clock keeps Kafka from deleting old records, returns a sentence about this. Otherwise returns ""."""
        if not self.was_far_ahead:
            return ""
        return (
            f"Kafka deletes no old records, because the clock of this machine was far ahead at the start. Correct the clock. {self._remedy}"
        )

    def check(self) -> bool:
        """Remembers the time if the clock is trusted.

        Returns True if the clock was far ahead and has been corrected. Kafka must then be started again.
        """
        last_s = _read_time(self._file)
        doubt = self._trust.find_doubt(last_s)
        if not doubt and time.monotonic() >= self._write_at_s:
            self._write_at_s = time.monotonic() + _WRITE_EVERY_S
            try:
                write_atomically(self._file, f"{time.time():.0f}\n", mode=0o600)
            except OSError as error:
                log.warning("The time at which the clock was right cannot be written to %s: %s", self._file, error)
        return self.was_far_ahead and not is_far_ahead(time.time(), last_s)


def find_clock_finding(data_dir: Path) -> SecurityFinding | None:
    """Returns a finding if a broker with the data folder `data_dir` would not trust the clock of this machine."""
    file = data_dir / CLOCK_FILE
    if not is_far_ahead(time.time(), _read_time(file)):
        return None
    return SecurityFinding(
        "medium",
        "The clock of this machine is more than 31 days ahead of the time at which it was last right. A broker that starts now deletes no "
        "old records, and stops when its disk is full.",
        f"Correct the clock, for example with NTP. If the clock is right, delete the file {file}. In both cases, a broker that was started "
        "with the wrong clock ends and is started again.",
    )


def _read_time(file: Path) -> float | None:
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return None
