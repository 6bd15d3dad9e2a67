"""Reads the verdict and sorting topics of a running foundry in a thread, and computes the figures of each line.

The image topics are not read, because reading all pictures would slow down the foundry.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from deploy.demo.audit import compute_percentile
from streams.errors import RecordError
from streams.kafka import make_client_arguments, open_client
from streams.record_reader import read_record
from streams.records import Sorting, Verdict
from streams.settings import Settings
from streams.supervision import SupervisedThread
from streams.topics import TopicNames

_MAX_AGES = 200
_RATE_WINDOW_S = 10.0
_RECONNECT_AFTER_S = 5.0


@dataclass(frozen=True)
class LineFigures:
    """The figures of one line. Each count is the number of different parts since the start.

    - `p50_ms`, `p99_ms`: median and 99th percentile of the time from capture until the verdict is on Kafka.
    - `verdicts_per_s`: mean rate of the last 10 s.
    """

    verdicts: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    sorted: int = 0
    diverted: int = 0
    no_verdict: int = 0
    late: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    verdicts_per_s: float = 0.0


class LineCounters:
    """Counts the records of one line. A part is counted once, even if its record is delivered twice. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._judged: set[tuple[int, int]] = set()
        self._sorted: set[tuple[int, int]] = set()
        self._labels: Counter[str] = Counter()
        self._ages_ms: deque[float] = deque(maxlen=_MAX_AGES)
        self._verdict_times: deque[float] = deque()
        self._figures = LineFigures()

    def add_verdict(self, verdict: Verdict, appended_s: float, now: float) -> None:
        """Counts a verdict that the broker appended at `appended_s`, in seconds since 1970."""
        part = (verdict.run, verdict.part)
        if part in self._judged:
            return
        self._judged.add(part)
        self._labels[verdict.label] += 1
        published_s = max(appended_s, verdict.decided_at.timestamp())
        self._ages_ms.append((published_s - verdict.captured_at.timestamp()) * 1000)
        self._verdict_times.append(now)

    def add_sorting(self, event: Sorting) -> None:
        part = (event.run, event.part)
        if part in self._sorted:
            return
        self._sorted.add(part)
        self._figures = replace(
            self._figures,
            diverted=self._figures.diverted + (event.action == "diverted"),
            no_verdict=self._figures.no_verdict + (event.reason == "no-verdict"),
            late=self._figures.late + event.late,
        )

    def compute_figures(self, now: float) -> LineFigures:
        while self._verdict_times and now - self._verdict_times[0] > _RATE_WINDOW_S:
            self._verdict_times.popleft()
        return replace(
            self._figures,
            verdicts=len(self._judged),
            labels=dict(self._labels),
            sorted=len(self._sorted),
            p50_ms=compute_percentile(self._ages_ms, 0.5),
            p99_ms=compute_percentile(self._ages_ms, 0.99),
            verdicts_per_s=len(self._verdict_times) / _RATE_WINDOW_S,
        )


class TopicMonitor:
    """Reads the topics of all lines in a thread until it is closed. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counters = {line.name: LineCounters() for line in settings.lines}
        names = TopicNames(settings.topics.prefix)
        self._verdict_topics = {names.verdicts(line) for line in self._counters}
        topics = {topic(line): line for line in self._counters for topic in (names.verdicts, names.sorted)}
        self._line_of_partition = {TopicPartition(topic, 0): line for topic, line in topics.items()}
        self._positions: dict[TopicPartition, int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = SupervisedThread("topic monitor", self._run, self._closing)

    def start(self) -> None:
        """Starts the thread. The topics must exist already."""
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(5)

    def compute_figures(self) -> dict[str, LineFigures]:
        """Returns the present figures by the name of the line."""
        now = time.monotonic()
        with self._lock:
            return {line: counters.compute_figures(now) for line, counters in self._counters.items()}

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._read()
            except (KafkaError, OSError):
                self._closing.wait(1)  # Try again after a second, because the broker is probably being restarted.

    def _read(self) -> None:
        """Reads the topics with a new consumer, and returns when no record has come for some seconds."""
        consumer = open_client(KafkaConsumer, **make_client_arguments(self._settings, "watch"), group_id=None, auto_offset_reset="earliest")
        try:
            consumer.assign(list(self._line_of_partition))
            for partition, position in self._positions.items():
                consumer.seek(partition, position)
            received_at = time.monotonic()
            # After a restart of the broker, an old consumer can get no records for up to half a minute. So this loop ends after some
            # seconds without records. The next call of this method makes a new consumer.
            while not self._closing.is_set() and time.monotonic() - received_at < _RECONNECT_AFTER_S:
                polled = consumer.poll(timeout_ms=300)
                now = time.monotonic()
                received_at = now if polled else received_at
                with self._lock:
                    for partition, records in polled.items():
                        for record in records:
                            self._count(self._counters[self._line_of_partition[partition]], record, now)
                        self._positions[partition] = records[-1].offset + 1
        finally:
            consumer.close()

    def _count(self, counters: LineCounters, record: Any, now: float) -> None:
        try:
            if record.topic in self._verdict_topics:
                counters.add_verdict(read_record(Verdict, record.value), record.timestamp / 1000, now)
            else:
                counters.add_sorting(read_record(Sorting, record.value))
        except RecordError:
            return  # An unreadable record is skipped here, because the audit at the end of the run counts it.
