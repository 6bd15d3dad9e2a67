"""The station's Kafka producer: sends one record and waits until the brokers have confirmed it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from station.configuration import current_settings
from streams.errors import CastlineError
from streams.kafka import is_reachable, make_client_arguments, open_client
from streams.settings import Settings
from streams.signatures import sign_headers

log = logging.getLogger(__name__)

# The longest waits for an answer of Kafka, in seconds. They are short, because a person waits in a browser.
_REQUEST_S = 5.0
_DELIVERY_S = 8.0


class KafkaUnavailableError(CastlineError):
    """Raised if Kafka or the object store does not answer, or if Kafka does not confirm a record.

    The message can be shown on a page.
    """


class ConfirmedProducer:
    """Sends records synchronously: `send` returns once the brokers have confirmed the record. Thread-safe.

    The first call of `send` opens the connection. After a failure, the next call opens a new connection.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._producer: Any = None

    def send(self, topic: str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> tuple[int, int]:
        """Sends a record. Returns its partition and offset, or raises KafkaUnavailableError if the brokers do not confirm it."""
        producer = self._open()
        signed = sign_headers(self.settings, topic, key.encode(), value, headers)
        try:
            metadata = producer.send(topic, key=key.encode(), value=value, headers=signed).get(_DELIVERY_S + 2)
        except (KafkaError, OSError, AssertionError) as error:
            self._discard(producer)
            log.warning("Kafka did not confirm a record for the topic %s: %r", topic, error)
            raise KafkaUnavailableError(_not_sent(type(error).__name__)) from error
        return metadata.partition, metadata.offset

    def close(self) -> None:
        """Closes the connection. A later call of `send` opens a new connection."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer)

    def _open(self) -> Any:
        with self._lock:
            if self._producer is not None:
                return self._producer
            # Check first whether the broker answers. A KafkaProducer that cannot connect would keep a file descriptor open for some time.
            if not is_reachable(self.settings.bootstrap):
                raise KafkaUnavailableError(_not_sent("nothing listens there"))
            try:
                self._producer = open_client(KafkaProducer, **self._arguments())
            except (KafkaError, OSError, AssertionError) as error:
                log.warning("cannot connect a producer to Kafka: %r", error)
                raise KafkaUnavailableError(_not_sent(type(error).__name__)) from error
            return self._producer

    def _arguments(self) -> dict[str, Any]:
        return make_client_arguments(self.settings, "station") | {
            "acks": "all",
            "enable_idempotence": True,
            "allow_auto_create_topics": False,
            "bootstrap_timeout_ms": int(_REQUEST_S * 1000),
            "max_block_ms": int(_REQUEST_S * 1000),
            "request_timeout_ms": int(_REQUEST_S * 1000),
            "delivery_timeout_ms": int(_DELIVERY_S * 1000),
            "max_request_size": self.settings.topics.max_message_bytes,
            "metrics_enabled": False,
        }

    def _discard(self, producer: Any) -> None:
        # Never use a failed producer again, because a kafka-python client can hang after a restart of the broker.
        with self._lock:
            if self._producer is not producer:
                return
            self._producer = None
        _close(producer)


def _close(producer: Any) -> None:
    try:
        producer.close(timeout=1)
    except KafkaError:
        # If close() cannot send the last records, the thread of the producer goes on. End this thread here.
        producer._sender.force_close()
        producer._sender.join(5)


def _not_sent(reason: str) -> str:
    return f"Kafka did not accept the record ({reason}). Nothing was changed. Try again when Kafka runs again."


_producer: ConfirmedProducer | None = None
_creating = threading.Lock()


def get_producer() -> ConfirmedProducer:
    """Returns the producer that all threads of this process share. If the settings have changed, returns a new producer."""
    global _producer
    with _creating:
        if _producer is None or _producer.settings is not current_settings():
            if _producer is not None:
                _producer.close()
            _producer = ConfirmedProducer(current_settings())
        return _producer


def send_record(topic: str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> tuple[int, int]:
    """Sends a record with the shared producer. Returns its partition and offset once the brokers have confirmed it.

    Raises KafkaUnavailableError, whose message can be shown on a page.
    """
    return get_producer().send(topic, key, value, headers)
