"""Clients of Kafka: the partitions of topics that they know, and what remains of them without a broker."""

from __future__ import annotations

import threading

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from deploy.supervisor.ports import free_ports
from streams.errors import CastlineError
from streams.kafka import find_partitions, open_client, read_to_end
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


@pytest.mark.parametrize("kind", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_a_client_that_finds_no_broker_leaves_no_thread(kind: type[KafkaAdminClient]) -> None:
    before = set(threading.enumerate())
    with pytest.raises((KafkaError, OSError)):
        open_client(kind, bootstrap_servers=f"127.0.0.1:{free_ports()}", bootstrap_timeout_ms=300)
    assert set(threading.enumerate()) <= before
