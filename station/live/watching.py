"""One thread that reads verdicts, sortings, findings and dead letters of all lines, for the wall and for uploads.

It joins no group and commits nothing: a second station, or none, makes no difference to the plant. What it holds is bounded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pydantic import ValidationError

from station.configuration import castline
from station.live.line import RECENT, LineState
from station.live.seen import SeenPart
from station.live.shifts import shift_start
from station.live.tally import Tally, tally
from streams.errors import IdentityError
from streams.identity import PartId, make_header_map
from streams.kafka import is_reachable, make_client_arguments
from streams.model_choices import ModelChoices
from streams.records import Finding, Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

_POLL_MS = 250
# What comes meanwhile is read at once: a poll for each record of a fast line took a tenth of a processor. Each poll takes two
# milliseconds, whatever it brings. With the 0.6 s at which a page asks again, an upload's verdict is shown within a second.
_GATHER_S = 0.4
_MANY = 500  # so many at once are a backlog, which is read without pause
_PROBE_S = 2.0  # silence is told from absence so often
_ANSWER_MS = 4000
_AGAIN_S = 1.0
_LATELY = timedelta(minutes=10)
_LETTERS = timedelta(hours=1)
# Whoever uploads many pictures at once waits for all of them.
_RECENT_UPLOADS = 2000

Count = Callable[[str, datetime, datetime], Tally]  # line, beginning of the shift, now


class Watch:
    """The live state of all lines. `lock` is held while a state is read or changed."""

    def __init__(self, settings: Settings, count: Count = tally) -> None:
        self.lock = threading.RLock()
        self.trouble = "Reading from Kafka has not begun yet."  # empty while it goes on
        self._settings = settings
        self._count = count
        self._names = TopicNames(settings.topics.prefix)
        self.lines = {
            line.name: LineState(line, _RECENT_UPLOADS if line.name == settings.station.upload_line else RECENT) for line in settings.lines
        }
        self.on_wall = [name for name in self.lines if name != settings.station.upload_line]
        self._counted_from = {name: datetime.min.replace(tzinfo=UTC) for name in self.lines}
        self.choices = ModelChoices(settings.model.version)
        self._positions: dict[TopicPartition, int] = {}
        self._cut_off = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, at the longest after some seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def part(self, part: PartId) -> SeenPart | None:
        """What is held of `part`: the last of each line only."""
        with self.lock:
            state = self.lines.get(part.line)
            return state.part(part) if state else None

    def take(self, record: Any) -> None:
        """Takes one of kafka-python's records; what is none of ours is passed over."""
        try:
            self._take(record)
        except (ValidationError, IdentityError) as error:
            log.warning("a record of %s cannot be read: %s", record.topic, error)

    def turn_shift(self, now: datetime) -> None:
        """Begins counting anew where a shift began since the last call."""
        since = shift_start(now, self._settings.station.shifts, self._settings.station.zone)
        for name, state in self.lines.items():
            if state.shift_since == since:
                continue
            first = state.shift_since is None
            found = self._count(name, since, now) if first else Tally(since)
            with self.lock:
                state.begin_shift(since, found.counts, found.minutes if first else None)
                self._counted_from[name] = found.until

    def _take(self, record: Any) -> None:
        if record.topic == self._names.dead_letters:
            self._take_letter(record)
            return
        if record.topic == self._names.models:
            self.choices = self.choices.with_record(record.key, record.value)
            return
        kind, _, line = record.topic.removeprefix(f"{self._names.prefix}.").partition(".")
        state = self.lines.get(line)
        if state is None or not record.value:
            return
        with self.lock:
            if kind == "verdicts":
                verdict = Verdict.decode(record.value)
                if verdict.line == line:
                    state.verdict(verdict, datetime.fromtimestamp(record.timestamp / 1000, UTC), self._counted_from[line])
            elif kind == "sorted":
                sorting = Sorting.decode(record.value)
                if sorting.line == line:
                    state.sorting(sorting)
            elif kind == "findings":
                finding = Finding.decode(record.value)
                if finding.line == line:
                    state.finding(finding)

    def _take_letter(self, record: Any) -> None:
        headers = make_header_map(record.headers)
        topic = headers.get("dead-topic", b"").decode(errors="replace")
        state = self.lines.get(topic.rpartition(".")[2])
        if state is not None:
            reason = headers.get("dead-reason", b"unknown").decode(errors="replace")[:40]
            with self.lock:
                state.dead_letter(datetime.fromtimestamp(record.timestamp / 1000, UTC), reason)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # the thread must outlive whatever a client library raises; the page says that it is cut off
                expected = isinstance(error, KafkaError | OSError | AssertionError | ValueError)
                log.warning("the wall is cut off from Kafka: %r", error, exc_info=not expected)
                if not self._cut_off:
                    since = datetime.now(self._settings.station.zone)
                    self._cut_off = True
                    self.trouble = f"Cut off from Kafka since {since:%H:%M:%S}: what is shown is not of now."
                self._stopping.wait(_AGAIN_S)

    def _follow(self) -> None:
        if not is_reachable(self._settings.bootstrap):
            raise ConnectionError(f"nothing listens at {self._settings.bootstrap}")
        arguments = make_client_arguments(self._settings, "station-watch") | {"bootstrap_timeout_ms": 5000}
        consumer = KafkaConsumer(
            **arguments, group_id=None, enable_auto_commit=False, auto_offset_reset="latest", max_poll_records=2000, metrics_enabled=False
        )
        try:
            places = self._places(consumer)
            consumer.assign(places)
            self._seek(consumer, places)
            self._read(consumer, places)
        finally:
            consumer.close()

    def _places(self, consumer: Any) -> list[TopicPartition]:
        topics = [self._names.dead_letters, self._names.models]
        for line in self.lines:
            topics += [self._names.verdicts(line), self._names.sorted(line), self._names.findings(line)]
        places = []
        for topic in topics:
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise ValueError(f"expected the topic {topic}, found none; make it with: castline topics create")
            places += [TopicPartition(topic, number) for number in sorted(numbers)]
        return places

    def _seek(self, consumer: Any, places: list[TopicPartition]) -> None:
        """To where reading stopped, at the first time to some minutes ago; verdicts to where the archive's count ends."""
        now = datetime.now(UTC)
        self.turn_shift(now)
        since = {}
        for place in places:
            if place.topic == self._names.models:
                since[place] = 0  # a few records, of any age
                continue
            kind, _, line = place.topic.removeprefix(f"{self._names.prefix}.").partition(".")
            at = self._counted_from[line] if kind == "verdicts" else now - (_LETTERS if kind == "dead-letters" else _LATELY)
            since[place] = int(min(at, now - _LATELY).timestamp() * 1000)
        ends = consumer.end_offsets(places, timeout_ms=_ANSWER_MS)
        found = consumer.offsets_for_times(since, timeout_ms=_ANSWER_MS)
        for place in places:
            begin = found[place].offset if found[place] else ends[place]
            # A position beyond the end is of a topic that was made anew.
            known = self._positions.get(place)
            consumer.seek(place, known if known is not None and known <= ends[place] else begin)

    def _read(self, consumer: Any, places: list[TopicPartition]) -> None:
        probed_at = time.monotonic()
        while not self._stopping.is_set():
            polled = consumer.poll(timeout_ms=_POLL_MS)
            for place, records in polled.items():
                for record in records:
                    self.take(record)
                self._positions[place] = records[-1].offset + 1
            now = time.monotonic()
            if polled and not self.trouble:
                probed_at = now
            elif now - probed_at > _PROBE_S or self.trouble:
                consumer.end_offsets(places[:1], timeout_ms=_ANSWER_MS)  # raises when Kafka is away: poll() only stays silent
                probed_at = now
                self.trouble, self._cut_off = "", False
            self.turn_shift(datetime.now(UTC))
            if 0 < sum(map(len, polled.values())) < _MANY:
                self._stopping.wait(_GATHER_S)


_watch: Watch | None = None
_making = threading.Lock()


def watch() -> Watch:
    """The process's one watch; its thread begins with the first call."""
    global _watch
    with _making:
        if _watch is None:
            _watch = Watch(castline())
            _watch.start()
        return _watch


def stop() -> None:
    """Ends the watch; the next call of `watch` begins another."""
    global _watch
    with _making:
        ending, _watch = _watch, None
    if ending is not None:
        ending.stop()
