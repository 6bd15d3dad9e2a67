"""Reads topics from their beginning to where they end now: for the audit, for one part's story, for parked letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from streams.errors import CastlineError
from streams.kafka import client_arguments
from streams.settings import Settings

_SILENCE_S = 30


def read_to_end(settings: Settings, role: str, topics: Sequence[str], since: datetime | None = None) -> Iterator[Any]:
    """kafka-python's records of `topics`, each partition in order, up to the end offsets at the call. Joins no group.

    `since` leaves out what Kafka held before that time.

    Raises CastlineError: when a topic does not exist, or stays silent before its end is reached.
    """
    consumer = KafkaConsumer(**client_arguments(settings, role), group_id=None, enable_auto_commit=False)
    try:
        partitions = []
        for topic in topics:
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise CastlineError(f"expected the topic {topic} at {settings.bootstrap}, found none; make it with: castline topics create")
            partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        if since is not None:
            found = consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
            # No answer for a partition whose records are all older.
            begins = {partition: found[partition].offset if found[partition] else ends[partition] for partition in partitions}
        for partition in partitions:
            consumer.seek(partition, begins[partition])
        left = {partition for partition in partitions if ends[partition] > begins[partition]}
        while left:
            polled = consumer.poll(timeout_ms=_SILENCE_S * 1000)
            if not polled:
                missing = ", ".join(f"{partition.topic}/{partition.partition}" for partition in sorted(left))
                raise CastlineError(f"expected to read {missing} to the end, found silence for {_SILENCE_S} s")
            for partition, records in polled.items():
                yield from (record for record in records if record.offset < ends[partition])
            left = {partition for partition in left if consumer.position(partition) < ends[partition]}
    finally:
        consumer.close()
