"""Makes a Faust consumer start at a recent time instead of its committed offsets.

Old records are worthless to the sorter. If its committed offsets were lost, it would first read all old records that Kafka keeps. Live
parts would pass the gate in the meantime.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from aiokafka import TopicPartition
from faust.types import AppT

from streams.consumed_offsets import CheckedConsumer, CheckedTransport, set_transport
from streams.identity import format_time

log = logging.getLogger(__name__)


class RecentStart:
    """Makes a Faust application start at the records of the last `max_age_s` seconds, and says how many records were skipped."""

    def __init__(self, max_age_s: float) -> None:
        self.since_s = time.time() - max_age_s
        # Maps each topic to the number of its skipped records. A topic without skipped records is absent.
        self._skipped: dict[str, int] = {}

    def apply_to(self, app: AppT[object]) -> None:
        """Makes `app` start each partition at the recent records instead of the committed offset.

        If a partition is assigned again later, the consumer continues at the committed offset, but not before its first start.
        """
        set_transport(app, _RecentTransport).start = self

    def add_skipped(self, topic: str, records: int) -> None:
        """Counts `records` of `topic` as skipped, and logs a warning."""
        if records > 0:
            self._skipped[topic] = self._skipped.get(topic, 0) + records
            log.warning(self.description)

    @property
    def description(self) -> str:
        """A sentence about the skipped records, or "" if there are none."""
        counts = " and ".join(f"{number} records of {topic}" for topic, number in sorted(self._skipped.items()))
        since = format_time(datetime.fromtimestamp(self.since_s, UTC))
        return f"This program skipped {counts} at its start, because they were sent before {since}." if counts else ""


class _RecentConsumer(CheckedConsumer):
    """A consumer that starts each partition at the first record after a given time."""

    reports_expired_at_start = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._first_offsets: dict[TopicPartition, int] = {}

    async def perform_seek(self) -> None:
        """Moves to the next records to read. Faust calls this method after each assignment of partitions."""
        await super().perform_seek()
        for partition in self.assignment():
            committed = self._committed_offset[partition]
            first = self._first_offsets.get(partition)
            if first is None:
                first = self._first_offsets[partition] = await self._recent_offset(partition)
            elif committed is not None and committed >= first:
                continue
            await self.seek(partition, first)
            self._next_offsets[partition] = first
            # Faust commits an offset only if no records are missing between it and the last committed offset.
            self._committed_offset[partition] = first

    async def _recent_offset(self, partition: TopicPartition) -> int:
        consumer, key = self._thread._ensure_consumer(), TopicPartition(partition.topic, partition.partition)
        beginning = (await self._thread.call_thread(consumer.beginning_offsets, [key]))[key]
        # The end offset is requested first, so that a record that arrives between the two requests is not skipped.
        end = (await self._thread.call_thread(consumer.end_offsets, [key]))[key]
        found = (await self._thread.call_thread(consumer.offsets_for_times, {key: int(self.transport.start.since_s * 1000)}))[key]
        offset = found.offset if found else end
        committed = self._committed_offset[partition]
        log.info("Records of %s are read from offset %d on. The committed offset was %s.", partition.topic, offset, committed)
        self.transport.start.add_skipped(partition.topic, offset - max(committed or 0, beginning))
        return int(offset)


class _RecentTransport(CheckedTransport):
    Consumer = _RecentConsumer
    start: RecentStart
