"""The archivist's checks of records before they are stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from agents.archivist.archivist import Archivist, decode_record, list_archived_topics
from streams.errors import RecordError
from streams.identity import PartId
from streams.record_producer import ConsumedRecord
from streams.records import PartRecord
from streams.settings import ArchivistSettings, LineSettings, Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord
from tests.sample_records import make_review, make_sorting

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
    assert decode_record(TOPICS[topic], receive(topic, own)) == own
    with pytest.raises(RecordError, match=f"belongs to line-2, but its topic belongs to {line}"):
        decode_record(TOPICS[topic], receive(topic, make_sorting(PartId("line-2", 1, 2))))


def test_the_reviews_of_all_lines_share_a_topic() -> None:
    review = make_review(PartId("line-1", 1, 2), "defect")
    assert decode_record(TOPICS[NAMES.reviews], receive(NAMES.reviews, review)) == review


@pytest.mark.asyncio
async def test_an_archivist_starts_with_the_longest_wait_that_the_settings_allow() -> None:
    settings = SETTINGS.model_copy(update={"archivist": ArchivistSettings(max_wait_s=10)})
    archivist = Archivist(settings, cast(Any, None), cast(Any, None), lambda *_: None)
    assert set(archivist.lines_by_topic) == set(TOPICS)
