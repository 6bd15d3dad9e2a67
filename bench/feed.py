"""Pictures put on Kafka for a measurement, and how many of them a worker turns into verdicts a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.worker import InspectorProcess
from streams.identity import write_time
from streams.settings import Settings
from streams.topics import TopicNames


class Feed:
    """Puts pictures on the image topics of all lines in turn; parts count up over the whole bench."""

    def __init__(self, settings: Settings, pictures: list[bytes]) -> None:
        self._settings = settings
        self._names = TopicNames(settings.topics.prefix)
        self._lines = [line.name for line in settings.lines]
        self._pictures: Iterator[bytes] = cycle(pictures)
        self._part = 0
        self.verdict_topics = [self._names.verdicts(line) for line in self._lines]

    def send(self, count: int, rate_per_s: float | None = None) -> None:
        """Sends `count` pictures, evenly at `rate_per_s` or as fast as the broker takes them; returns when confirmed."""
        producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap, linger_ms=0 if rate_per_s else 20)
        begun_s = time.monotonic()
        for number in range(count):
            if rate_per_s:
                time.sleep(max(0.0, begun_s + number / rate_per_s - time.monotonic()))
            self._part += 1
            line = self._lines[number % len(self._lines)]
            captured_at = write_time(datetime.now(UTC)).encode()
            key = f"{line}:1:{self._part}".encode()
            producer.send(self._names.images(line), key=key, value=next(self._pictures), headers=[("captured_at", captured_at)])
        producer.flush()
        producer.close()

    def tail(self) -> KafkaConsumer:
        """A consumer of all verdicts that come from now on."""
        consumer = KafkaConsumer(bootstrap_servers=self._settings.bootstrap, enable_auto_commit=False)
        places = [TopicPartition(topic, 0) for topic in self.verdict_topics]
        consumer.assign(places)
        consumer.seek_to_end(*places)
        for place in places:
            consumer.position(place)
        return consumer


def piped_per_s(feed: Feed, count: int, worker: InspectorProcess) -> float:
    """Pictures a second between the first and the last verdict of `worker` on a backlog of `count`, by the verdicts' own times."""
    feed.send(count)
    verdicts = feed.tail()
    begun = sum(verdicts.position(place) for place in verdicts.assignment())
    with worker:
        # Read afterwards: a reader beside the worker would take of the processor that is measured.
        while sum(verdicts.end_offsets(list(verdicts.assignment())).values()) - begun < count:
            time.sleep(0.5)
    times_ms: list[int] = []
    while len(times_ms) < count:
        times_ms += [record.timestamp for records in verdicts.poll(1000).values() for record in records]
    verdicts.close()
    first = min(times_ms)
    # The first batch was computed before its verdicts' time, so it does not count.
    counted = sum(time_ms > first + 5 for time_ms in times_ms)
    return counted / ((max(times_ms) - first) / 1000)
