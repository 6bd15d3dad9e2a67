"""The live numbers of each line, read from the verdict and sorting topics by a thread.

Pictures are not read: they would cost the pipeline what it is to be watched for.
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

from deploy.demo.audit import percentile
from streams.kafka import make_client_arguments
from streams.records import Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames

_LATEST = 200  # verdicts that the ages are taken from
_WINDOW_S = 10.0
_SILENCE_S = 5.0


@dataclass(frozen=True)
class LineNumbers:
    """Counts of distinct parts since the start; ages in ms over the latest verdicts, None without one."""

    verdicts: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    sorted: int = 0
    diverted: int = 0
    no_verdict: int = 0
    late: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    per_s: float = 0.0  # verdicts a second over the last seconds
    last_verdict_at: float | None = None  # monotonic seconds


class Tally:
    """Adds up one line's records; every part counts once, however often its record comes. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._judged: set[tuple[int, int]] = set()
        self._sorted: set[tuple[int, int]] = set()
        self._labels: Counter[str] = Counter()
        self._ages: deque[float] = deque(maxlen=_LATEST)
        self._times: deque[float] = deque()
        self._numbers = LineNumbers()

    def judged(self, verdict: Verdict, appended_s: float, now: float) -> None:
        """`appended_s`: the record's Kafka time, Unix seconds."""
        part = (verdict.run, verdict.part)
        if part in self._judged:
            return
        self._judged.add(part)
        self._labels[verdict.label] += 1
        out_s = max(appended_s, verdict.decided_at.timestamp())
        self._ages.append((out_s - verdict.captured_at.timestamp()) * 1000)
        self._times.append(now)
        self._numbers = replace(self._numbers, last_verdict_at=now)

    def sorted(self, event: Sorting) -> None:
        part = (event.run, event.part)
        if part in self._sorted:
            return
        self._sorted.add(part)
        self._numbers = replace(
            self._numbers,
            diverted=self._numbers.diverted + (event.action == "diverted"),
            no_verdict=self._numbers.no_verdict + (event.reason == "no-verdict"),
            late=self._numbers.late + event.late,
        )

    def numbers(self, now: float) -> LineNumbers:
        while self._times and now - self._times[0] > _WINDOW_S:
            self._times.popleft()
        return replace(
            self._numbers,
            verdicts=len(self._judged),
            labels=dict(self._labels),
            sorted=len(self._sorted),
            p50_ms=percentile(self._ages, 0.5),
            p99_ms=percentile(self._ages, 0.99),
            per_s=len(self._times) / _WINDOW_S,
        )


class Watch:
    """Reads until closed. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tallies = {line.name: Tally() for line in settings.lines}
        names = TopicNames(settings.topics.prefix)
        self._verdicts = {names.verdicts(line) for line in self._tallies}
        topics = {topic(line): line for line in self._tallies for topic in (names.verdicts, names.sorted)}
        self._lines = {TopicPartition(topic, 0): line for topic, line in topics.items()}
        self._positions: dict[TopicPartition, int] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Call once the topics are there."""
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def numbers(self) -> dict[str, LineNumbers]:
        """The present numbers by line."""
        now = time.monotonic()
        with self._lock:
            return {line: tally.numbers(now) for line, tally in self._tallies.items()}

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._read()
            except (KafkaError, OSError):
                self._ending.wait(1)  # the broker is being started again

    def _read(self) -> None:
        """Reads on from where it was until it is silent for long, or closed."""
        consumer = KafkaConsumer(**make_client_arguments(self._settings, "watch"), group_id=None, auto_offset_reset="earliest")
        try:
            consumer.assign(list(self._lines))
            for partition, position in self._positions.items():
                consumer.seek(partition, position)
            heard_at = time.monotonic()
            # A client that has lived through a broker's restart has been seen silent for half a minute: a new one is not.
            while not self._ending.is_set() and time.monotonic() - heard_at < _SILENCE_S:
                polled = consumer.poll(timeout_ms=300)
                now = time.monotonic()
                heard_at = now if polled else heard_at
                with self._lock:
                    for partition, records in polled.items():
                        for record in records:
                            self._count(self._tallies[self._lines[partition]], record, now)
                        self._positions[partition] = records[-1].offset + 1
        finally:
            consumer.close()

    def _count(self, tally: Tally, record: Any, now: float) -> None:
        try:
            if record.topic in self._verdicts:
                tally.judged(Verdict.decode(record.value), record.timestamp / 1000, now)
            else:
                tally.sorted(Sorting.decode(record.value))
        except ValueError:
            return  # the audit counts what is unreadable; the view only shows
