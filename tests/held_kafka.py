"""Stands for Kafka in tests of the delivery. A record is confirmed or refused only when the test says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from faust.types import AppT, EventT, StreamT

from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer
from streams.settings import Settings
from streams.worker import ReceivedRecord
from tests.event_loop import run_ready_tasks, wait_until


@dataclass
class HeldKafka:
    """Stands for Faust's app and producer, and for the stream that takes the acknowledgements.

    Use a HeldKafka in an `async with` block inside the block of the tested role. At the end of the inner block, Kafka confirms everything,
    so that the role can end.

    - `waiting`: the records that were sent and neither confirmed nor refused, each with its future.
    - `acknowledged`: the offsets of the acknowledged records, in the order of their acknowledgements.
    """

    waiting: list[tuple[ProducerRecord, asyncio.Future[None]]] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _is_open: bool = False

    # The tested role calls these methods.

    async def maybe_start_producer(self) -> HeldKafka:
        return self

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, _: None, __: None, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[None]:
        confirmation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((ProducerRecord(topic, key, value, headers), confirmation))
        if self._is_open:
            self._confirm_oldest(None)
        return confirmation

    async def ack(self, event: object) -> None:
        self.acknowledged.append(cast(int, event))

    # The test calls these methods.

    async def __aenter__(self) -> HeldKafka:
        return self

    async def __aexit__(self, *_: object) -> None:
        """From now on, confirms every record at once, so that the tested role can end."""
        self._is_open = True
        await self.confirm()

    def make_producer(self, role: str = "inspector") -> RecordProducer:
        """Returns a real producer that sends its records to this Kafka."""
        return RecordProducer(cast(AppT[object], self), Settings(), role, self.problems.append)

    def make_received(self, topic: str, offset: int, key: bytes | None, value: bytes | None) -> ReceivedRecord:
        """Returns a record as a worker receives it. Its acknowledgement appends `offset` to `acknowledged`."""
        record = ConsumedRecord(topic, 0, offset, key, value, {})
        return ReceivedRecord(record, datetime.now(UTC), cast(EventT[bytes], offset), cast(StreamT[bytes], self))

    async def wait_for(self, count: int) -> list[ProducerRecord]:
        """Returns the waiting records when there are `count` of them."""
        await wait_until(lambda: len(self.waiting) >= count)
        await run_ready_tasks()
        assert len(self.waiting) == count
        return [record for record, _ in self.waiting]

    async def confirm(self, count: int | None = None) -> None:
        """Confirms the oldest `count` waiting records, or all of them."""
        self._confirm_oldest(count)
        await run_ready_tasks()

    async def refuse(self, error: Exception, count: int | None = None) -> None:
        """Answers the oldest `count` waiting records, or all of them, with `error`."""
        for _, confirmation in self._take(count):
            confirmation.set_exception(error)
        await run_ready_tasks()

    def _confirm_oldest(self, count: int | None) -> None:
        for _, confirmation in self._take(count):
            confirmation.set_result(None)

    def _take(self, count: int | None) -> list[tuple[ProducerRecord, asyncio.Future[None]]]:
        taken = self.waiting[:count]
        del self.waiting[: len(taken)]
        return taken
