"""Producers and readers for the delivery tests: plain kafka-python clients that know topics and keys, nothing of ours."""

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
    """A small noisy picture, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    return file.getvalue()


PICTURES = [make_jpeg(seed) for seed in range(50)]


class PictureProducer:
    """Sends pictures at `rate_per_s` from a thread until finished, over all lines in turn; part numbers count up per line."""

    def __init__(self, settings: Settings, rate_per_s: float) -> None:
        self._settings = settings
        self._rate_per_s = rate_per_s
        self._names = TopicNames(settings.topics.prefix)
        self._finishing = threading.Event()
        self._failures: list[BaseException] = []
        self.parts: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap, delivery_timeout_ms=60_000, request_timeout_ms=5_000)
        lines = [line.name for line in self._settings.lines]
        begun_s = time.monotonic()
        sent: list[Any] = []  # kafka-python's futures
        while not self._finishing.wait(max(0.0, begun_s + len(sent) / self._rate_per_s - time.monotonic())):
            number = len(sent)
            line = lines[number % len(lines)]
            part = f"{line}:1:{number // len(lines) + 1}"
            sent.append(producer.send(self._names.images(line), key=part.encode(), value=PICTURES[number % len(PICTURES)]))
            self.parts.append(part)
        for one in sent:
            try:
                one.get(60)
            except KafkaError as error:
                self._failures.append(error)
        producer.close()

    def finish(self) -> list[str]:
        """Sends no more; the ids of all parts sent, each confirmed by the broker."""
        self._finishing.set()
        self._thread.join()
        assert not self._failures, f"the test's own producer failed on {len(self._failures)}: {self._failures[0]!r}"
        return self.parts


@dataclass
class TopicContents:
    """What a topic held."""

    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    headers: list[dict[str, bytes]] = field(default_factory=list)


class TopicReader:
    """Reads topics from their beginning on, each record once."""

    def __init__(self, settings: Settings, *topics: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
        self._places = [
            TopicPartition(topic, partition) for topic in topics for partition in self._consumer.partitions_for_topic(topic) or ()
        ]
        self._consumer.assign(self._places)
        self._consumer.seek_to_beginning(*self._places)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._consumer.close()

    def fresh(self) -> TopicContents:
        """What came since the last call, up to the topics' ends now."""
        ends = self._consumer.end_offsets(self._places)
        seen = TopicContents()
        while any(self._consumer.position(place) < ends[place] for place in self._places):
            for records in self._consumer.poll(500).values():
                for record in records:
                    seen.values.append(record.value)
                    seen.keys.append(record.key)
                    seen.headers.append(dict(record.headers))
        return seen


def read_topic(settings: Settings, topic: str) -> TopicContents:
    """Everything in `topic` up to its end now."""
    with TopicReader(settings, topic) as reader:
        return reader.fresh()


def read_verdicts(settings: Settings) -> list[Verdict]:
    """All verdicts of all lines; each must be one by the published schema."""
    with _reader_of_verdicts(settings) as reader:
        return _decoded(reader.fresh())


def _reader_of_verdicts(settings: Settings) -> TopicReader:
    names = TopicNames(settings.topics.prefix)
    return TopicReader(settings, *(names.verdicts(line.name) for line in settings.lines))


def _decoded(seen: TopicContents) -> list[Verdict]:
    return [Verdict.decode(value or b"") for value in seen.values]


def count_by_part(found: list[Verdict]) -> Counter[str]:
    return Counter(str(verdict.part_id) for verdict in found)


def wait_for(what: Callable[[], bool], within_s: float, saying: str) -> None:
    """Returns once `what` holds; fails with `saying` after `within_s`."""
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, f"{saying} within {within_s:.0f} s"
        time.sleep(0.1)


def wait_for_verdicts(settings: Settings, parts: int, within_s: float = 90) -> list[Verdict]:
    """All verdicts, once `parts` different parts have one."""
    found: list[Verdict] = []
    with _reader_of_verdicts(settings) as reader:

        def enough() -> bool:
            found.extend(_decoded(reader.fresh()))
            return len(found) >= parts and len(count_by_part(found)) >= parts

        wait_for(enough, within_s, f"expected verdicts on {parts} parts")
    return found
