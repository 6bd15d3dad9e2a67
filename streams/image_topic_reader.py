"""Reads single records of image topics by partition and offset, for the station's pages and for the localiser."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from streams.identity import make_header_map
from streams.kafka import is_reachable, make_client_arguments, open_client
from streams.record_producer import ConsumedRecord
from streams.settings import Settings

_READ_MS = 4000
_BACKOFF_MS = 5


class ImageTopicReader:
    """Reads one record at a time from any image topic, without a consumer group. Not thread-safe.

    `role` is a part of the client id that the brokers see.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._client = f"{role}-pictures"
        self._consumer: Any = None
        # The last known end offset of each partition. For a record before this offset, the reader need not ask Kafka for the end offset.
        self._ends: dict[TopicPartition, int] = {}
        # The last known partition numbers of each topic. The reader asks Kafka again only if it needs another partition number.
        self._partitions: dict[str, set[int]] = {}

    def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        """Returns the record at `offset`. Returns None if Kafka has deleted the record, has not written it yet, or has no such partition.

        Raises KafkaError or OSError if Kafka does not answer in time. The next read then connects again.
        """
        try:
            self._consumer = self._consumer or self._connect()
            place = TopicPartition(topic, partition)
            record = _read_record(self._consumer, place, offset) if self._holds(place, offset) else None
        except BaseException:
            self.close()
            raise
        if record is None:
            return None
        return ConsumedRecord(topic, partition, offset, record.key, record.value, make_header_map(record.headers))

    def close(self) -> None:
        """Closes the connection to Kafka, if there is one."""
        consumer, self._consumer = self._consumer, None
        self._ends, self._partitions = {}, {}
        if consumer is not None:
            consumer.close()

    def _holds(self, place: TopicPartition, offset: int) -> bool:
        """Returns whether the partition exists and its end lies after `offset`.

        A forged verdict can name any partition and any offset. Without this check, the reader would wait some seconds for a record that
        does not exist.
        """
        if place.partition not in self._partitions.get(place.topic, ()):
            self._consumer.topics()  # The client asks Kafka for the present partitions of all topics.
            self._partitions[place.topic] = self._consumer.partitions_for_topic(place.topic) or set()
            if place.partition not in self._partitions[place.topic]:
                return False
        if offset >= self._ends.get(place, 0):
            self._ends[place] = self._consumer.end_offsets([place])[place]
        return offset < self._ends[place]

    def _connect(self) -> Any:
        if not is_reachable(self._settings.bootstrap):
            raise ConnectionError(f"no Kafka broker listens at {self._settings.bootstrap}")
        arguments = make_client_arguments(self._settings, self._client) | {"request_timeout_ms": 5000, "bootstrap_timeout_ms": 5000}
        # Kafka always sends at least one whole batch of records. The limit `max_partition_fetch_bytes=1` keeps Kafka from sending more than
        # the batch that contains the picture.
        return open_client(
            KafkaConsumer,
            **arguments,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=1,
            # The client sleeps for this time if it holds only records that an earlier read has left over. The default is 100 ms.
            retry_backoff_ms=_BACKOFF_MS,
            metrics_enabled=False,
        )


def _read_record(consumer: Any, partition: TopicPartition, offset: int) -> Any | None:
    """Returns the record at `offset`, or None if Kafka has no such record. Raises ConnectionError if Kafka sends nothing in time."""
    # Pause the partitions of earlier reads, and do not remove them from the consumer. The next read of a removed partition would need
    # a request for metadata and a wait of 100 ms.
    others = consumer.assignment() - {partition}
    if partition not in consumer.assignment():
        consumer.assign([*others, partition])
    consumer.pause(*others)
    consumer.resume(partition)
    consumer.seek(partition, offset)
    try:
        for record in consumer.poll(timeout_ms=_READ_MS, max_records=1).get(partition, ()):
            return record if record.offset == offset else None
    except OffsetOutOfRangeError:
        return None
    # Kafka has sent nothing. If the partition ends before `offset`, the record does not exist, for example because the topic was deleted
    # and created again. Otherwise Kafka was too slow.
    if consumer.end_offsets([partition])[partition] <= offset:
        return None
    raise ConnectionError(f"Kafka sent no record of {partition.topic}/{partition.partition} within {_READ_MS} ms")
