"""Reads single records of image topics by their position, for the station's pages and for the localiser."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from streams.identity import make_header_map
from streams.kafka import is_reachable, make_client_arguments
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

    def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        """Returns the record at `offset`, or None if Kafka has deleted the record or has not written it, or has no such partition.

        Raises KafkaError or OSError if Kafka does not answer in time. The next read then connects again.
        """
        try:
            self._consumer = self._consumer or self._connect()
            record = _read_record(self._consumer, TopicPartition(topic, partition), offset)
        except BaseException:
            self.close()
            raise
        if record is None:
            return None
        return ConsumedRecord(topic, partition, offset, record.key, record.value, make_header_map(record.headers))

    def close(self) -> None:
        """Closes the connection to Kafka, if there is one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _connect(self) -> Any:
        if not is_reachable(self._settings.bootstrap):
            raise ConnectionError(f"no Kafka broker listens at {self._settings.bootstrap}")
        arguments = make_client_arguments(self._settings, self._client) | {"request_timeout_ms": 5000, "bootstrap_timeout_ms": 5000}
        # `max_partition_fetch_bytes` is 1, so that Kafka sends only the batch with the picture. Kafka sends one batch even if it is larger.
        return KafkaConsumer(
            **arguments,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=1,
            # Sometimes a poll finds only records that were fetched in advance and are not wanted. Then it sleeps for this time, by default
            # for 100 ms.
            retry_backoff_ms=_BACKOFF_MS,
            metrics_enabled=False,
        )


def _read_record(consumer: Any, partition: TopicPartition, offset: int) -> Any | None:
    """Returns the record at `offset`, or None if the topic does not have it. Raises ConnectionError if Kafka sends nothing in time."""
    # All partitions stay assigned, and only the wanted one is fetched. If a partition were assigned anew, the consumer would first ask
    # for the metadata of the topic and wait for 100 ms.
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
    # Kafka sent no record. Perhaps the partition does not exist, for example because `partition` comes from a forged verdict. The consumer
    # must then no longer ask for this partition.
    if partition.partition not in (consumer.partitions_for_topic(partition.topic) or {partition.partition}):
        consumer.assign(list(others))
        return None
    # A partition that ends at `offset` or earlier has no such record yet. In a longer partition, Kafka did not send the record in time.
    if consumer.end_offsets([partition])[partition] <= offset:
        return None
    raise ConnectionError(f"Kafka sent no record of {partition.topic}/{partition.partition} within {_READ_MS} ms")
