"""Makes a Faust consumer start at the first recent record of each partition, and not at its committed offsets.

Old records are of no use to the sorter. But if its committed offsets were lost, the sorter would first read all old records that Kafka
keeps. In the meantime, new parts would pass the gate without a verdict.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from faust.types import TP, AppT

from streams.consumed_offsets import CheckedConsumer, CheckedTransport, StartOffset, set_transport
from streams.identity import format_time

log = logging.getLogger(__name__)

# At most this many records of a partition are treated as recent. The limit is needed because even old records seem to be recent after the
# clock was set back.
MAX_RECENT = 2048


def find_first_offset(recent: int | None, log_end: int) -> int:
    """Returns the offset at which a consumer starts: the first recent record, but at most MAX_RECENT records before `log_end`.

    - `recent`: the offset of the first recent record, or None if there is no recent record.
    - `log_end`: the offset after the newest record.
    """
    return log_end if recent is None else max(recent, log_end - MAX_RECENT)


class RecentStart:
    """Makes a Faust application skip the records that are older than `max_age_s` seconds, and counts the skipped records."""

    def __init__(self, max_age_s: float, clock: Callable[[], float] = time.time) -> None:
        self.since_s = clock() - max_age_s
        # Maps each topic to the number of its skipped records. A topic without skipped records is absent.
        self._skipped: dict[str, int] = {}

    def apply_to(self, app: AppT[object]) -> None:
        """Makes `app` start each partition at the recent records instead of the committed offset.

        If a partition is assigned to the consumer again later, the consumer continues at the committed offset. The consumer never goes back
        to skipped records.
        """
        set_transport(app, _RecentTransport).start = self

    def add_skipped(self, topic: str, records: int) -> None:
        """Adds `records` to the number of skipped records of `topic`, and logs a warning."""
        if records > 0:
            self._skipped[topic] = self._skipped.get(topic, 0) + records
            log.warning(self.description)

    @property
    def description(self) -> str:
        """A sentence about the skipped records, or "" if there are none."""
        counts = " and ".join(f"{number} records of {topic}" for topic, number in sorted(self._skipped.items()))
        since = format_time(datetime.fromtimestamp(self.since_s, UTC))
        if not counts:
            return ""
        return f"This program skipped {counts} at its start, because they were sent before {since} or are older than {MAX_RECENT} others."


class _RecentConsumer(CheckedConsumer):
    """A consumer that starts each partition at the first record after a given time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._first_offsets: dict[TP, int] = {}

    async def choose_start(self, partition: TP, committed: int | None, log_start: int, log_end: int) -> StartOffset:
        """Returns where the consumer starts in `partition`.

        The first call returns the offset of the first recent record. Later calls return the committed offset, but never an offset before
        the result of the first call. The skipped records are not reported as expired, because the consumer skips them on purpose.
        """
        usual = await super().choose_start(partition, committed, log_start, log_end)
        first = self._first_offsets.get(partition)
        if first is not None:
            return replace(usual, offset=max(usual.offset, first), expired=0)
        # If the partition has no recent record, the consumer starts at `log_end`. The caller has read `log_end` before this search. So no
        # record that arrives during the search is skipped.
        found = await self._find_recent_record(partition)
        first = self._first_offsets[partition] = find_first_offset(found, log_end)
        last = "none" if committed is None else committed
        log.info("Records of %s are read from offset %d on. The last committed offset: %s.", partition.topic, first, last)
        self.transport.start.add_skipped(partition.topic, first - usual.offset)
        return replace(usual, offset=first, expired=0)

    async def _find_recent_record(self, partition: TP) -> int | None:
        """Returns the offset of the first recent record, or None if the partition has no recent record."""
        time_ms = int(self.transport.start.since_s * 1000)
        found = await self._thread.call_thread(self._thread._ensure_consumer().offsets_for_times, {partition: time_ms})
        return None if found[partition] is None else int(found[partition].offset)


class _RecentTransport(CheckedTransport):
    Consumer = _RecentConsumer
    start: RecentStart
