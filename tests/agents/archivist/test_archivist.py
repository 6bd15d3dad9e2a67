"""The archivist's checks of records before they are stored, and its wait for a full batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from agents.archivist.archivist import Archivist, decode_record, list_archived_topics
from streams.errors import RecordError
from streams.identity import PartId
from streams.record_producer import ConsumedRecord
from streams.records import ArchivedRecord, PartRecord
from streams.settings import ArchivistSettings, LineSettings, Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord
from tests.event_loop import wait_until
from tests.held_kafka import HeldKafka
from tests.sample_records import make_finding, make_review, make_sorting, make_verdict

LINES = ("line-1", "models", "lines", "reviews")
SETTINGS = Settings(lines=tuple(LineSettings(name=name) for name in LINES))
TOPICS = list_archived_topics(SETTINGS)
NAMES = TopicNames(SETTINGS.topics.prefix)


def receive(topic: str, record: PartRecord) -> ReceivedRecord:
    source = ConsumedRecord(topic, 0, 0, record.part_id.key, record.encode(), {})
    return ReceivedRecord(source, datetime.now(UTC), cast(Any, None), cast(Any, None))


@pytest.mark.parametrize("line", LINES)
def test_a_record_on_the_topic_of_another_line_is_refused_whatever_the_line_is_called(line: str) -> None:
    topic = NAMES.sorted(line)
    own = make_sorting(PartId(line, 1, 2))
    assert decode_record(TOPICS[topic], receive(topic, own), NAMES) == own
    with pytest.raises(RecordError, match=f"belongs to line-2, but its topic belongs to {line}"):
        decode_record(TOPICS[topic], receive(topic, make_sorting(PartId("line-2", 1, 2))), NAMES)


def test_a_verdict_names_only_pictures_and_a_finding_only_heat_maps_of_its_line() -> None:
    part = PartId("line-1", 1, 2)
    own, topic = make_verdict(part, NAMES.images("line-1"), 0, 1), NAMES.verdicts("line-1")
    assert decode_record(TOPICS[topic], receive(topic, own), NAMES) == own
    for forged_topic in (NAMES.images("models"), NAMES.reviews, "__consumer_offsets"):
        forged = own.model_copy(update={"image": own.image.model_copy(update={"topic": forged_topic})})
        with pytest.raises(RecordError, match="is no topic of its line"):
            decode_record(TOPICS[topic], receive(topic, forged), NAMES)
    finding, topic = make_finding(own), NAMES.findings("line-1")
    digits = "ab" * 32
    good = finding.model_copy(update={"heat_map": f"maps/ab/{digits}"})
    assert decode_record(TOPICS[topic], receive(topic, good), NAMES) == good
    for address in (f"pictures/ab/{digits}", f"studies/ab/{digits}", f"maps/cd/{digits}", f"maps/../pictures/ab/{digits}"):
        with pytest.raises(RecordError, match="is no address of a heat map"):
            decode_record(TOPICS[topic], receive(topic, finding.model_copy(update={"heat_map": address})), NAMES)


def test_the_reviews_of_all_lines_share_a_topic() -> None:
    review = make_review(PartId("line-1", 1, 2), "defect")
    assert decode_record(TOPICS[NAMES.reviews], receive(NAMES.reviews, review), NAMES) == review


class ListArchive:
    """Stands for the database. It keeps the records in a list."""

    def __init__(self) -> None:
        self.records: list[ArchivedRecord] = []

    def write(self, records: Sequence[ArchivedRecord]) -> int:
        self.records += records
        return len(records)


@pytest.mark.asyncio
async def test_a_record_waits_for_a_full_batch_as_long_as_the_longest_wait_of_the_settings() -> None:
    settings = SETTINGS.model_copy(update={"archivist": ArchivistSettings(batch=2, max_wait_s=10)})
    kafka, archive = HeldKafka(), ListArchive()
    archivist = Archivist(settings, archive, kafka.make_producer("archivist"), lambda *_: None)
    writing = asyncio.create_task(archivist.write_batches())
    records = [make_sorting(PartId("line-1", 1, part)) for part in (1, 2)]
    received = [
        kafka.make_received(NAMES.sorted("line-1"), offset, record.part_id.key, record.encode()) for offset, record in enumerate(records)
    ]
    await archivist.accept(received[0])
    # This is longer than the default of the setting `archivist.max_wait_s`.
    await asyncio.sleep(0.4)
    assert (archive.records, kafka.acknowledged) == ([], [])
    await archivist.accept(received[1])
    async with asyncio.timeout(5):
        await wait_until(lambda: kafka.acknowledged == [0, 1])
    assert archive.records == records
    await archivist.drain()
    await writing
