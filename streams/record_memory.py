"""Limits how many bytes of records a Faust worker holds in memory, because a record can contain a picture of some megabytes.

The limit in the setting `kafka.buffer_bytes` is divided among these places:

| place | share of the limit | class |
| --- | --- | --- |
| records in the Kafka client's buffer | 1/8 for each broker | `BoundedConsumerThread` |
| records of one poll | 1/8 | `BoundedConsumerThread` |
| records in Faust's queue | 1/4 | `FetchedRecords` |
| records that the handler has accepted and not acknowledged | 1/2 | `RecordMemory` |

Each place accepts one record that is larger than its share, so that a large record cannot stop the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import faust
from aiokafka.consumer import fetcher as aiokafka_fetcher
from faust.app.base import ThrowableQueue
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from streams.errors import drop_traceback
from streams.unreadable_batches import ReadableBatches

# Faust stops fetching records when its queue is full. Faust fetches again when at most this fraction of the queue is filled.
_RESUME_SHARE = 0.4
# While its buffer holds records, aiokafka waits this many seconds before it asks a broker for more records. The value is one day, so that
# aiokafka in practice never asks before its buffer is empty.
_NEVER_S = 86_400.0


def measure_record(key: bytes | None, value: bytes | None) -> int:
    """Returns the size of a record in bytes: its key and its value."""
    return len(key or b"") + len(value or b"")


class RecordMemory:
    """Limits the bytes of the records that a worker has accepted and not acknowledged yet. Call its methods in the event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._has_room = asyncio.Event()
        self.used_bytes = 0

    async def reserve(self, size: int) -> Callable[[], None]:
        """Waits until `size` bytes are free, and reserves them for a record.

        A record that is larger than the limit waits until no bytes are reserved for other records.

        Returns a function that frees the bytes. Only its first call has an effect.
        """
        while self.used_bytes and self.used_bytes + size > self._max_bytes:
            self._has_room.clear()
            await self._has_room.wait()
        self.used_bytes += size
        reserved = size

        def release() -> None:
            nonlocal reserved
            self.used_bytes -= reserved
            reserved = 0
            self._has_room.set()

        return release


class FetchedRecords(ThrowableQueue[Any]):  # type: ignore[misc]  # Faust ships no types
    """Faust's queue of fetched records. The queue is full when it holds `maxsize` records or `max_bytes` bytes."""

    def __init__(self, *arguments: Any, max_bytes: int, **options: Any) -> None:
        self._max_bytes = max_bytes
        self.used_bytes = 0
        super().__init__(*arguments, **options)

    def full(self) -> bool:
        return super().full() or self.used_bytes >= self._max_bytes

    def clear(self) -> None:
        super().clear()
        self.used_bytes = 0

    def in_pressure_high_state(self, callback: Callable[..., Any]) -> bool:
        """Returns whether Faust must stop fetching from a partition. Faust calls `callback` when the queue has room again."""
        if self.used_bytes < self._max_bytes / self.pressure_high_ratio or callback in self._pending_pressure_drop_callbacks:
            return bool(super().in_pressure_high_state(callback))
        self._pending_pressure_drop_callbacks.add(callback)
        self.on_pressure_high()
        return True

    def maybe_endorse_pressure_drop(self) -> None:
        if self.used_bytes <= _RESUME_SHARE * self._max_bytes:
            super().maybe_endorse_pressure_drop()

    def _put(self, item: Any) -> None:
        self.used_bytes += _measure_event(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self.used_bytes -= _measure_event(item)
        return item


def _measure_event(event: Any) -> int:
    message = getattr(event, "message", None)
    return measure_record(message.key, message.value) if message is not None else 0


class BoundedApp(faust.App):  # type: ignore[misc]  # Faust ships no types
    """A Faust application whose buffers hold at most `buffer_bytes` bytes of records."""

    def __init__(self, *arguments: Any, buffer_bytes: int, **options: Any) -> None:
        self.buffer_bytes = buffer_bytes
        super().__init__(*arguments, **options)

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> FetchedRecords:
        return FetchedRecords(
            maxsize=maxsize, flow_control=self.flow_control, clear_on_resume=clear_on_resume, max_bytes=self.buffer_bytes // 4
        )


class _WorkerPartitionRecords(aiokafka_fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """The records that a broker's answer contains for one partition.

    If the records of a batch cannot be decoded, one record takes their place. The value of this record is an `UnreadableBatch`.
    """

    def __init__(self, place: Any, batches: Any, aborted_transactions: Any, fetch_offset: int, *arguments: Any) -> None:
        super().__init__(place, ReadableBatches(batches, place, fetch_offset), aborted_transactions, fetch_offset, *arguments)


# aiokafka has no setting for its class PartitionRecords, so the class is replaced in the module of aiokafka.
aiokafka_fetcher.PartitionRecords = _WorkerPartitionRecords


class BoundedConsumerThread(AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust ships no types
    """The thread of Faust's Kafka client. It limits the bytes of a broker's answer and of the records that one poll returns."""

    _postponed_error: Exception | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # For each partition, the offset of the last record that was taken from the client's buffer.
        self.last_taken: dict[Any, int] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_bytes = min(consumer._fetch_max_bytes, self.app.buffer_bytes // 8)
        consumer._max_partition_fetch_bytes = min(consumer._max_partition_fetch_bytes, consumer._fetch_max_bytes)
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        # While the buffer of aiokafka still holds records, aiokafka must not ask the brokers for more. Otherwise, the buffer would fill
        # with records of all partitions.
        self._consumer._fetcher._prefetch_backoff = _NEVER_S

    async def find_positions(self) -> dict[Any, tuple[int, int | None]]:
        """Returns for each assigned partition the offset of the next record to read, and the offset of the last record that was read."""
        found: dict[Any, tuple[int, int | None]] = await self.call_thread(self._find_positions)
        return found

    async def _find_positions(self) -> dict[Any, tuple[int, int | None]]:
        subscription = self._ensure_consumer()._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return {}
        consumed = subscription.assignment.all_consumed_offsets()
        return {partition: (position.offset, self.last_taken.get(partition)) for partition, position in consumed.items()}

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: float | None = None,  # noqa: ASYNC109  the method of Faust has this parameter
        max_records: int | None = None,
    ) -> dict[Any, list[Any]]:
        """Takes records from the client's buffer, until `max_records` or the limit of bytes is reached, or the buffer is empty.

        The records are taken one by one, because a compressed record shows its size only after it was taken.
        """
        if (postponed := self._postponed_error) is not None:
            self._postponed_error = None
            raise postponed
        taken: dict[Any, list[Any]] = {}
        count, left_bytes = 0, self.app.buffer_bytes // 8
        try:
            one = await super()._fetch_records(consumer, active_partitions, timeout, max_records=1)
            while one:
                ((partition, (record,)),) = one.items()
                taken.setdefault(partition, []).append(record)
                self.last_taken[partition] = record.offset
                count, left_bytes = count + 1, left_bytes - measure_record(record.key, record.value)
                if left_bytes <= 0 or count == max_records:
                    break
                one = await consumer._fetcher.fetched_records(active_partitions, timeout=0, max_records=1)
        except Exception as error:
            if not taken:
                raise
            # Return the records in `taken` first, because aiokafka delivers each record only once. The next call raises `error`.
            self._postponed_error = drop_traceback(error)
        return taken
