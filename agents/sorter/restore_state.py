"""Reads the newest records of a line back, so that a sorter that was killed knows what it had told and recorded."""

from __future__ import annotations

import logging
import time
from typing import TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pydantic import ValidationError

from agents.sorter.part_states import REMEMBERED, Notes
from streams.errors import BrokerError
from streams.kafka import make_client_arguments
from streams.records import Record, Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

_LONGEST_S = 30.0
R = TypeVar("R", bound=Record)


def recall(settings: Settings, line: str) -> Notes:
    """Notes of the newest verdicts and sortings of `line`.

    Raises BrokerError: when the records cannot be read, or not within 30 s.
    """
    names, notes = TopicNames(settings.topics.prefix), Notes()
    try:
        for verdict in _newest(settings, names.verdicts(line), Verdict):
            notes.of(verdict.run, verdict.part).verdict(verdict)
        for sorting in _newest(settings, names.sorted(line), Sorting):
            notes.record(sorting)
    except KafkaError as error:
        raise BrokerError(f"expected the newest records of {line} from Kafka at {settings.bootstrap}, found an error: {error!r}") from error
    return notes


def _newest(settings: Settings, topic: str, kind: type[R]) -> list[R]:
    arguments = make_client_arguments(settings, "recall")
    consumer = KafkaConsumer(**arguments, enable_auto_commit=False, group_id=None, auto_offset_reset="earliest")
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        end, beginning = consumer.end_offsets([place])[place], consumer.beginning_offsets([place])[place]
        consumer.seek(place, max(beginning, end - REMEMBERED))
        found: list[R] = []
        until = time.monotonic() + _LONGEST_S
        while consumer.position(place) < end:
            if time.monotonic() > until:
                raise BrokerError(f"expected {topic} to be read up to {end} within {_LONGEST_S:.0f} s, found {consumer.position(place)}")
            for records in consumer.poll(timeout_ms=500).values():
                found += [record for record in (_decode(kind, each.value) for each in records) if record is not None]
        return found
    finally:
        consumer.close()


def _decode(kind: type[R], value: bytes | None) -> R | None:
    try:
        return kind.decode(value or b"")
    except ValidationError as error:
        log.warning("a record on its topic is no %s: %s", kind.name, error)
        return None
