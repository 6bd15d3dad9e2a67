"""The station's Kafka consumer: one thread that reads the records of all lines.

The consumer uses no consumer group, so several stations can run at the same time and each gets all records.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import Error, connection
from django.db.models import Count, Max
from django.db.models.functions import TruncMinute
from kafka import TopicPartition
from kafka.errors import KafkaError

from station.archive.models import Part
from station.configuration import current_settings
from station.live.line_state import RECENT_PARTS, LineState, LivePart
from station.shifts import period_at
from streams.identity import PartId, make_header_map
from streams.kafka import READER_POLL_RECORDS, find_partitions, is_reachable, make_reader
from streams.model_choices import ModelChoices
from streams.plant_watch import PlantWatch
from streams.record_reader import check_references, read_broker_time, read_record, skip_record
from streams.records import Finding, Sorting, Verdict
from streams.settings import Settings
from streams.signatures import check_signature
from streams.supervision import SupervisedThread
from streams.topics import TopicNames

log = logging.getLogger(__name__)

_POLL_MS = 250
# The pause between two polls. On a fast line, polling without a pause takes 10 % of the time of a processor.
_POLL_PAUSE_S = 0.4
_CONNECTION_CHECK_S = 2.0
_RESPONSE_MS = 4000
_RECONNECT_WAIT_S = 1.0
# The consumer starts with the sorting records of the last ten minutes and the dead letters of the last hour.
_SORTINGS_BACK = timedelta(minutes=10)
_DEAD_LETTERS_BACK = timedelta(hours=1)
# The consumer remembers 2000 uploaded pictures, because a person can upload many pictures at once and waits for all their verdicts.
# For each production line, the consumer remembers only RECENT_PARTS parts.
_RECENT_UPLOADS = 2000
# The newest parts are perhaps not in the archive yet. So the parts of the last five minutes are counted from their records in Kafka.
_NOT_YET_ARCHIVED = timedelta(minutes=5)
_ARCHIVE_DELAY = timedelta(minutes=1)
_TREND = timedelta(hours=1)


@dataclass(frozen=True)
class ArchivedCounts:
    """How many parts of a line are in the archive. Parts whose picture was taken at `until` or later are not counted.

    `counts` has the number of parts of the shift by label. `minutes` has the number of parts by label for each minute of the last hour.
    """

    until: datetime
    counts: Counter[str] = field(default_factory=Counter)
    minutes: dict[datetime, Counter[str]] = field(default_factory=dict)


def count_archived_parts(line: str, shift_since: datetime, now: datetime) -> ArchivedCounts:
    """Counts the archived parts of `line`, in the shift that began at `shift_since` and in each minute of the last hour.

    Returns empty counts if the archive does not answer.
    """
    try:
        newest = Part.objects.filter(line=line, decided_at__isnull=False, seen_at__lte=now).aggregate(at=Max("seen_at"))["at"]
        if newest is None:
            return ArchivedCounts(shift_since)
        until = max(shift_since, min(newest - _ARCHIVE_DELAY, now - _NOT_YET_ARCHIVED))
        parts = Part.objects.filter(line=line, seen_at__lt=until).exclude(label="")
        counts = parts.filter(seen_at__gte=shift_since).values_list("label").annotate(Count("id")).order_by()
        by_minute = parts.filter(seen_at__gte=now - _TREND).annotate(minute=TruncMinute("seen_at", tzinfo=UTC))
        minutes: dict[datetime, Counter[str]] = {}
        for minute, label, count in by_minute.values_list("minute", "label").annotate(Count("id")).order_by():
            minutes.setdefault(minute, Counter())[label] += count
        return ArchivedCounts(until, Counter(dict(counts)), minutes)
    except Error as error:
        log.warning("the database does not answer, so the counts of line %s do not contain archived parts: %s", line, error)
        return ArchivedCounts(max(shift_since, now - _TREND))
    finally:
        connection.close()


CountParts = Callable[[str, datetime, datetime], ArchivedCounts]


class LiveConsumer:
    """Reads the topics of all lines in a thread, and keeps the state of each line in `lines`. Acquire `lock` before you use a state.

    `watch.find_state` returns what a line is doing, such as running or waiting for castings.

    If Kafka does not answer, `connection_fault` is a sentence that the page shows. Otherwise, it is "".
    """

    def __init__(self, settings: Settings, count_parts: CountParts = count_archived_parts) -> None:
        self.lock = threading.RLock()
        self.connection_fault = "Reading from Kafka has not begun yet."
        self._settings = settings
        self._count_parts = count_parts
        self._names = TopicNames(settings.topics.prefix)
        upload_line = settings.station.upload_line
        self.lines = {line.name: LineState(line, _RECENT_UPLOADS if line.name == upload_line else RECENT_PARTS) for line in settings.lines}
        self.wall_lines = [name for name in self.lines if name != upload_line]
        self.watch = PlantWatch(settings, "station")
        self._count_from = {name: datetime.min.replace(tzinfo=UTC) for name in self.lines}
        self.choices = ModelChoices(settings.model.version)
        self._positions: dict[TopicPartition, int] = {}
        self._is_disconnected = False
        self._stopping = threading.Event()
        self._thread = SupervisedThread("live-consumer", self._run, self._stopping)

    def start(self) -> None:
        """Starts the threads that read from Kafka."""
        self._thread.start()
        self.watch.start()

    def stop(self) -> None:
        """Stops the threads, and waits up to ten seconds until each thread has ended."""
        self._stopping.set()
        self.watch.stop()
        self._thread.join(10)

    def find_part(self, part: PartId) -> LivePart | None:
        """Returns what is known about `part`, or None if it is not among the recent parts of its line."""
        with self.lock:
            state = self.lines.get(part.line)
            return state.find_part(part) if state else None

    def add_record(self, record: Any) -> None:
        """Adds a record that kafka-python has read to the state of its line. Skips an invalid record, and counts it in a metric.

        The archivist writes a dead letter for an invalid record of these topics. The station writes none, because otherwise each station
        would write the same dead letter again at each start.
        """
        try:
            self._add_record(record)
        except Exception as error:  # noqa: BLE001  otherwise the thread would end, start again and read the same record
            skip_record("station", record, error)

    def update_shift(self, now: datetime) -> None:
        """Sets the counts of all lines to zero if a new shift has begun since the last call.

        The first call does not set them to zero. It reads the counts of the present shift from the archive.
        """
        station = self._settings.station
        since = period_at(now, station.shifts, station.zone).since
        for name, state in self.lines.items():
            if state.shift_since == since:
                continue
            is_first_call = state.shift_since is None
            archived = self._count_parts(name, since, now) if is_first_call else ArchivedCounts(since)
            with self.lock:
                state.start_shift(since, archived.counts, archived.minutes if is_first_call else None)
                self._count_from[name] = archived.until

    def _add_record(self, record: Any) -> None:
        broker_time = read_broker_time(record.timestamp / 1000)
        if record.topic == self._names.dead_letters:
            self._add_dead_letter(record, broker_time)
            return
        check_signature(self._settings, record.topic, record.key, record.value, make_header_map(record.headers))
        if record.topic == self._names.models:
            self.choices = self.choices.with_record(record.key, record.value, broker_time)
            return
        kind, line = self._split_topic(record.topic)
        state = self.lines.get(line)
        if state is None or not record.value:
            return
        with self.lock:
            if kind == "verdicts":
                verdict = read_record(Verdict, record.value, broker_time)
                check_references(verdict, line, self._names)
                state.add_verdict(verdict, broker_time, self._count_from[line])
            elif kind == "sorted":
                sorting = read_record(Sorting, record.value, broker_time)
                check_references(sorting, line, self._names)
                state.add_sorting(sorting)
            elif kind == "findings":
                finding = read_record(Finding, record.value, broker_time)
                check_references(finding, line, self._names)
                state.add_finding(finding)

    def _add_dead_letter(self, record: Any, broker_time: datetime) -> None:
        headers = make_header_map(record.headers)
        topic = headers.get("dead-topic", b"").decode(errors="replace")
        state = self.lines.get(topic.rpartition(".")[2])
        if state is not None:
            reason = headers.get("dead-reason", b"unknown").decode(errors="replace")[:40]
            with self.lock:
                state.add_dead_letter(broker_time, reason)

    def _split_topic(self, topic: str) -> tuple[str, str]:
        """Returns the kind and the line of a topic name, such as ("verdicts", "line-1")."""
        kind, _, line = topic.removeprefix(f"{self._names.prefix}.").partition(".")
        return kind, line

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._connect_and_read()
            except Exception as error:
                is_expected = isinstance(error, KafkaError | OSError | AssertionError | ValueError)
                log.warning("the live pages have lost the connection to Kafka and will connect again: %r", error, exc_info=not is_expected)
                if not self._is_disconnected:
                    since = datetime.now(self._settings.station.zone)
                    self._is_disconnected = True
                    self.connection_fault = f"Cut off from Kafka since {since:%H:%M:%S}. This page shows the state at that time."
                self._stopping.wait(_RECONNECT_WAIT_S)

    def _connect_and_read(self) -> None:
        if not is_reachable(self._settings.bootstrap):
            raise ConnectionError(f"no Kafka broker listens at {self._settings.bootstrap}")
        consumer = make_reader(
            self._settings, "station-watch", bootstrap_timeout_ms=5000, auto_offset_reset="latest", metrics_enabled=False
        )
        try:
            partitions = find_partitions(consumer, self._list_topics())
            consumer.assign(partitions)
            self._seek(consumer, partitions)
            self._read(consumer, partitions)
        finally:
            consumer.close()

    def _list_topics(self) -> list[str]:
        topics = [self._names.dead_letters, self._names.models]
        for line in self.lines:
            topics += [self._names.verdicts(line), self._names.sorted(line), self._names.findings(line)]
        return topics

    def _seek(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Sets the offset at which reading begins in each partition.

        After a lost connection, reading continues where it stopped. After a start, it begins some minutes in the past.
        """
        now = datetime.now(UTC)
        self.update_shift(now)
        since_ms = {}
        for partition in partitions:
            if partition.topic == self._names.models:
                since_ms[partition] = 0
                continue
            kind, line = self._split_topic(partition.topic)
            at = self._count_from[line] if kind == "verdicts" else now - (_DEAD_LETTERS_BACK if kind == "dead-letters" else _SORTINGS_BACK)
            since_ms[partition] = int(min(at, now - _SORTINGS_BACK).timestamp() * 1000)
        ends = consumer.end_offsets(partitions, timeout_ms=_RESPONSE_MS)
        offsets = consumer.offsets_for_times(since_ms, timeout_ms=_RESPONSE_MS)
        for partition in partitions:
            begin = offsets[partition].offset if offsets[partition] else ends[partition]
            # If a topic was deleted and created again, its offsets begin at 0 again. A remembered position can then be greater than the end
            # of the topic. Ignore such a position.
            position = self._positions.get(partition)
            consumer.seek(partition, position if position is not None and position <= ends[partition] else begin)

    def _read(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        checked_at = time.monotonic()
        while not self._stopping.is_set():
            polled = consumer.poll(timeout_ms=_POLL_MS)
            for partition, records in polled.items():
                for record in records:
                    self.add_record(record)
                self._positions[partition] = records[-1].offset + 1
            now = time.monotonic()
            if polled and not self.connection_fault:
                checked_at = now
            elif now - checked_at > _CONNECTION_CHECK_S or self.connection_fault:
                # Call end_offsets() to check the connection, because poll() raises no exception if Kafka does not answer.
                consumer.end_offsets(partitions[:1], timeout_ms=_RESPONSE_MS)
                checked_at = now
                self.connection_fault, self._is_disconnected = "", False
            self.update_shift(datetime.now(UTC))
            # If a poll has returned as many records as it can, more records probably wait in Kafka. Then poll again without a pause.
            if 0 < sum(map(len, polled.values())) < READER_POLL_RECORDS:
                self._stopping.wait(_POLL_PAUSE_S)


_consumer: LiveConsumer | None = None
_creating = threading.Lock()


def get_live_consumer() -> LiveConsumer:
    """Returns the consumer that all threads of this process share. The first call starts its thread."""
    global _consumer
    with _creating:
        if _consumer is None:
            _consumer = LiveConsumer(current_settings())
            _consumer.start()
        return _consumer


def stop_live_consumer() -> None:
    """Stops the shared consumer. The next call of `get_live_consumer` starts a new consumer."""
    global _consumer
    with _creating:
        stopping, _consumer = _consumer, None
    if stopping is not None:
        stopping.stop()
