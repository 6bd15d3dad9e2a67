"""Writes sorting records to the journal on disk, and sends them from the journal to Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from agents.sorter.journal import CountedPart, JournalError, SortingJournal
from streams.record_producer import ProducerRecord, RecordProducer, make_json_record
from streams.records import Sorting

log = logging.getLogger(__name__)

_MAX_RECORDS_AT_ONCE = 256


class JournalSender:
    """Sends the journal of one line to `topic`. All methods are called in the event loop.

    `report_problem` is called with a sentence when the disk refuses records, and with an empty string when the disk stores records again.
    """

    def __init__(
        self, journal: SortingJournal, producer: RecordProducer, topic: str, role: str, report_problem: Callable[[str], None]
    ) -> None:
        self._journal = journal
        self._producer = producer
        self._topic = topic
        self._role = role
        self._report_problem = report_problem
        self._write_lock = asyncio.Lock()
        self._sent_seq = 0
        self._has_records = asyncio.Event()
        self._is_empty = asyncio.Event()
        # At the start, the journal can hold records that an earlier process has not sent.
        self._has_records.set()

    async def store(
        self,
        sortings: Sequence[Sorting],
        counted: Sequence[CountedPart] = (),
        run: int | None = None,
        unreported: Sequence[CountedPart] = (),
        reported: Sequence[CountedPart] = (),
    ) -> bool:
        """Writes the records to the journal and returns True. If the disk refuses them, sends only `sortings` to Kafka and returns False.

        After the call, the sorting records are on the disk or in Kafka. `SortingJournal.append` explains the arguments.
        """
        async with self._write_lock:
            try:
                await asyncio.to_thread(self._journal.append, sortings, counted, run, unreported, reported)
            except JournalError as error:
                log.error(
                    "%s The sorter now sends its records directly to Kafka. The board keeps each report until Kafka has its record.", error
                )
                self._report_problem(str(error))
                # Records that are already in the journal go first, so that the records of a part keep their order.
                await self._is_empty.wait()
                await self._producer.deliver([self._make_record(sorting) for sorting in sortings])
                return False
            self._report_problem("")
            if sortings:
                self._is_empty.clear()
                self._has_records.set()
            return True

    async def send_records(self) -> None:
        """Sends the records of the journal to Kafka and deletes them when the brokers have confirmed them. Never returns."""
        while True:
            await self._has_records.wait()
            self._has_records.clear()
            while entries := await asyncio.to_thread(self._journal.read_after, self._sent_seq, _MAX_RECORDS_AT_ONCE):
                await self._producer.deliver([self._make_record(entry.sorting) for entry in entries])
                self._sent_seq = entries[-1].seq
                try:
                    await asyncio.to_thread(self._journal.remove_through, self._sent_seq)
                except JournalError as error:
                    log.warning("%s The next start of the sorter sends these records again.", error)
            if not self._has_records.is_set():
                self._is_empty.set()

    async def wait_until_sent(self, max_wait_s: float) -> None:
        """Waits until Kafka has all records, at most `max_wait_s` seconds. Records that are not sent by then stay on disk."""
        try:
            await asyncio.wait_for(self._is_empty.wait(), max_wait_s)
        except TimeoutError:
            log.warning("Kafka has not confirmed all sorting records. The rest stay in the journal and are sent after the next start.")

    def _make_record(self, sorting: Sorting) -> ProducerRecord:
        return make_json_record(self._topic, sorting.part_id.key, sorting, self._role)
