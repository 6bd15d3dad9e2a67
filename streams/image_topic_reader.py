"""Reads single records of image topics by their position, for the station's pages and for the localiser."""

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
        # The end offset of each partition, as Kafka gave it last. Kafka is asked again only for a record that is not before this offset.
        self._ends: dict[TopicPartition, int] = {}
        # The partitions of each topic, as Kafka gave them last. Kafka is asked again only for a partition that is not known here.
        self._partitions: dict[str, set[int]] = {}

    def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        """Returns the record at `offset`, or None if Kafka has deleted the record or has not written it, or has no such partition.

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
        """Returns whether the partition exists and has reached `offset`. A forged verdict can name any partition and any offset.

        Without this check, each such verdict would block the reader for some seconds, because the reader waits until Kafka sends a record.
        """
        if place.partition not in self._partitions.get(place.topic, ()):
            self._consumer.topics()  # asks Kafka for the present partitions of all topics
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
        # `max_partition_fetch_bytes` is 1, so that Kafka sends only the batch with the picture. Kafka sends one batch even if it is larger.
        return open_client(
            KafkaConsumer,
            **arguments,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=1,
            # The client fetches records in advance. If a poll finds only records that were fetched for an earlier read, the client sleeps
            # for this time. The default is 100 ms.
            retry_backoff_ms=_BACKOFF_MS,
            metrics_enabled=False,
        )


def _read_record(consumer: Any, partition: TopicPartition, offset: int) -> Any | None:
    """Returns the record at `offset`, or None if the topic does not have it. Raises ConnectionError if Kafka sends nothing in time."""
    # Partitions of earlier reads stay assigned to the consumer, and are only paused. If they were removed, a later read of such a partition
    # would need a request for metadata and a wait of 100 ms.
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
    # Kafka has sent nothing. If the topic was deleted and created again, it can end at `offset` or earlier, so there is no such record.
    # Otherwise Kafka did not send the record in time.
    if consumer.end_offsets([partition])[partition] <= offset:
        return None
    raise ConnectionError(f"Kafka sent no record of {partition.topic}/{partition.partition} within {_READ_MS} ms")
