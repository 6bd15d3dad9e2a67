"""Sends records and returns once the brokers have them. Nothing is acknowledged before that."""

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

from streams.identity import write_time
from streams.records import Record

log = logging.getLogger(__name__)

_LONGEST_BACKOFF_S = 5.0


@dataclass(frozen=True)
class Outgoing:
    """A record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def outgoing(topic: str, key: bytes, record: Record, source: str, event_id: uuid.UUID | None = None) -> Outgoing:
    """A JSON record with the headers of CloudEvents' Kafka binding (binary mode); `source` is the role that writes it."""
    headers = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_type": record.name,
        "ce_source": f"castline/{source}",
        "ce_id": str(event_id or uuid.uuid4()),
        "ce_time": write_time(datetime.now(UTC)),
    }
    return Outgoing(topic, key, record.encode(), [(name, value.encode()) for name, value in headers.items()])


class Courier:
    """Delivers through the app's producer, in the order given for each topic; tries again until it is done.

    `trouble` is told what is wrong while Kafka does not take records, and "" when it does again.
    """

    def __init__(self, app: AppT[object], trouble: Callable[[str], None]) -> None:
        self._app = app
        self._trouble = trouble

    async def deliver(self, records: Sequence[Outgoing]) -> None:
        """Returns when the brokers have confirmed all `records`. A repeat after an error may send one twice, never not at all."""
        left = list(records)
        backoff_s = 0.2
        while left:
            error, left = await self._attempt(left)
            if error is None:
                continue
            self._trouble(f"expected Kafka to take {len(left)} records, it did not: {error!r}")
            log.warning("Kafka did not take %d records (%r); next try in %.1f s", len(left), error, backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
        self._trouble("")

    async def _attempt(self, records: list[Outgoing]) -> tuple[BaseException | None, list[Outgoing]]:
        """Sends all once; the first error, and what was not confirmed."""
        try:
            producer = await self._app.maybe_start_producer()
            confirmations = [await producer.send(record.topic, record.key, record.value, None, None, record.headers) for record in records]
        except (KafkaError, FaustError, OSError) as error:
            return error, records
        answers = await asyncio.gather(*confirmations, return_exceptions=True)
        failed = [(answer, record) for answer, record in zip(answers, records, strict=True) if isinstance(answer, BaseException)]
        unexpected = [answer for answer, _ in failed if not isinstance(answer, KafkaError | OSError)]
        if unexpected:
            raise unexpected[0]
        return (failed[0][0] if failed else None), [record for _, record in failed]
