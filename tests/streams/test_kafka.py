"""Clients of Kafka: the partitions of topics that they know, and what remains of them without a broker."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.errors import CastlineError
from streams.kafka import find_partitions, make_client_arguments, open_client, read_to_end
from streams.settings import BrokerSettings, Settings
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


@pytest.mark.real
def test_a_stopped_broker_behind_a_proxy_is_not_flooded_with_connections(tmp_path: Path) -> None:
    """While the broker is away, the proxy accepts each connection and closes it at once."""
    settings = Settings(broker=BrokerSettings(port=free_ports(2), data_dir=tmp_path / "kafka", access="open"))
    broker = EmbeddedBroker(settings)
    broker.start()
    try:
        admin = broker.connect()
        admin.create_topics({"castings.used": {"num_partitions": 1}}, wait_for_metadata=True)
        admin.close()
        arguments = make_client_arguments(settings, "test") | {"bootstrap_servers": broker.address}
        with closing(open_client(KafkaProducer, **arguments)) as producer:
            producer.send("castings.used", b"first").get(20)
            os.kill(broker.pid, signal.SIGKILL)
            while broker.poll() is None:
                time.sleep(0.05)
            waiting = producer.send("castings.used", b"second")
            connections, until_s = 0, time.monotonic() + 3
            with socket.create_server(("127.0.0.1", settings.broker.port)) as proxy:
                proxy.settimeout(0.1)
                while time.monotonic() < until_s:
                    try:
                        proxy.accept()[0].close()
                    except TimeoutError:
                        continue
                    connections += 1
            broker.start()
            assert waiting.get(30).offset == 1
        # The waits are 0.05, 0.1, 0.2, 0.4, 0.8 and then 1 s. Without these waits, there are more than 100 connections a second.
        assert 3 <= connections <= 20
    finally:
        broker.stop(20)
