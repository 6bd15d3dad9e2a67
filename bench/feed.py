"""Pictures put on Kafka for a measurement, and how many of them a worker turns into verdicts a second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.worker import InspectorProcess
from streams.identity import format_time
from streams.settings import Settings
from streams.topics import TopicNames


class Feed:
    """Puts pictures on the image topics of all lines in turn; parts count up over the whole bench."""

    def __init__(self, settings: Settings, pictures: list[bytes]) -> None:
        self.settings = settings
        self._names = TopicNames(settings.topics.prefix)
        self._lines = [line.name for line in settings.lines]
        self._pictures: Iterator[bytes] = cycle(pictures)
        self.sent = 0

    def send(self, count: int, rate_per_s: float | None = None) -> None:
        """Sends `count` pictures, evenly at `rate_per_s` or as fast as the broker takes them; returns when confirmed."""
        producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap, linger_ms=0 if rate_per_s else 20)
        begun_s = time.monotonic()
        for number in range(count):
            if rate_per_s:
                time.sleep(max(0.0, begun_s + number / rate_per_s - time.monotonic()))
            self.sent += 1
            line = self._lines[number % len(self._lines)]
            captured_at = format_time(datetime.now(UTC)).encode()
            key = f"{line}:1:{self.sent}".encode()
            producer.send(self._names.images(line), key=key, value=next(self._pictures), headers=[("captured_at", captured_at)])
        producer.flush()
        producer.close()


def tail(settings: Settings) -> KafkaConsumer:
    """A consumer of all verdicts that come from now on."""
    names = TopicNames(settings.topics.prefix)
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False)
    places = [TopicPartition(names.verdicts(line.name), 0) for line in settings.lines]
    consumer.assign(places)
    consumer.seek_to_end(*places)
    for place in places:
        consumer.position(place)
    return consumer


class VerdictTimes:
    """When each verdict from now on came to Kafka, by the records' own times.

    They are read when `per_s` asks for them: a reader beside the worker would take of the processors that are measured.
    """

    def __init__(self, settings: Settings) -> None:
        self._verdicts = tail(settings)
        self._places = list(self._verdicts.assignment())
        self._begun: int = sum(self._verdicts.position(place) for place in self._places)
        self._times_ms: list[int] = []

    def out(self) -> int:
        """Verdicts so far."""
        ends: dict[TopicPartition, int] = self._verdicts.end_offsets(self._places)
        return sum(ends.values()) - self._begun

    def per_s(self, from_s: float = 0, to_s: float = math.inf) -> float:
        """Verdicts a second between the first and the last one within these seconds since the epoch."""
        out = self.out()
        while len(self._times_ms) < out:
            self._times_ms += [record.timestamp for records in self._verdicts.poll(1000).values() for record in records]
        within = [time_ms for time_ms in self._times_ms if from_s <= time_ms / 1000 <= to_s]
        first = min(within)
        # The first batch was computed before its verdicts' time, so it does not count.
        return sum(time_ms > first + 5 for time_ms in within) / ((max(within) - first) / 1000)

    def close(self) -> None:
        self._verdicts.close()


def piped_per_s(feed: Feed, count: int, worker: InspectorProcess) -> float:
    """Pictures a second of `worker` on a backlog of `count`."""
    feed.send(count)
    verdicts = VerdictTimes(feed.settings)
    with worker:
        while verdicts.out() < count:
            time.sleep(0.5)
    per_s = verdicts.per_s()
    verdicts.close()
    return per_s
