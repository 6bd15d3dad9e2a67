"""Reads, follows and writes compacted topics, in which Kafka keeps the last record of each key.

For each topic, a class holds the newest records in memory, for example `streams.model_choices.ModelChoices`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, Self, TypeVar

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from streams.errors import BrokerError
from streams.identity import make_header_map
from streams.kafka import make_client_arguments, make_reader, open_client, read_to_end
from streams.kafka_thread import KafkaThread
from streams.record_producer import make_json_record
from streams.record_reader import read_broker_time, skip_record
from streams.records import Record
from streams.settings import Settings
from streams.signatures import check_signature, sign_headers

log = logging.getLogger(__name__)

_POLL_MS = 500


class NewestRecords(Protocol):
    """Holds the newest record of each key of one compacted topic. Objects are immutable: `with_record` returns a new one."""

    def with_record(self, key: bytes | None, value: bytes | None, broker_time: datetime | None = None) -> Self:
        """Returns a copy of this object in which `value` is the newest record of `key`. An empty `value` removes the record of `key`.

        `broker_time` is the time of the Kafka record, and None stands for the present time. Raises RecordError if the record is not valid.
        """
        ...


Newest = TypeVar("Newest", bound=NewestRecords)


def add_kafka_record(newest: Newest, record: Any, role: str, settings: Settings) -> Newest:
    """Returns a copy of `newest` that contains `record`. If `record` is not valid, logs it and returns `newest` unchanged."""
    try:
        check_signature(settings, record.topic, record.key, record.value, make_header_map(record.headers))
        return newest.with_record(record.key, record.value, read_broker_time(record.timestamp / 1000))
    except Exception as error:  # noqa: BLE001  an error in one record must not end the thread
        skip_record(role, record, error)
    return newest


def read_compacted_topic(settings: Settings, role: str, topic: str, empty: Newest) -> Newest:
    """Reads `topic` to its end. Returns an object with the newest record of each key.

    `empty` is an object of the same class that contains no records, such as a new `ModelChoices`.
    Raises CastlineError if the topic does not exist or cannot be read.
    """
    newest = empty
    for record in read_to_end(settings, role, [topic]):
        newest = add_kafka_record(newest, record, role, settings)
    return newest


def publish_keyed_record(settings: Settings, topic: str, key: str, record: Record, source: str) -> None:
    """Sends `record` to Kafka and waits for the brokers' confirmation. Raises BrokerError if the brokers do not accept it."""
    sent = make_json_record(topic, key.encode(), record, source)
    try:
        producer = open_client(KafkaProducer, **make_client_arguments(settings, source))
        try:
            headers = sign_headers(settings, sent.topic, sent.key, sent.value, sent.headers)
            producer.send(sent.topic, key=sent.key, value=sent.value, headers=headers).get(30)
        finally:
            producer.close()
    except KafkaError as error:
        raise BrokerError(
            f"Kafka at {settings.bootstrap} did not accept the record for {key} on the topic {topic}: {error!r}. "
            "Check the brokers and try again."
        ) from error


@dataclass
class FollowedTopic(Generic[Newest]):
    """A compacted topic that a `CompactedTopicFollower` reads.

    - `empty`: an object without records, of the class that holds the records of this topic.
    - `on_change`: called with an object that holds the newest records: first after the topic was read to its end, and later after each
      change.
    """

    topic: str
    empty: Newest
    on_change: Callable[[Newest], None]
    reported: Newest | None = field(default=None, init=False)


class CompactedTopicFollower:
    """A thread that follows compacted topics without a consumer group. If Kafka fails, the thread tries again every second."""

    def __init__(self, settings: Settings, role: str, topics: Sequence[FollowedTopic[Any]]) -> None:
        self._settings = settings
        self._role = role
        self._topics = {TopicPartition(followed.topic, 0): followed for followed in topics}
        names = ", ".join(followed.topic for followed in topics)
        failure = f"The topics {names} cannot be read, so their last known records stay in use."
        self._thread = KafkaThread("compacted topics", self._follow, failure)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _follow(self) -> None:
        """Reads the topics from their beginning and follows them until `stop` is called.

        Raises KafkaError or OSError if Kafka fails. The caller then reads from the beginning again.
        """
        partitions = list(self._topics)
        consumer = make_reader(self._settings, f"{self._role}-compacted", auto_offset_reset="earliest")
        try:
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            self._thread.report_success()
            newest = {partition: followed.empty for partition, followed in self._topics.items()}
            while not self._thread.is_stopping:
                for partition, followed in self._topics.items():
                    if consumer.position(partition) >= ends[partition] and newest[partition] != followed.reported:
                        followed.reported = newest[partition]
                        _report(followed, newest[partition])
                for partition, records in consumer.poll(timeout_ms=_POLL_MS).items():
                    for record in records:
                        newest[partition] = add_kafka_record(newest[partition], record, self._role, self._settings)
        finally:
            consumer.close()


def _report(followed: FollowedTopic[Any], newest: object) -> None:
    try:
        followed.on_change(newest)
    except Exception:  # An error in `on_change` must not end the thread that reads the topic.
        log.exception("A change on the topic %s could not be applied, so the previous records stay in use.", followed.topic)
