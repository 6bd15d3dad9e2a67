"""One connection to Kafka that takes a line's pictures, and their large ones to the object store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kafka import KafkaProducer
from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
)

from agents.gateway.spool import Stored
from streams.identity import PictureIdentity, make_headers
from streams.kafka import is_reachable, make_client_arguments
from streams.object_store import ObjectStore
from streams.settings import Settings
from streams.topics import TopicNames

# The record is wrong, not the connection: sending it again would not help.
RECORD_AT_FAULT = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError, InvalidTimestampError, PolicyViolationError)


class AwayError(Exception):
    """Kafka or the object store does not take pictures now."""


@dataclass(frozen=True)
class Outcome:
    """What became of a picture sent; `error` is None when the brokers confirmed it."""

    stored: Stored
    error: Exception | None


class Channel(Protocol):
    """A connection that takes pictures. `send` raises AwayError; outcomes come from any thread, each once or never."""

    def send(self, stored: Stored, outcome: Callable[[Outcome], None]) -> None: ...

    def close(self) -> None:
        """After it nothing more is sent."""


class KafkaChannel:
    """One KafkaProducer: idempotent, acknowledged by all in-sync copies, patient: its sender gives up first."""

    def __init__(self, settings: Settings, line: str, store: ObjectStore) -> None:
        """Raises AwayError: no broker, no such topic, or not allowed."""
        self._topic = TopicNames(settings.topics.prefix).images(line)
        self._inline_bytes = settings.pictures.inline_bytes
        self._store = store
        if not is_reachable(settings.bootstrap):
            # Asked before: each failing KafkaProducer leaves a file descriptor behind for a while.
            raise AwayError(f"expected Kafka at {settings.bootstrap}, nothing listens there")
        self._producer: Any = None
        try:
            self._producer = KafkaProducer(
                **make_client_arguments(settings, f"gateway-{line}"),
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=5000,
                max_block_ms=5000,
                reconnect_backoff_max_ms=1000,
                delivery_timeout_ms=600_000,  # the sender's own judgement comes first and keeps the order
                max_request_size=settings.topics.max_message_bytes,
                batch_size=min(2**20, settings.topics.max_message_bytes // 2),
                metrics_enabled=False,
            )
            self._producer.partitions_for(self._topic)
        except (KafkaError, OSError, AssertionError) as error:
            if self._producer is not None:
                self.close()
                raise AwayError(
                    f"expected topic {self._topic} at {settings.bootstrap}: {error} (castline topics create makes it)"
                ) from None
            raise AwayError(f"expected Kafka at {settings.bootstrap}, it did not let us in: {error}") from None

    def send(self, stored: Stored, outcome: Callable[[Outcome], None]) -> None:
        picture, claim, value = stored.picture, None, stored.picture.value
        if len(value) > self._inline_bytes:
            try:
                claim, value = self._store.put(value), b""
            except OSError as error:
                raise AwayError(f"expected the object store to take the picture of part {stored.part}: {error}") from None
        identity = PictureIdentity(stored.part, picture.captured_at, picture.content_type, picture.sha256, claim, picture.traceparent)
        headers = make_headers(identity, {"truth": picture.truth} if picture.truth else None)
        try:
            future = self._producer.send(self._topic, value=value, key=stored.part.key, headers=headers)
        except RECORD_AT_FAULT as error:
            outcome(Outcome(stored, error))
            return
        except (KafkaError, ValueError) as error:
            raise AwayError(str(error)) from None
        future.add_callback(lambda _: outcome(Outcome(stored, None)))
        future.add_errback(lambda error: outcome(Outcome(stored, error)))

    def close(self) -> None:
        try:
            self._producer.close(timeout=1)
        except KafkaError:
            # close() leaves its thread running, and sending, when its flush times out; there is no public way to end it.
            self._producer._sender.force_close()
            self._producer._sender.join(5)
