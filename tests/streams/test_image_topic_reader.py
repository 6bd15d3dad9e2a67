"""Single pictures are read from many topics of a real broker, in any order."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from streams.image_topic_reader import ImageTopicReader
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings

_LINES = ("line-1", "line-2", "line-3")
_PARTITIONS = (0, 1)
_COUNT = 5


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Settings of three lines. Two partitions of each image topic hold five records, whose values say where they are."""
    settings = make_settings(lines=_LINES)
    names = TopicNames(settings.topics.prefix)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for line in _LINES:
        for partition in _PARTITIONS:
            for offset in range(_COUNT):
                producer.send(names.images(line), value=f"{line} {partition} {offset}".encode(), partition=partition)
                producer.flush()  # so each record has a batch of its own, as large pictures have
    producer.close()
    return settings


@pytest.fixture
def reader(settings: Settings) -> Iterator[ImageTopicReader]:
    reader = ImageTopicReader(settings, "test")
    yield reader
    reader.close()


@pytest.mark.parametrize("offsets", [range(_COUNT), range(_COUNT - 1, -1, -1), [2, 2, 2]], ids=["forwards", "backwards", "again"])
def test_each_read_returns_the_wanted_record_of_the_wanted_topic(settings: Settings, reader: ImageTopicReader, offsets: range) -> None:
    names = TopicNames(settings.topics.prefix)
    for offset in offsets:
        for line in _LINES:
            for partition in _PARTITIONS:
                record = reader.read(names.images(line), partition, offset)
                assert record is not None
                assert record.value == f"{line} {partition} {offset}".encode()


def test_a_record_that_is_not_written_yet_is_none_and_the_next_read_works(settings: Settings, reader: ImageTopicReader) -> None:
    topic = TopicNames(settings.topics.prefix).images("line-1")
    assert reader.read(topic, 0, _COUNT) is None
    record = reader.read(topic, 1, 0)
    assert record is not None
    assert record.value == b"line-1 1 0"


def test_a_change_of_the_topic_costs_no_request_for_metadata(
    settings: Settings, reader: ImageTopicReader, caplog: pytest.LogCaptureFixture
) -> None:
    names = TopicNames(settings.topics.prefix)
    for line in _LINES:
        reader.read(names.images(line), 0, 0)
    caplog.set_level(logging.DEBUG, "kafka.cluster")
    for offset in range(1, _COUNT):
        for line in _LINES:
            reader.read(names.images(line), 0, offset)
    requests = [record.message for record in caplog.records if "Sending metadata request" in record.message]
    # The first reads have asked for the partitions of the topics. Such a request can still be on its way.
    assert len(requests) <= 1, requests


def test_a_partition_that_does_not_exist_has_no_record(settings: Settings, reader: ImageTopicReader) -> None:
    """A forged verdict may name such a partition. The localiser would ask for its picture again for ever."""
    topic = TopicNames(settings.topics.prefix).images("line-1")
    assert reader.read(topic, 2**31 - 1, 0) is None
    assert reader.read(topic, 0, 2**62) is None
    record = reader.read(topic, 0, 0)
    assert record is not None
    assert record.value == b"line-1 0 0"
