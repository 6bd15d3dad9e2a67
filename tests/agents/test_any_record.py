"""Neighbours of the schema of each topic, given to the reader of that topic in each role: none breaks a reader or the records after it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.archivist.archivist import decode_record, list_archived_topics
from agents.inspector.decoding import decode_image, read_image_record
from agents.inspector.judging import JudgedImage, LineRules, make_verdict
from agents.sorter.decisions import board_verdict, verdict_deadline
from agents.sorter.part_states import PartState, _read, join_states
from deploy.cli.trace import _steps, format_steps
from streams.commands import decode_command
from streams.errors import IdentityError, PictureError, RecordError
from streams.identity import make_header_map
from streams.live_line_settings import LiveSettingsByLine
from streams.model_choices import ModelChoices
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord
from streams.record_reader import read_broker_time
from streams.records import Finding, Review, ReviewWithdrawal, Sorting, Verdict
from streams.settings import GateSettings, LineSettings, Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord
from tests.image_topics import make_jpeg
from tests.record_mutations import JSON_KINDS, ODD_VALUES, MutatedRecord, list_fields, make_valid, mutate
from tests.station import conftest  # noqa: F401  configures Django

LINE = "line-1"

from station.archive.models import Part  # noqa: E402
from station.archive.part_writer import make_row, merge_record, time_of  # noqa: E402
from station.archive.retention import RetentionPolicy  # noqa: E402
from station.live.live_consumer import ArchivedCounts, LiveConsumer  # noqa: E402

GATE = GateSettings(port="/dev/null")
SETTINGS = Settings(lines=(LineSettings(name=LINE, gate=GATE),))
NAMES = TopicNames(SETTINGS.topics.prefix)
PICTURE = make_jpeg(1, 32)
# The topic of each kind of record.
TOPICS = {kind: f"castings.{kind}.{LINE}" for kind in ("images", "verdicts", "sorted", "findings")}
TOPICS |= {kind: f"castings.{kind}" for kind in ("dead-letters", "reviews", "models", "lines", "commands")}
VERDICT = Verdict.decode(make_valid("verdicts", LINE, 1).value or b"")
SORTING = Sorting.decode(make_valid("sorted", LINE, 1).value or b"")
NOW = datetime.now(UTC)


@st.composite
def neighbours(draw: st.DrawFn, kind: str) -> MutatedRecord:
    """A valid record of `kind` in which one field has any value, or which is damaged in another way."""
    record = make_valid(kind, LINE, 1, PICTURE)
    if kind not in JSON_KINDS or draw(st.booleans()):
        return mutate(record, random.Random(draw(st.integers(0, 2**64))))
    content = json.loads(record.value or b"")
    holder, name = draw(st.sampled_from(list(list_fields(content))))
    times = st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat)
    holder[name] = draw(st.sampled_from(ODD_VALUES) | times | st.floats() | st.integers() | st.text())
    return replace(record, value=json.dumps(content).encode())


def as_kafka_record(record: MutatedRecord) -> Any:
    """Returns the record in the form of kafka-python."""
    timestamp_ms = NOW.timestamp() * 1000 if record.timestamp_ms is None else record.timestamp_ms
    fields = {"topic": TOPICS[record.kind], "partition": 0, "offset": 0, "timestamp": timestamp_ms}
    return type("KafkaRecord", (), {**fields, "key": record.key, "value": record.value, "headers": record.headers})


def as_received(record: MutatedRecord) -> ReceivedRecord:
    """Returns the record in the form in which a worker gets it."""
    source = ConsumedRecord(TOPICS[record.kind], 0, 0, record.key, record.value, make_header_map(record.headers))
    return ReceivedRecord(source, read_broker_time(as_kafka_record(record).timestamp / 1000), cast(Any, None), cast(Any, None))


def read_in_inspector(record: MutatedRecord) -> None:
    received = as_received(record)
    try:
        image = read_image_record(received.record, SETTINGS.lines[0], received.broker_time, NOW)
    except IdentityError:
        return
    decoded = decode_image(image, 32, SETTINGS.pictures, ObjectStore("/nonexistent"))
    verdict = make_verdict(JudgedImage(decoded, PictureError("damaged", "For this test.")), "demo", 0.5, NOW)
    assert Verdict.decode(verdict.encode()) == verdict


def read_in_archivist(record: MutatedRecord) -> None:
    try:
        content = decode_record(
            list_archived_topics(SETTINGS)[TOPICS[record.kind]], as_received(record), TopicNames(SETTINGS.topics.prefix)
        )
    except RecordError:
        return
    if content is None or isinstance(content, ReviewWithdrawal):
        return
    row = make_row(content.part_id, time_of(content))
    others = (VERDICT, SORTING, Finding.decode(make_valid("findings", LINE, 1).value or b""))
    for one in (*others, Review.decode(make_valid("reviews", LINE, 1).value or b""), content, *others):
        merge_record(row, one, RetentionPolicy(0.0))
    for field in Part._meta.concrete_fields:
        value = getattr(row, field.attname)
        if isinstance(value, str) and field.max_length is not None:
            assert len(value) <= field.max_length, f"the archive cannot hold {field.name}"


def read_in_sorter(record: MutatedRecord) -> None:
    verdict, sorting = _read(SETTINGS, Verdict, as_kafka_record(record)), _read(SETTINGS, Sorting, as_kafka_record(record))
    join_states([VERDICT, *([verdict] if verdict else [])], [SORTING, *([sorting] if sorting else [])], SORTING.sorted_at)
    if verdict is not None:
        board_verdict(verdict, GATE)
        assert verdict_deadline(PartState(), verdict.captured_at, GATE, NOW, 0.0) <= GATE.travel_s


def read_command(record: MutatedRecord) -> None:
    try:
        command = decode_command(SETTINGS, record.key, record.value, make_header_map(record.headers))
    except RecordError:
        return
    assert command.line == LINE


def read_model_choices(record: MutatedRecord) -> None:
    received = as_received(record)
    try:
        choices = ModelChoices("demo").with_record(received.record.key, received.record.value, received.broker_time)
    except RecordError:
        return
    assert len(choices.list_candidates(LINE)) >= 1


def read_line_settings(record: MutatedRecord) -> None:
    received = as_received(record)
    try:
        line_settings = LiveSettingsByLine().with_record(received.record.key, received.record.value, received.broker_time)
    except RecordError:
        return
    rules = LineRules()
    rules.follow(line_settings)
    if regions := rules.find_regions(LINE):
        regions.make_square_mask(32, 64, 48)


def read_in_station(record: MutatedRecord) -> None:
    consumer = LiveConsumer(SETTINGS, lambda line, since, now: ArchivedCounts(since))
    consumer.update_shift(NOW)
    for kind in ("verdicts", "sorted", "findings", record.kind):
        if kind == record.kind:
            consumer.add_record(as_kafka_record(record))
        consumer.add_record(as_kafka_record(make_valid(kind, LINE, 1)))
    state = consumer.lines[LINE]
    state.latency(NOW), state.trend(NOW), state.count_dead_letters(NOW), state.count_missed_verdicts(NOW)
    part = state.last_parts(1)[0]
    assert part.verdict is not None, "the valid verdict counts"


def read_in_trace(record: MutatedRecord) -> None:
    steps = _steps(as_kafka_record(record), NAMES)
    assert format_steps(sorted(steps, key=lambda step: step.at))


READERS: list[tuple[str, Callable[[MutatedRecord], None]]] = [
    ("images", read_in_inspector),
    *((kind, read_in_archivist) for kind in ("verdicts", "sorted", "findings", "reviews", "models", "lines")),
    *((kind, read_in_sorter) for kind in ("verdicts", "sorted")),
    ("commands", read_command),
    ("models", read_model_choices),
    ("lines", read_line_settings),
    *((kind, read_in_station) for kind in ("verdicts", "sorted", "findings", "dead-letters", "models")),
    *((kind, read_in_trace) for kind in ("images", "verdicts", "sorted", "dead-letters")),
]


@pytest.mark.real
@pytest.mark.parametrize(("kind", "read"), READERS, ids=[f"{kind}-{read.__name__}" for kind, read in READERS])
@settings(max_examples=150)
@given(data=st.data())
def test_any_record_is_read_or_refused(kind: str, read: Callable[[MutatedRecord], None], data: st.DataObject) -> None:
    read(data.draw(neighbours(kind)))
