"""The archivist: stores the records from Kafka as rows of the station's database.

A record is acknowledged only after its row is stored. A record that the database rejects becomes a dead letter.

Model choices and line settings get no row. The archivist reads their topics only to write dead letters for invalid records. The other
readers of these two topics read all records again at each start, so they would write the same dead letters each time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from streams import metrics
from streams.backoff import Backoff
from streams.batcher import Batcher
from streams.errors import ArchiveError, IdentityError, RecordError, drop_traceback
from streams.identity import PartId
from streams.record_producer import HANDLING_FAILED, ConsumedRecord, ProducerRecord, RecordProducer, make_dead_letter
from streams.record_reader import check_references, read_record
from streams.records import (
    ArchivedRecord,
    Finding,
    LiveLineSettings,
    ModelChoice,
    PartRecord,
    Record,
    Review,
    ReviewWithdrawal,
    Sorting,
    Verdict,
)
from streams.settings import BatchSettings, Settings
from streams.signatures import check_signature
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "archivist"
# Values of the label `kind` of the metric `castline_records_archived_total`.
_KINDS: dict[type[ArchivedRecord], str] = {
    Verdict: "verdict",
    Sorting: "sorting",
    Finding: "finding",
    Review: "review",
    ReviewWithdrawal: "withdrawn",
}


@dataclass(frozen=True)
class ArchivedTopic:
    """A topic that the archivist reads, with the type of its records and the line to which they must belong.

    All lines share the topics of reviews, model choices and line settings. For such a topic, `line` is only a label in metrics.
    """

    record_type: type[Record]
    line: str

    @property
    def is_checked_only(self) -> bool:
        """True if the archivist only checks the records of this topic, and stores no rows for them."""
        return not issubclass(self.record_type, PartRecord)


def list_archived_topics(settings: Settings) -> dict[str, ArchivedTopic]:
    """Returns the topics that the archivist reads, by topic name: the topics of each line, and the topics that all lines share."""
    names = TopicNames(settings.topics.prefix)
    topics = {
        names.reviews: ArchivedTopic(Review, "reviews"),
        names.models: ArchivedTopic(ModelChoice, "models"),
        names.lines: ArchivedTopic(LiveLineSettings, "lines"),
    }
    for line in settings.lines:
        topics[names.verdicts(line.name)] = ArchivedTopic(Verdict, line.name)
        topics[names.sorted(line.name)] = ArchivedTopic(Sorting, line.name)
        topics[names.findings(line.name)] = ArchivedTopic(Finding, line.name)
    return topics


def decode_record(topic: ArchivedTopic, received: ReceivedRecord, names: TopicNames) -> ArchivedRecord | None:
    """Returns the decoded record of `topic`, or None if the record is valid and gets no row.

    A review record without a value means that the review was withdrawn. For such a record, returns a ReviewWithdrawal. The key of the
    record names the part.

    Raises RecordError if the record is not valid.
    """
    key, value = received.record.key, received.record.value
    if not value and topic.is_checked_only:
        return None
    if value is None and topic.record_type is Review:
        try:
            return ReviewWithdrawal(PartId.parse((key or b"").decode("utf-8", "replace")))
        except IdentityError as error:
            raise RecordError("identity", str(error)) from None
    record = read_record(topic.record_type, value, received.broker_time)
    if not isinstance(record, PartRecord):
        _check_key(record, key)
        return None
    if topic.record_type is not Review:
        check_references(record, topic.line, names)
    return record


def _check_key(record: Record, key: bytes | None) -> None:
    """Checks the key of a model choice or of line settings. Raises RecordError if the key is not the name of the record's line.

    Other kinds of records are not checked.
    """
    if isinstance(record, ModelChoice | LiveLineSettings) and record.line.encode() != key:
        raise RecordError("other-line", f"The record is for {record.line}, but its key is {(key or b'')[:80]!r}.")


class PartArchive(Protocol):
    """Stores records about parts in a database. All calls come from one thread."""

    def write(self, records: Sequence[ArchivedRecord]) -> int:
        """Stores all `records` in order, or none of them, and returns how many rows of parts changed.

        If a record is written twice, the second call changes nothing.

        Raises ArchiveError if the records cannot be stored. The error's attribute `retriable` is False if a record is the cause, and
        True if the database is the cause.
        """
        ...


@dataclass(frozen=True)
class PendingArchiveRecord:
    """An accepted record that is not acknowledged yet.

    `content` is the decoded record, or the reason why the record is invalid. `content` is None for a valid record that needs no
    row in the database.
    """

    received: ReceivedRecord
    content: ArchivedRecord | RecordError | None


class Archivist:
    """Stores the records that one archivist process receives from Kafka. It is the `RecordHandler` of the archivist's consumer group."""

    def __init__(
        self, settings: Settings, archive: PartArchive, producer: RecordProducer, report_problem: Callable[[str, str], None]
    ) -> None:
        """Creates the archivist.

        `report_problem` is called with two arguments. The first is a sentence that says why the database stores no records, or "" when
        the database stores records again. The second is always "database".
        """
        self._settings = settings
        self._archive = archive
        self._producer = producer
        self._report_problem = report_problem
        self._names = TopicNames(settings.topics.prefix)
        self._topics = list_archived_topics(settings)
        for kind in _KINDS.values():
            metrics.records_archived.labels(kind)
        batch_size = settings.archivist.batch
        limits = BatchSettings(size=batch_size, shapes=(batch_size,), max_wait_s=settings.archivist.max_wait_s)
        self._batcher: Batcher[PendingArchiveRecord] = Batcher(limits, settings.archivist.buffer, time.monotonic)
        self._writer = ThreadPoolExecutor(1, "archive")
        self._finished = asyncio.Event()

    @property
    def lines_by_topic(self) -> Mapping[str, str]:
        """The topics that the archivist reads. Each topic is mapped to the value of the label `line` in its metrics."""
        return {name: topic.line for name, topic in self._topics.items()}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """The coroutine functions that run as long as the worker runs."""
        return (self.write_batches,)

    async def accept(self, received: ReceivedRecord) -> None:
        """Decodes a record and queues it. Waits while the queue holds as many records as the setting `archivist.buffer` allows."""
        source = received.record
        content: ArchivedRecord | RecordError | None
        try:
            check_signature(self._settings, source.topic, source.key, source.value, source.headers)
            content = decode_record(self._topics[source.topic], received, self._names)
        except RecordError as error:
            content = drop_traceback(error)
        except Exception as error:  # noqa: BLE001  a record can cause any error, and only this record must fail
            content = RecordError(HANDLING_FAILED, f"The archivist failed on the record: {error!r}")
        await self._batcher.put(PendingArchiveRecord(received, content), None)

    async def write_batches(self) -> None:
        """Stores one batch after another and then acknowledges its records. Ends when `drain` was called and the queue is empty."""
        while batch := await self._batcher.get_batch():
            pending = [queued.item for queued in batch]
            dead_letters: list[ProducerRecord] = []
            valid: list[tuple[ConsumedRecord, ArchivedRecord]] = []
            for record in pending:
                if isinstance(record.content, RecordError):
                    dead_letters.append(self._make_dead_letter(record.received.record, record.content))
                elif record.content is not None:
                    valid.append((record.received.record, record.content))
            dead_letters += await self._archive_isolated(valid)
            if dead_letters:
                await self._producer.deliver(dead_letters)
            for record in pending:
                await record.received.acknowledge()
        self._writer.shutdown()
        self._finished.set()

    async def _archive_isolated(self, records: Sequence[tuple[ConsumedRecord, ArchivedRecord]]) -> list[ProducerRecord]:
        """Stores `records`, and returns a dead letter for each record that the database rejects.

        If the database rejects a batch, each half is stored on its own. A rejected half is divided again, until the rejected records are
        found.
        """
        if not records:
            return []
        try:
            await self._write([content for _, content in records])
        except ArchiveError as error:
            if len(records) == 1:
                return [self._make_dead_letter(records[0][0], RecordError("refused-by-archive", str(error)))]
            half = len(records) // 2
            return await self._archive_isolated(records[:half]) + await self._archive_isolated(records[half:])
        for _, content in records:
            metrics.records_archived.labels(_KINDS[type(content)]).inc()
        return []

    async def _write(self, contents: Sequence[ArchivedRecord]) -> None:
        """Writes `contents` in one transaction. Tries again while the database does not answer or accepts no writes.

        Raises ArchiveError if the database rejects one of the records.
        """
        backoff = Backoff(first_s=0.2, longest_s=5.0)
        while True:
            try:
                with metrics.archive_write_seconds.time():
                    changed_rows = await asyncio.get_running_loop().run_in_executor(self._writer, self._archive.write, contents)
            except ArchiveError as error:
                if not error.retriable:
                    raise
                wait_s = backoff.failed()
                self._report_problem(str(error), "database")
                log.warning("The database stores no records: %s. The next attempt follows in %.1f s.", error, wait_s)
                await asyncio.sleep(wait_s)
                continue
            except (OSError, MemoryError):
                # Such an error comes from a fault of this machine, for example of its disk. The records are perhaps valid, so the
                # archivist writes no dead letters for them. Kafka delivers the records again after a restart of the archivist.
                raise
            except Exception as error:
                raise ArchiveError(f"The archivist failed to store {len(contents)} records: {error!r}", retriable=False) from error
            metrics.archive_rows.inc(changed_rows)
            self._report_problem("", "database")
            return

    def _make_dead_letter(self, source: ConsumedRecord, error: RecordError) -> ProducerRecord:
        log.warning("A record is rejected and becomes a dead letter: %s", error, extra={"topic": source.topic, "offset": source.offset})
        metrics.dead_letters.labels(self._topics[source.topic].line, error.reason).inc()
        return make_dead_letter(self._names.dead_letters, source, ROLE, error.reason, str(error))

    async def drain(self) -> None:
        """Accepts no more records. Returns when every accepted record is stored (as a row or a dead letter) and acknowledged."""
        self._batcher.close()
        await self._finished.wait()
