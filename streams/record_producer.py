"""Sends records to Kafka and waits until the brokers have confirmed them. Makes dead letters of records that cannot be processed.

A worker acknowledges a record only after `RecordProducer.deliver`, so a crash never loses a record.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
)
from faust.exceptions import FaustError

from streams import metrics
from streams.backoff import Backoff
from streams.identity import EXPIRED_HEADER, Headers, format_time
from streams.records import Record
from streams.settings import Settings
from streams.signatures import sign_headers
from streams.topics import TopicNames
from streams.unreadable_batches import UnreadableBatch

if TYPE_CHECKING:
    # Importing Faust takes a fifth of a second, and programs that only read records do not need Faust.
    from faust.types import AppT

log = logging.getLogger(__name__)

# A dead letter keeps at most 32 headers of 1 KiB each. With more headers, a record could become larger than Kafka accepts.
_MAX_HEADERS = 32
_MAX_HEADER_BYTES = 1024
_MAX_HEADER_NAME_CHARACTERS = 128
DEAD_LETTER_PREFIX = "dead-"
# The header with the reason of a dead letter. Every dead letter has this header.
DEAD_REASON = "dead-reason"
# `castline dead-letters redrive` sends the record of a dead letter again, and writes a note about this to the topic of the dead letters. A
# note has this header, and a dead letter does not.
REDRIVE_MARK = "redrive-of"
# Castline itself adds headers that begin with one of these words to each dead letter. If the original record has such headers, they are
# left out, because a sender could have forged them.
_OWN_PREFIXES = (DEAD_LETTER_PREFIX, "redrive-", EXPIRED_HEADER)
# A dead letter that is too large for Kafka keeps only this many bytes of its value.
CUT_VALUE_BYTES = 2**16
# Upper limit, in bytes, for everything in a dead letter except its value: key, headers, and the fields that Kafka adds to each record.
_DEAD_LETTER_OVERHEAD_BYTES = 2**16
# After one of these errors, a further attempt is useless, because Kafka would refuse the record again. The usual reason is the size of the
# record. InvalidTimestampError is not in this list, because each attempt has a new time and can succeed.
_FINAL_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError, PolicyViolationError)
# The reason of a dead letter whose record was sent by a role and refused by Kafka.
REFUSED_BY_KAFKA = "refused-by-kafka"
# The reason of a dead letter whose record is valid, but caused an error in the role that processed it.
HANDLING_FAILED = "handling-failed"
# The reason of a dead letter that contains no record, but says that Kafka deleted records before they were judged.
EXPIRED = "expired"


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

    `source` is the role that writes the record. `event_id` is the id for the header `ce_id`. If it is None, a random id is used.
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
    """Returns the dead letter of a record: the same value, with additional headers `dead-…` for the origin of the record and the reason.

    `reason` is a word from a fixed set, `detail` a sentence, and `role` the role of the worker.

    `record` can be a placeholder for several records that could not be decoded. In this case, the header `dead-first-offset` gives the
    offset of the first of these records, and the header `dead-offset` the offset of the last one.
    """
    original = [
        (name[:_MAX_HEADER_NAME_CHARACTERS], value[:_MAX_HEADER_BYTES])
        for name, value in record.headers.items()
        if not name.startswith(_OWN_PREFIXES)
    ]
    added = {
        DEAD_REASON: reason,
        "dead-detail": detail[:_MAX_HEADER_BYTES],
        "dead-role": role,
        "dead-topic": record.topic,
        "dead-partition": str(record.partition),
        "dead-offset": str(record.offset),
        "dead-at": format_time(datetime.now(UTC)),
    }
    # A long key of a dead letter is shortened, because it only helps a person to find the record.
    key = record.key[:_MAX_HEADER_BYTES] if record.key is not None else None
    # Kafka's client refuses a record that has neither a key nor a value. So a dead letter without a key gets at least an empty value.
    value = b"" if record.key is None and record.value is None else record.value
    if isinstance(value, UnreadableBatch):
        added["dead-first-offset"] = str(value.first)
    return ProducerRecord(topic, key, value, original[:_MAX_HEADERS] + _encode_headers(added))


def is_redrive_mark(headers: Mapping[str, object]) -> bool:
    """Returns True for a note of `castline dead-letters redrive` on the topic of dead letters, and False for a dead letter.

    The command writes such a note when it sends the record of a dead letter again.
    """
    return REDRIVE_MARK in headers and DEAD_REASON not in headers


def cut_dead_letter(letter: ProducerRecord, largest_bytes: int) -> ProducerRecord:
    """Shortens the value of a dead letter if the value has more than `largest_bytes` bytes. Otherwise returns `letter` unchanged.

    The shortened copy has the first CUT_VALUE_BYTES bytes of the value. Its headers `dead-bytes` and `dead-sha256` give the size and the
    checksum of the whole value.
    """
    value = letter.value or b""
    if len(value) <= largest_bytes:
        return letter
    note = {"dead-bytes": str(len(value)), "dead-sha256": hashlib.sha256(value).hexdigest()}
    return replace(letter, value=value[:CUT_VALUE_BYTES], headers=letter.headers + _encode_headers(note))


def _encode_headers(headers: dict[str, str]) -> list[tuple[str, bytes]]:
    return [(name, value.encode()) for name, value in headers.items()]


class RecordProducer:
    """Sends the records of a role to Kafka, and tries again until the brokers have confirmed all of them. Uses the producer of a Faust app.

    `report_problem` is called with a sentence while Kafka accepts no records, and with "" when Kafka accepts records again.
    """

    def __init__(self, app: AppT[object], settings: Settings, role: str, report_problem: Callable[[str], None]) -> None:
        self._app = app
        self._settings = settings
        self._role = role
        self._report_problem = report_problem
        self._dead_letters = TopicNames(settings.topics.prefix).dead_letters
        self._largest_bytes = settings.topics.max_message_bytes - _DEAD_LETTER_OVERHEAD_BYTES

    async def deliver(self, records: Sequence[ProducerRecord]) -> list[ProducerRecord]:
        """Sends `records` in their order, and tries again until the brokers have confirmed all of them.

        A confirmed record is never sent again. If Kafka does not answer, a record can arrive twice, but no record is lost. If Kafka refuses
        a record because of its size or its content, the record becomes a dead letter. Returns the records that became dead letters.
        """
        replaced: list[ProducerRecord] = []
        unconfirmed = [self._bound(record) for record in records]
        backoff = Backoff(first_s=0.2, longest_s=1.0)
        while unconfirmed:
            result = await self._send_once(unconfirmed)
            unconfirmed = [*self._replace_refused(result.refused), *result.unconfirmed]
            replaced += [record for record, _ in result.refused if record.topic != self._dead_letters]
            if result.error is None:
                continue
            wait_s = backoff.failed()
            advice = " Set the clock of this machine." if isinstance(result.error, InvalidTimestampError) else ""
            self._report_problem(f"Kafka did not accept {len(unconfirmed)} records: {result.error!r}.{advice}")
            log.warning("Kafka did not accept %d records (%r). The next attempt follows in %.1f s.", len(unconfirmed), result.error, wait_s)
            await asyncio.sleep(wait_s)
        self._report_problem("")
        return replaced

    def _bound(self, record: ProducerRecord) -> ProducerRecord:
        return cut_dead_letter(record, self._largest_bytes) if record.topic == self._dead_letters else record

    def _replace_refused(self, refused: Sequence[tuple[ProducerRecord, BaseException]]) -> list[ProducerRecord]:
        """Returns dead letters for the records that Kafka refused.

        If Kafka refused a dead letter, a copy with a shorter value replaces the dead letter. If the value cannot be shortened, the dead
        letter is lost.
        """
        letters = []
        for record, error in refused:
            metrics.records_refused.labels(self._role).inc()
            if record.topic != self._dead_letters:
                log.error("Kafka refused a record for the topic %s, which now becomes a dead letter: %r", record.topic, error)
                letters.append(self._make_letter_of_refused(record, error))
            elif len(record.value or b"") > CUT_VALUE_BYTES:
                letters.append(cut_dead_letter(record, CUT_VALUE_BYTES))
            else:
                log.error("Kafka refused a dead letter, which is lost. Its headers are %s. The reason: %r", record.headers, error)
        return letters

    def _make_letter_of_refused(self, record: ProducerRecord, error: BaseException) -> ProducerRecord:
        metrics.dead_letters.labels(record.topic.rpartition(".")[2], REFUSED_BY_KAFKA).inc()
        # Sign the record that the dead letter holds. A person can later send this record to its topic again, where the readers refuse
        # unsigned records.
        headers = sign_headers(self._settings, record.topic, record.key, record.value, record.headers)
        # The partition and the offset are -1, because Kafka did not accept the record.
        source = ConsumedRecord(record.topic, -1, -1, record.key, record.value, dict(headers))
        return self._bound(make_dead_letter(self._dead_letters, source, self._role, REFUSED_BY_KAFKA, repr(error)))

    async def _send_once(self, records: Sequence[ProducerRecord]) -> _Attempt:
        """Sends the records once, in their order.

        Stops at the first record that cannot be sent because of a temporary error. Does not send the records after it.
        """
        attempt = _Attempt()
        sent: list[tuple[ProducerRecord, Awaitable[object]]] = []
        try:
            producer = await self._app.maybe_start_producer()
        except (KafkaError, FaustError, OSError) as error:
            return _Attempt(error, list(records))
        for index, record in enumerate(records):
            try:
                headers = sign_headers(self._settings, record.topic, record.key, record.value, record.headers)
                sent.append((record, await producer.send(record.topic, record.key, record.value, None, None, headers)))
            except (KafkaError, FaustError, OSError) as error:
                # If Kafka's client raises an error, Faust raises another error, and its attribute __cause__ is
                # the error of the client.
                if isinstance(cause := error.__cause__ or error, _FINAL_ERRORS):
                    attempt.refused.append((record, cause))
                    continue
                attempt.error, attempt.unconfirmed = error, list(records[index:])
                break
        results = await asyncio.gather(*(confirmation for _, confirmation in sent), return_exceptions=True)
        failed = []
        for (record, _), result in zip(sent, results, strict=True):
            if isinstance(result, _FINAL_ERRORS):
                attempt.refused.append((record, result))
            elif isinstance(result, KafkaError | OSError):
                attempt.error = attempt.error or result
                failed.append(record)
            elif isinstance(result, BaseException):
                raise result
        attempt.unconfirmed = failed + attempt.unconfirmed
        return attempt


@dataclass
class _Attempt:
    """The result of sending some records once.

    - `error`: the error because of which some records must be sent again, or None.
    - `unconfirmed`: the records that must be sent again, in their order.
    - `refused`: the records that Kafka will never accept, each with its error.
    """

    error: BaseException | None = None
    unconfirmed: list[ProducerRecord] = field(default_factory=list)
    refused: list[tuple[ProducerRecord, BaseException]] = field(default_factory=list)
