"""The archivist: verdicts, sortings, findings and reviews in, rows of the database out.

    accept -> batcher -> archive (a thread of its own, one transaction for each batch) -> acknowledgement

A record is acknowledged only after its row is stored. While the archive does not answer, the worker keeps the records that it has
accepted, and later records wait on Kafka. A record that is invalid, or that the archive rejects, becomes a dead letter. A
rejected batch is halved until the rejected record is alone, so that it harms no other record.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from streams import metrics
from streams.backoff import Backoff
from streams.batcher import Batcher
from streams.errors import ArchiveError, CastlineError, IdentityError
from streams.identity import PartId
from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer, make_dead_letter
from streams.records import ArchivedRecord, Finding, PartRecord, Review, ReviewWithdrawal, Sorting, Verdict
from streams.settings import BatchSettings, Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "archivist"
# The topic of reviews belongs to no line. Its records and its lag are counted under this name.
_REVIEWS_LINE = "reviews"
# Values of the label `kind` of the metric of archived records.
_KINDS: dict[type[ArchivedRecord], str] = {
    Verdict: "verdict",
    Sorting: "sorting",
    Finding: "finding",
    Review: "review",
    ReviewWithdrawal: "withdrawn",
}


class InvalidRecordError(CastlineError):
    """A record is not valid for its topic. `reason` is one word of a small fixed set, because it becomes the label of a metric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ArchivedTopic:
    """A topic whose records are archived: their type, and the line that they must belong to."""

    record_type: type[PartRecord]
    line: str


def list_archived_topics(settings: Settings) -> dict[str, ArchivedTopic]:
    """Returns the topics whose records are archived, by name: reviews, and the verdicts, sortings and findings of each line."""
    names = TopicNames(settings.topics.prefix)
    topics = {names.reviews: ArchivedTopic(Review, _REVIEWS_LINE)}
    for line in settings.lines:
        topics[names.verdicts(line.name)] = ArchivedTopic(Verdict, line.name)
        topics[names.sorted(line.name)] = ArchivedTopic(Sorting, line.name)
        topics[names.findings(line.name)] = ArchivedTopic(Finding, line.name)
    return topics


def decode_record(topic: ArchivedTopic, key: bytes | None, value: bytes | None) -> ArchivedRecord:
    """Returns the record of `topic` that `key` and `value` hold. A review without a value withdraws the review of its part.

    Raises InvalidRecordError if they hold no such record.
    """
    expected = topic.record_type
    if value is None:
        if expected is not Review:
            raise InvalidRecordError("empty", f"The record has no value, but its topic holds records {expected.name}.")
        try:
            return ReviewWithdrawal(PartId.parse((key or b"").decode("utf-8", "replace")))
        except IdentityError as error:
            raise InvalidRecordError("identity", str(error)) from None
    try:
        record = expected.decode(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in fault["loc"]) or "the record"
        raise InvalidRecordError("not-a-record", f"The record is no valid {expected.name}: {field}: {fault['msg']}") from None
    if topic.line not in (_REVIEWS_LINE, record.line):
        # Without this check a client that may write to the topic of one line could change the history of another line.
        raise InvalidRecordError("other-line", f"The record belongs to {record.line}, but its topic to {topic.line}.")
    return record


class PartArchive(Protocol):
    """Stores records about parts in a database. Used from one thread."""

    def write(self, records: Sequence[ArchivedRecord]) -> int:
        """Stores all `records` in order, or none of them, and returns how many rows of parts were inserted or changed.

        Writing a record again changes nothing. Raises ArchiveError: `retriable` is True if the database does not answer, and False
        if it rejects one of the records.
        """
        ...


@dataclass(frozen=True)
class PendingArchiveRecord:
    """An accepted record that is not acknowledged yet, with its decoded content or the reason why it is invalid."""

    received: ReceivedRecord
    content: ArchivedRecord | InvalidRecordError


