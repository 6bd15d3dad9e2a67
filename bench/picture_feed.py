"""Sends pictures to Kafka for a measurement, and reads the times at which their verdicts came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.inspector_process import RoleProcess
from streams.errors import BrokerError, SettingsError
from streams.identity import format_time
from streams.picture_files import JUDGED_SUFFIXES, is_foreign
from streams.records import Verdict
from streams.settings import Settings
from streams.topics import TopicNames

_STALL_S = 120.0
# Pictures of the first second do not count for the latencies, because the inspector is not yet at its usual speed.
_SKIPPED_S = 1.0


def load_pictures(folder: Path | None, count: int) -> list[bytes]:
    """Returns at most `count` encoded pictures: the files below `folder` in the order of their paths.

    If `folder` is None, returns rendered castings.

    Raises SettingsError if the folder holds no picture.
    """
    if folder is None:
        from models.synthetic import render_series

        return [casting.to_jpeg() for casting in render_series(count, seed=11)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in JUDGED_SUFFIXES and not is_foreign(path.name))[:count]
    if not paths:
        raise SettingsError(f"--images: There are no pictures ({', '.join(JUDGED_SUFFIXES)}) in {folder}. Choose another folder.")
    return [path.read_bytes() for path in paths]


class PictureFeed:
    """Sends one picture to the image topic of each line in turn.

    All lines share one sequence of part numbers. For example, line-1 gets part 1, line-2 gets part 2, and line-1 gets part 3.
    """

    def __init__(self, settings: Settings, pictures: list[bytes]) -> None:
        self.settings = settings
        self.sent_count = 0
        self._names = TopicNames(settings.topics.prefix)
        self._lines = [line.name for line in settings.lines]
        self._pictures: Iterator[bytes] = cycle(pictures)

    def send(self, count: int, rate_per_s: float | None = None) -> None:
        """Sends `count` pictures, at `rate_per_s` or as fast as the broker takes them. Returns when the broker has confirmed them."""
        producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap, linger_ms=0 if rate_per_s else 20)
        start_s = time.monotonic()
        for number in range(count):
            if rate_per_s:
                time.sleep(max(0.0, start_s + number / rate_per_s - time.monotonic()))
            self.sent_count += 1
            line = self._lines[number % len(self._lines)]
            captured_at = format_time(datetime.now(UTC)).encode()
            key = f"{line}:1:{self.sent_count}".encode()
            producer.send(self._names.images(line), key=key, value=next(self._pictures), headers=[("captured_at", captured_at)])
        producer.flush()
        producer.close()


def open_verdict_consumer(settings: Settings, topic_of: Callable[[TopicNames, str], str] = TopicNames.verdicts) -> KafkaConsumer:
    """Returns a Kafka consumer that reads the new records of one topic of each line.

    `topic_of(names, line)` returns this topic of a line. By default, it is the topic of the verdicts.
    """
    names = TopicNames(settings.topics.prefix)
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False)
    partitions = [TopicPartition(topic_of(names, line.name), 0) for line in settings.lines]
    consumer.assign(partitions)
    consumer.seek_to_end(*partitions)
    for partition in partitions:
        consumer.position(partition)
    return consumer


class VerdictTimes:
    """Counts the verdicts that have come since this object was made, and reads their times.

    The times are read only when `read_times_s` is called, because to read them earlier would slow down the inspector. To count other
    records, pass a `topic_of` that returns another topic of a line, such as `TopicNames.findings`.
    """

    def __init__(self, settings: Settings, topic_of: Callable[[TopicNames, str], str] = TopicNames.verdicts) -> None:
        self._consumer = open_verdict_consumer(settings, topic_of)
        self._partitions = list(self._consumer.assignment())
        self._start_offset: int = sum(self._consumer.position(partition) for partition in self._partitions)
        self._times_s: list[float] = []

    def count(self) -> int:
        """Returns the number of verdicts so far."""
        end_offsets: dict[TopicPartition, int] = self._consumer.end_offsets(self._partitions)
        return sum(end_offsets.values()) - self._start_offset

    def wait_for(self, count: int, inspector: RoleProcess) -> None:
        """Waits for `count` verdicts. Raises BrokerError if `inspector` ends or gives no verdict for two minutes."""
        last_count, changed_s = self.count(), time.monotonic()
        while last_count < count:
            inspector.check_alive()
            time.sleep(0.5)
            new_count = self.count()
            if new_count != last_count:
                last_count, changed_s = new_count, time.monotonic()
            elif time.monotonic() - changed_s > _STALL_S:
                raise BrokerError(
                    f"The inspector gave {last_count} of {count} verdicts, and then none for {_STALL_S:.0f} s. Run the bench again."
                )

    def read_times_s(self) -> list[float]:
        """Returns the times of all verdicts so far, in seconds since 1970, in ascending order."""
        count = self.count()
        while len(self._times_s) < count:
            self._times_s += [record.timestamp / 1000 for records in self._consumer.poll(1000).values() for record in records]
        return sorted(self._times_s)

    def close(self) -> None:
        """Closes the connection to the broker."""
        self._consumer.close()


def measure_throughput(feed: PictureFeed, count: int, inspector: RoleProcess) -> float:
    """Sends `count` pictures, starts `inspector` and waits for all verdicts. Returns the inspector's speed in pictures a second."""
    feed.send(count)
    verdicts = VerdictTimes(feed.settings)
    with inspector:
        verdicts.wait_for(count, inspector)
    times_s = verdicts.read_times_s()
    verdicts.close()
    # The measured time begins after the first batch was judged, so the pictures of this batch do not count.
    return sum(time_s > times_s[0] + 0.005 for time_s in times_s) / (times_s[-1] - times_s[0])


def measure_latencies_ms(feed: PictureFeed, rate_per_s: float, count: int) -> list[float]:
    """Sends `count` pictures at `rate_per_s`. Returns the time from capture to the arrival of the verdict for each picture.

    Pictures of the first second are left out. An inspector must be running. Raises BrokerError if there is no verdict for two minutes.
    """
    consumer = open_verdict_consumer(feed.settings)
    sending = threading.Thread(target=feed.send, args=(count, rate_per_s), daemon=True)
    sending.start()
    latencies: list[tuple[datetime, float]] = []
    changed_s = time.monotonic()
    while len(latencies) < count:
        for records in consumer.poll(200).values():
            changed_s = time.monotonic()
            arrived_at = datetime.now(UTC)
            for record in records:
                captured_at = Verdict.decode(record.value).captured_at
                latencies.append((captured_at, (arrived_at - captured_at).total_seconds() * 1000))
        if time.monotonic() - changed_s > _STALL_S:
            raise BrokerError(
                f"The inspector gave {len(latencies)} of {count} verdicts, and then none for {_STALL_S:.0f} s. Run the bench again."
            )
    sending.join()
    consumer.close()
    first_captured_at = min(captured_at for captured_at, _ in latencies)
    return [latency_ms for captured_at, latency_ms in latencies if (captured_at - first_captured_at).total_seconds() > _SKIPPED_S]
