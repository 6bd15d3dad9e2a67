"""Plain kafka-python producers and consumers for the delivery tests. They use topic names and keys, but none of our delivery code."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from PIL import Image

from streams.records import Verdict
from streams.settings import Settings
from streams.topics import TopicNames


def make_jpeg(seed: int, side_px: int = 120) -> bytes:
    """Returns a small JPEG of noise. Each seed gives another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    return file.getvalue()


PICTURES = [make_jpeg(seed) for seed in range(50)]


class PictureProducer:
    """A thread that sends `rate_per_s` pictures a second to all lines in turn until `finish`. Parts count up from 1 on each line."""

    def __init__(self, settings: Settings, rate_per_s: float) -> None:
        self._settings = settings
        self._rate_per_s = rate_per_s
        self._names = TopicNames(settings.topics.prefix)
        self._finishing = threading.Event()
        self._failures: list[BaseException] = []
        self.parts: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap, delivery_timeout_ms=60_000, request_timeout_ms=5_000)
        lines = [line.name for line in self._settings.lines]
        started_s = time.monotonic()
        futures: list[Any] = []
        while not self._finishing.wait(max(0.0, started_s + len(futures) / self._rate_per_s - time.monotonic())):
            number = len(futures)
            line = lines[number % len(lines)]
            part = f"{line}:1:{number // len(lines) + 1}"
            futures.append(producer.send(self._names.images(line), key=part.encode(), value=PICTURES[number % len(PICTURES)]))
            self.parts.append(part)
        for future in futures:
            try:
                future.get(60)
            except KafkaError as error:
                self._failures.append(error)
        producer.close()

    def finish(self) -> list[str]:
        """Stops sending and returns the ids of all parts. The broker has confirmed each of them."""
        self._finishing.set()
        self._thread.join()
        assert not self._failures, f"the test's own producer failed on {len(self._failures)}: {self._failures[0]!r}"
        return self.parts


@dataclass
class TopicContents:
    """The records that were read from one or more topics, as parallel lists of values, keys and headers."""

    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    headers: list[dict[str, bytes]] = field(default_factory=list)


class TopicReader:
    """Reads topics from their beginning. Each record is returned once."""

    def __init__(self, settings: Settings, *topics: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
        self._partitions = [
            TopicPartition(topic, partition) for topic in topics for partition in self._consumer.partitions_for_topic(topic) or ()
        ]
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning(*self._partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._consumer.close()

    def read_new(self) -> TopicContents:
        """Returns the records since the last call, up to the present ends of the topics."""
        ends = self._consumer.end_offsets(self._partitions)
        contents = TopicContents()
        while any(self._consumer.position(partition) < ends[partition] for partition in self._partitions):
            for records in self._consumer.poll(500).values():
                for record in records:
                    contents.values.append(record.value)
                    contents.keys.append(record.key)
                    contents.headers.append(dict(record.headers))
        return contents


def read_topic(settings: Settings, topic: str) -> TopicContents:
    """Returns all records of `topic` up to its present end."""
    with TopicReader(settings, topic) as reader:
        return reader.read_new()


def read_verdicts(settings: Settings) -> list[Verdict]:
    """Returns all verdicts of all lines. Fails if a record is not a valid verdict."""
    with _open_verdict_reader(settings) as reader:
        return _decode_verdicts(reader.read_new())


def _open_verdict_reader(settings: Settings) -> TopicReader:
    names = TopicNames(settings.topics.prefix)
    return TopicReader(settings, *(names.verdicts(line.name) for line in settings.lines))


def _decode_verdicts(contents: TopicContents) -> list[Verdict]:
    return [Verdict.decode(value or b"") for value in contents.values]


def count_by_part(found: list[Verdict]) -> Counter[str]:
    return Counter(str(verdict.part_id) for verdict in found)


def wait_for(condition: Callable[[], bool], within_s: float, message: str) -> None:
    """Returns once `condition` returns True. Fails with `message` after `within_s` seconds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{message} within {within_s:.0f} s"
        time.sleep(0.1)


def wait_for_verdicts(settings: Settings, parts: int, within_s: float = 90) -> list[Verdict]:
    """Waits until `parts` different parts have a verdict, and returns all verdicts."""
    found: list[Verdict] = []
    with _open_verdict_reader(settings) as reader:

        def has_enough() -> bool:
            found.extend(_decode_verdicts(reader.read_new()))
            return len(found) >= parts and len(count_by_part(found)) >= parts

        wait_for(has_enough, within_s, f"expected verdicts on {parts} parts")
    return found