class Archivist:
    """Handles the records of one worker. It is the `RecordHandler` of the archivist's consumer group."""

    def __init__(
        self, settings: Settings, archive: PartArchive, producer: RecordProducer, report_problem: Callable[[str, str], None]
    ) -> None:
        """`report_problem` is called with a sentence and a subject, and with "" once the problem of the subject is over."""
        self._archive = archive
        self._producer = producer
        self._report_problem = report_problem
        self._dead_letters = TopicNames(settings.topics.prefix).dead_letters
        self._topics = list_archived_topics(settings)
        for topic in self._topics.values():
            metrics.records_archived.labels(_KINDS[topic.record_type])
        batch_size = settings.archivist.batch
        limits = BatchSettings(size=batch_size, shapes=(batch_size,), max_wait_s=settings.archivist.max_wait_s)
        self._batcher: Batcher[PendingArchiveRecord] = Batcher(limits, settings.archivist.buffer, time.monotonic)
        self._writer = ThreadPoolExecutor(1, "archive")
        self._finished = asyncio.Event()

    @property
    def lines_by_topic(self) -> Mapping[str, str]:
        """The archived topics, each with the line that its lag is counted under."""
        return {name: topic.line for name, topic in self._topics.items()}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """The coroutine functions that run for as long as the worker lives."""
        return (self.write_batches,)

    async def accept(self, received: ReceivedRecord) -> None:
        """Decodes a record and queues it. Waits while as many records are queued as `archivist.buffer` allows."""
        source = received.record
        content: ArchivedRecord | InvalidRecordError
        try:
            content = decode_record(self._topics[source.topic], source.key, source.value)
        except InvalidRecordError as error:
            content = error
        await self._batcher.put(PendingArchiveRecord(received, content), None)

    async def write_batches(self) -> None:
        """Archives batch after batch, and acknowledges each after its records or dead letters are stored, until the archivist drains."""
        while batch := await self._batcher.get_batch():
            pending = [queued.item for queued in batch]
            dead_letters: list[ProducerRecord] = []
            valid: list[tuple[ConsumedRecord, ArchivedRecord]] = []
            for record in pending:
                if isinstance(record.content, InvalidRecordError):
                    dead_letters.append(self._make_dead_letter(record.received.record, record.content))
                else:
                    valid.append((record.received.record, record.content))
            dead_letters += await self._archive_isolated(valid)
            if dead_letters:
                await self._producer.deliver(dead_letters)
            for record in pending:
                await record.received.acknowledge()
        self._writer.shutdown()
        self._finished.set()

    async def _archive_isolated(self, records: Sequence[tuple[ConsumedRecord, ArchivedRecord]]) -> list[ProducerRecord]:
        """Archives `records`, and returns a dead letter for each record that the archive rejects."""
        if not records:
            return []
        try:
            await self._write([content for _, content in records])
        except ArchiveError as error:
            if len(records) == 1:
                return [self._make_dead_letter(records[0][0], InvalidRecordError("refused-by-archive", str(error)))]
            half = len(records) // 2
            return await self._archive_isolated(records[:half]) + await self._archive_isolated(records[half:])
        for _, content in records:
            metrics.records_archived.labels(_KINDS[type(content)]).inc()
        return []

    async def _write(self, contents: Sequence[ArchivedRecord]) -> None:
        """Writes `contents` in one transaction, and repeats the attempt while the archive does not answer.

        Raises ArchiveError if the archive rejects one of them.
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
                log.warning("The archive does not answer: %s. The next attempt follows in %.1f s.", error, wait_s)
                await asyncio.sleep(wait_s)
                continue
            metrics.archive_rows.inc(changed_rows)
            self._report_problem("", "database")
            return

    def _make_dead_letter(self, source: ConsumedRecord, error: InvalidRecordError) -> ProducerRecord:
        log.warning("A record is not archived but becomes a dead letter: %s", error, extra={"topic": source.topic, "offset": source.offset})
        metrics.dead_letters.labels(self._topics[source.topic].line, error.reason).inc()
        return make_dead_letter(self._dead_letters, source, ROLE, error.reason, str(error))

    async def drain(self) -> None:
        """Accepts no more records, and returns once every accepted record is stored, as a row or as a dead letter, and acknowledged."""
        self._batcher.close()
        await self._finished.wait()
