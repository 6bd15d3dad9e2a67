"""The archivist: verdicts, sortings, findings and reviews in, rows out.

    arrive -> batcher -> the archive (a thread of its own, one transaction a batch) -> acknowledgement

A record is acknowledged only when its row is safe. While the archive does not answer the worker waits with it in hand, and
the records after it wait at Kafka. A record that is none, or that the archive never takes, is parked as a dead letter: a
batch that was refused is split until the culprit stands alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from agents.archivist.decoding import UnfitRecord, read, shelves
from streams import metrics
from streams.batcher import Batcher
from streams.errors import ArchiveError
from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer, make_dead_letter
from streams.records import ArchivedRecord
from streams.settings import BatchSettings, Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "archivist"
_LONGEST_BACKOFF_S = 5.0


class PartArchive(Protocol):
    """Stores records about parts in a database. Used from one thread."""

    def write(self, records: Sequence[ArchivedRecord]) -> int:
        """Stores all `records` in order, or none of them, and returns how many rows of parts were inserted or changed.

        Writing a record again changes nothing. Raises ArchiveError: `retriable` is True if the database does not answer, and False
        if it rejects one of the records.
        """
        ...


@dataclass(frozen=True)
class InHand:
    """A record that came and is not yet acknowledged, and what it says."""

    received: ReceivedRecord
    came: ConsumedRecord
    told: ArchivedRecord | UnfitRecord


class Archivist:
    """One worker's way from records to rows."""

    def __init__(self, settings: Settings, archive: PartArchive, courier: RecordProducer, trouble: Callable[[str, str], None]) -> None:
        """`trouble` is told what is wrong in which matter, and "" when it is over."""
        self._archive = archive
        self._courier = courier
        self._trouble = trouble
        self._dead_letters = TopicNames(settings.topics.prefix).dead_letters
        self._shelves = shelves(settings)
        for shelf in self._shelves.values():
            metrics.records_archived.labels(shelf.record.__name__.lower())
        size = settings.archivist.batch
        limits = BatchSettings(size=size, shapes=(size,), max_wait_s=settings.archivist.max_wait_s)
        self._batcher: Batcher[InHand] = Batcher(limits, settings.archivist.buffer, time.monotonic)
        self._writer = ThreadPoolExecutor(1, "archive")
        self._done = asyncio.Event()

    @property
    def lines_by_topic(self) -> Mapping[str, str]:
        """The topics of all records that are filed."""
        return {topic: shelf.line for topic, shelf in self._shelves.items()}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """The coroutine functions that run for as long as the worker lives."""
        return (self.write_batches,)

    async def accept(self, received: ReceivedRecord) -> None:
        """Takes a record; waits while the worker holds as many as it may."""
        came = received.record
        told: ArchivedRecord | UnfitRecord
        try:
            told = read(self._shelves[came.topic], came.key, came.value)
        except UnfitRecord as unfit:
            told = unfit
        await self._batcher.put(InHand(received, came, told), None)

    async def write_batches(self) -> None:
        """Files batch after batch and acknowledges it, until drained."""
        while batch := await self._batcher.get_batch():
            in_hand = [waiting.item for waiting in batch]
            letters = [self._letter(item.came, item.told) for item in in_hand if isinstance(item.told, UnfitRecord)]
            fit = [(item, item.told) for item in in_hand if not isinstance(item.told, UnfitRecord)]
            letters += await self._file([item for item, _ in fit], [told for _, told in fit])
            if letters:
                await self._courier.deliver(letters)
            for item in in_hand:
                await item.received.acknowledge()
        self._writer.shutdown()
        self._done.set()

    async def _file(self, items: Sequence[InHand], told: Sequence[ArchivedRecord]) -> list[ProducerRecord]:
        """Files `told`, what `items` say; the letters for those that the archive never takes."""
        if not told:
            return []
        try:
            await self._write(told)
        except ArchiveError as error:
            if len(told) == 1:
                return [self._letter(items[0].came, UnfitRecord("refused-by-archive", str(error)))]
            half = len(told) // 2
            return await self._file(items[:half], told[:half]) + await self._file(items[half:], told[half:])
        for one in told:
            metrics.records_archived.labels(type(one).__name__.lower()).inc()
        return []

    async def _write(self, told: Sequence[ArchivedRecord]) -> None:
        """Returns when the archive has `told`; asks again while it does not answer. Raises ArchiveError: when it never will."""
        backoff_s = 0.2
        while True:
            try:
                with metrics.archive_write_seconds.time():
                    changed = await asyncio.get_running_loop().run_in_executor(self._writer, self._archive.write, told)
            except ArchiveError as error:
                if not error.retriable:
                    raise
                self._trouble(str(error), "database")
                log.warning("%s; next try in %.1f s", error, backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
                continue
            metrics.archive_rows.inc(changed)
            self._trouble("", "database")
            return

    def _letter(self, came: ConsumedRecord, unfit: UnfitRecord) -> ProducerRecord:
        log.warning("a record is not filed: %s", unfit, extra={"topic": came.topic, "offset": came.offset})
        metrics.dead_letters.labels(self._shelves[came.topic].line, unfit.reason).inc()
        return make_dead_letter(self._dead_letters, came, ROLE, unfit.reason, str(unfit))

    async def drain(self) -> None:
        """Takes nothing more; returns when all that was taken is filed and acknowledged."""
        self._batcher.close()
        await self._done.wait()
