"""The partitions of topics, as a client of Kafka knows them."""

from __future__ import annotations

import pytest
from kafka import TopicPartition
from kafka.errors import UnknownTopicOrPartitionError

from streams.errors import CastlineError
from streams.kafka import find_partitions, read_to_end
from tests.conftest import MakeSettings


class Partitions:
    """A Kafka that has the topics `images`, with two partitions, and `verdicts`."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {"images": {1, 0}, "verdicts": {0}}.get(topic)


def test_the_partitions_of_several_topics_are_found_in_order() -> None:
    expected = [TopicPartition("verdicts", 0), TopicPartition("images", 0), TopicPartition("images", 1)]
    assert find_partitions(Partitions(), ["verdicts", "images"]) == expected
    assert find_partitions(Partitions(), []) == []


def test_a_topic_that_does_not_exist_is_named_with_the_command_that_creates_it() -> None:
    with pytest.raises(UnknownTopicOrPartitionError, match=r'The topic findings does not exist\. Create it with "castline topics create"'):
        find_partitions(Partitions(), ["images", "findings"])


def test_reading_a_topic_that_does_not_exist_names_the_topic_and_the_broker(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with pytest.raises(CastlineError, match=rf"Kafka at {settings.bootstrap} .*The topic absent does not exist. Create it"):
        list(read_to_end(settings, "test", ["absent"]))
