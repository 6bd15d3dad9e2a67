"""Sends records to Kafka and waits until the brokers have confirmed them.

A worker acknowledges a record only after `RecordProducer.deliver`, so a crash never loses a record.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka.errors import KafkaError
from faust.exceptions import FaustError
from faust.types import AppT

from streams.backoff import Backoff
from streams.identity import Headers, format_time
from streams.records import Record

log = logging.getLogger(__name__)

# A dead letter keeps at most 32 headers of 1 KiB each. With more headers, a record could become larger than Kafka accepts.
_MAX_HEADERS = 32
_MAX_HEADER_BYTES = 1024
_MAX_HEADER_NAME_CHARACTERS = 128
_DEAD_LETTER_PREFIX = "dead-"


@dataclass(frozen=True)
class ProducerRecord:
    """A record to be sent to Kafka."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(frozen=True)
class ConsumedRecord:
    """A record that was read from Kafka, with its position in the topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def make_json_record(topic: str, key: bytes, record: Record, source: str, event_id: uuid.UUID | None = None) -> ProducerRecord:
    """Returns `record` as JSON, with the headers that CloudEvents prescribes for Kafka (binary mode).

    `source` is the role that writes the record. Without `event_id`, a random id is used.
    """
    headers = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_type": record.name,
        "ce_source": f"castline/{source}",
        "ce_id": str(event_id or uuid.uuid4()),
        "ce_time": format_time(datetime.now(UTC)),
    }
    return ProducerRecord(topic, key, record.encode(), _encode_headers(headers))


def make_dead_letter(topic: str, record: ConsumedRecord, role: str, reason: str, detail: str) -> ProducerRecord:
    """Returns the dead letter of a record: the same value, with added headers `dead-…` that give the origin and the reason.

    `reason` is a word from a fixed set, `detail` a sentence, and `role` the role of the worker.
    """
    original = [
        (name[:_MAX_HEADER_NAME_CHARACTERS], value[:_MAX_HEADER_BYTES])
        for name, value in record.headers.items()
        if not name.startswith(_DEAD_LETTER_PREFIX)
    ]
    added = {
        "dead-reason": reason,
        "dead-detail": detail[:_MAX_HEADER_BYTES],
        "dead-role": role,
        "dead-topic": record.topic,
        "dead-partition": str(record.partition),
        "dead-offset": str(record.offset),
        "dead-at": format_time(datetime.now(UTC)),
    }
    # A long key of a dead letter is shortened, because it only helps a person to find the record.
    key = record.key[:_MAX_HEADER_BYTES] if record.key is not None else None
    return ProducerRecord(topic, key, record.value, original[:_MAX_HEADERS] + _encode_headers(added))


def _encode_headers(headers: dict[str, str]) -> list[tuple[str, bytes]]:
    return [(name, value.encode()) for name, value in headers.items()]


class RecordProducer:
    """Sends records through the producer of a Faust app, until the brokers have confirmed all records.

    `report_problem` is called with a sentence while Kafka accepts no records, and later with "".
    """

    def __init__(self, app: AppT[object], report_problem: Callable[[str], None]) -> None:
        self._app = app
        self._report_problem = report_problem

    async def deliver(self, records: Sequence[ProducerRecord]) -> None:
        """Sends `records` in the given order, and returns when the brokers have confirmed all of them.

        After an error, a record may arrive twice, but no record is lost.
        """
        unconfirmed = list(records)
        backoff = Backoff(first_s=0.2, longest_s=5.0)
        while unconfirmed:
            error, unconfirmed = await self._send_once(unconfirmed)
            if error is None:
                continue
            wait_s = backoff.failed()
            self._report_problem(f"Kafka did not accept {len(unconfirmed)} records: {error!r}")
            log.warning("Kafka did not accept %d records (%r). The next attempt follows in %.1f s.", len(unconfirmed), error, wait_s)
            await asyncio.sleep(wait_s)
        self._report_problem("")

    async def _send_once(self, records: list[ProducerRecord]) -> tuple[BaseException | None, list[ProducerRecord]]:
        """Sends all records once. Returns the first error (or None) and the unconfirmed records."""
        try:
            producer = await self._app.maybe_start_producer()
            confirmations = [await producer.send(record.topic, record.key, record.value, None, None, record.headers) for record in records]
        except (KafkaError, FaustError, OSError) as error:
            return error, records
        results = await asyncio.gather(*confirmations, return_exceptions=True)
        failures = [(result, record) for result, record in zip(results, records, strict=True) if isinstance(result, BaseException)]
        unexpected = [error for error, _ in failures if not isinstance(error, KafkaError | OSError)]
        if unexpected:
            raise unexpected[0]
        return (failures[0][0] if failures else None), [record for _, record in failures]
