"""What the station sends to Kafka: one producer for the process, made at the first use, confirmed before anyone is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from station.configuration import castline
from streams.errors import CastlineError
from streams.kafka import is_reachable, make_client_arguments
from streams.settings import Settings

log = logging.getLogger(__name__)

# A person waits before the page: longer than a broker's restart would be too long.
_REQUEST_S = 5.0
_DELIVERY_S = 8.0


class KafkaAway(CastlineError):
    """Kafka did not take a record; the text is fit for a page."""


class Outbox:
    """Sends records and returns once the brokers have them. Thread-safe; a producer that failed is replaced by the next call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._producer: Any = None

    def send(self, topic: str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> tuple[int, int]:
        """Partition and offset of the record. Raises KafkaAway: when the brokers did not confirm it."""
        producer = self._open()
        try:
            sent = producer.send(topic, key=key.encode(), value=value, headers=list(headers)).get(_DELIVERY_S + 2)
        except (KafkaError, OSError, AssertionError) as error:
            self._discard(producer)
            log.warning("Kafka did not take a record for %s: %r", topic, error)
            raise KafkaAway(_away(type(error).__name__)) from error
        return sent.partition, sent.offset

    def close(self) -> None:
        """Ends the connection; a later call opens another."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer)

    def _open(self) -> Any:
        with self._lock:
            if self._producer is not None:
                return self._producer
            # Asked before: each failing KafkaProducer leaves a file descriptor behind for a while.
            if not is_reachable(self._settings.bootstrap):
                raise KafkaAway(_away("nothing listens there"))
            try:
                self._producer = KafkaProducer(**self._arguments())
            except (KafkaError, OSError, AssertionError) as error:
                log.warning("Kafka let no producer in: %r", error)
                raise KafkaAway(_away(type(error).__name__)) from error
            return self._producer

    def _arguments(self) -> dict[str, Any]:
        largest = self._settings.topics.max_message_bytes
        return make_client_arguments(self._settings, "station") | {
            "acks": "all",
            "enable_idempotence": True,
            "allow_auto_create_topics": False,
            "bootstrap_timeout_ms": int(_REQUEST_S * 1000),
            "max_block_ms": int(_REQUEST_S * 1000),
            "request_timeout_ms": int(_REQUEST_S * 1000),
            "delivery_timeout_ms": int(_DELIVERY_S * 1000),
            "reconnect_backoff_max_ms": 1000,
            "max_request_size": largest,
            "metrics_enabled": False,
        }

    def _discard(self, producer: Any) -> None:
        # After a broker's restart a client may stay stuck, so none that failed is used again.
        with self._lock:
            if self._producer is not producer:
                return
            self._producer = None
        _close(producer)


def _close(producer: Any) -> None:
    try:
        producer.close(timeout=1)
    except KafkaError:
        # close() leaves its thread running when its flush times out; there is no public way to end it.
        producer._sender.force_close()
        producer._sender.join(5)


def _away(why: str) -> str:
    return f"Kafka did not take it ({why}). Nothing was lost: try again when the plant's Kafka runs."


_outbox: Outbox | None = None
_making = threading.Lock()


def outbox() -> Outbox:
    """The process's one outbox."""
    global _outbox
    with _making:
        if _outbox is None:
            _outbox = Outbox(castline())
        return _outbox


def send(topic: str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> tuple[int, int]:
    """Partition and offset of the record, once the brokers have it. Raises KafkaAway: its text is fit for a page."""
    return outbox().send(topic, key, value, headers)
