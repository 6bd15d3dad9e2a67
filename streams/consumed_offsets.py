"""Checks at which offset a Faust consumer starts in each partition, and finds records that Kafka deleted before they were read.

Faust itself does not report records that have expired, or a topic that was deleted and created again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP, AppT

from streams.record_memory import BoundedConsumerThread

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpiredRecords:
    """Records of one partition that Kafka deleted before the consumer read them. `first` is the offset of the first such record."""

    topic: str
    partition: int
    first: int
    count: int


@dataclass(frozen=True)
class StartOffset:
    """The offset at which a consumer starts in a partition.

    - `expired`: how many records before `offset` the consumer has never read, because Kafka deleted them.
    - `is_of_other_topic`: True if the committed offset belongs to an earlier topic with the same name.
    """

    offset: int
    expired: int
    is_of_other_topic: bool


def choose_start(committed: int | None, log_start: int, log_end: int) -> StartOffset:
    """Returns the offset at which a consumer starts in a partition.

    - `committed`: the committed offset of the consumer group, or None if the group has not committed an offset yet.
    - `log_start`: the offset of the oldest record that Kafka holds.
    - `log_end`: the offset after the newest record.
    """
    if committed is None:
        return StartOffset(log_start, 0, False)
    if committed > log_end:
        return StartOffset(log_start, 0, True)
    return StartOffset(max(committed, log_start), max(0, log_start - committed), False)


class CheckedConsumer(Consumer):  # type: ignore[misc]  # Faust ships no types
    """A Faust consumer that compares the committed offsets with the records that Kafka still holds."""

    # Faust logs each start and stop of a consumer with this logger. The name of the logger begins with `faust`, so Castline hides these
    # messages and shows only warnings.
    logger = logging.getLogger("faust.consumer")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._next_offsets: dict[TP, int] = {}
        # False while the start offsets of the assigned partitions are not known yet.
        self._has_starts = False

    def _new_consumer_thread(self) -> BoundedConsumerThread:
        return BoundedConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        """Commits `offsets` and returns True. If Kafka refuses the commit, empties `offsets` and returns False.

        Kafka refuses a commit after a rebalance, for example.
        """
        is_committed: bool = await super()._commit(offsets)
        if not is_committed:
            # Kafka has refused the commit, but Faust treats all offsets in this dictionary as committed. Kafka delivers their records
            # again, and Faust would ignore the acknowledgements of these records. So empty the dictionary.
            offsets.clear()
        return is_committed

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109  the method of Faust has this parameter
    ) -> AsyncIterator[tuple[TP, Any]]:
        """Yields the next records. Corrects a fault of Faust at the beginning of a partition.

        Some offsets hold no record for the consumer, for example because they hold a control record of Kafka. Faust recognises such
        offsets everywhere, except directly after the offset 0. There, this method tells Faust not to wait for an acknowledgement.
        """
        async for partition, record in super().getmany(timeout):
            if self._read_offset[partition] == 0 and record.offset > 1:
                await self._add_gap(partition, 1, record.offset - 1)
            yield partition, record

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._has_starts = False
        await super().on_partitions_revoked(revoked)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commits the acknowledged records, and the control records of Kafka that follow them.

        A consumer never gets control records, but each of them has an offset.
        """
        is_committed: bool = await super().force_commit(topics, start_new_transaction)
        if topics is None and self._has_starts:
            await self._commit_positions()
        return is_committed

    async def _commit_positions(self) -> None:
        """Commits the read position of a partition if all records that were read from this partition are committed.

        A partition can end with control records of Kafka, which no consumer gets. Without this commit, the control records would count as
        waiting records. A worker that has nothing to do would look stalled, and the supervisor would restart it.
        """
        for found, (position, last_taken) in (await self._thread.find_positions()).items():
            partition = TP(found.topic, found.partition)
            committed = self._committed_offset[partition]
            if position <= (committed or 0) or (last_taken is not None and (committed or 0) <= last_taken):
                continue
            if not self._has_starts or not await self._commit({partition: position}):
                return
            if self._committed_offset[partition] != committed:
                continue
            self._committed_offset[partition] = position
            # Tell Faust that everything before `position` was read. Otherwise Faust would wait for the acknowledgement of offsets that hold
            # no record.
            self._read_offset[partition] = max(position, self._read_offset[partition] or 0)

    async def perform_seek(self) -> None:
        """Moves the read position of each assigned partition to its start offset. Faust calls this method after each assignment."""
        # First stop the fetching of records. Faust empties its queues after the seek, and a record that arrived during the seek would be
        # lost.
        self.stop_flow()
        self._has_starts = False
        await super().perform_seek()
        partitions = list(self.assignment())
        if not partitions:
            return
        log_starts, log_ends = await self.earliest_offsets(*partitions), await self.highwaters(*partitions)
        self._next_offsets = {}
        for partition in partitions:
            committed = self._committed_offset[partition]
            start = await self.choose_start(partition, committed, log_starts[partition], log_ends[partition])
            self._next_offsets[partition] = start.offset
            if start.is_of_other_topic:
                log.warning(
                    "The committed offset %s of %s/%d is beyond the end %s of the partition, so it belongs to an earlier topic with this "
                    "name. The consumer starts at the offset %d.",
                    committed,
                    partition.topic,
                    partition.partition,
                    log_ends[partition],
                    start.offset,
                )
            # Faust drops fetched records during a rebalance. The seek makes Kafka's client fetch these records again. The seek is needed
            # even if `committed` equals `start.offset`, because the client's own position can differ from this offset.
            await self.seek(partition, start.offset)
            if start.offset != committed:
                # The records before `start.offset` are never read, so nobody acknowledges them. Faust would wait for these acknowledgements
                # for ever, and would not commit later offsets. So tell Faust that `start.offset` is already committed.
                self._committed_offset[partition] = start.offset or None
            if start.expired:
                await self.transport.on_expired(ExpiredRecords(partition.topic, partition.partition, committed or 0, start.expired))
            if start.offset > (committed or 0):
                # Commit the new offset at once. Otherwise the records before this offset would count as waiting, and the supervisor would
                # restart a worker that has nothing to do. Expired records would also be reported again at the next start.
                await self._commit({partition: start.offset})
        self._has_starts = True

    async def choose_start(self, partition: TP, committed: int | None, log_start: int, log_end: int) -> StartOffset:
        """Returns the offset at which the consumer starts in `partition`.

        `committed` is None if the group has not committed an offset yet. `log_start` is the offset of the oldest record that Kafka holds,
        and `log_end` the offset after the newest one.

        A subclass can choose another offset. The consumer reports the expired records if their number, `StartOffset.expired`, is above 0.
        """
        return choose_start(committed, log_start, log_end)

    async def check_offset(self, partition: TP, offset: int) -> None:
        """Reports the records that Kafka has deleted between the previously read record and the record at `offset`, if there are any.

        Call this method after each record that was read. `offset` is the offset of this record.
        """
        expected, self._next_offsets[partition] = self._next_offsets.get(partition), offset + 1
        if expected is None or offset <= expected:
            return
        log_start = (await self.earliest_offsets(partition))[partition]
        if (count := min(offset, log_start) - expected) > 0:
            await self.transport.on_expired(ExpiredRecords(partition.topic, partition.partition, expected, count))


async def _ignore(_: ExpiredRecords) -> None:
    return None


class CheckedTransport(Transport):  # type: ignore[misc]  # Faust ships no types
    """A transport for Faust that reads with a CheckedConsumer. The consumer calls `on_expired` for each range of expired records."""

    Consumer = CheckedConsumer
    on_expired: Callable[[ExpiredRecords], Awaitable[None]] = staticmethod(_ignore)


AnyTransport = TypeVar("AnyTransport", bound=CheckedTransport)


def set_transport(app: AppT[object], kind: type[AnyTransport]) -> AnyTransport:
    """Connects `app` to Kafka through a new transport of the class `kind`. Returns the transport."""
    transport = kind(app.conf.broker_consumer, app)
    app.transport = transport
    return transport
