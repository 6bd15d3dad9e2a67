"""The lag of workers with and without partitions, measured on a real broker."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata
from prometheus_client import REGISTRY

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.group_members import make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.lag import LagMonitor, Partition
from streams.settings import Settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import wait_for

PARTITIONS = 4


def read_lag_metric(line: str) -> float | None:
    return REGISTRY.get_sample_value("castline_consumer_lag_records", {"line": line})


def test_the_lag_is_shown_by_the_worker_that_has_the_partitions_and_watched_by_all(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("lag-1",), topics={"image_partitions": PARTITIONS})
    topic = TopicNames(settings.topics.prefix).images("lag-1")
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for number in range(12):
        producer.send(topic, value=b"a picture", partition=number % PARTITIONS).get(10)
    producer.close()
    assigned: set[Partition] = {(topic, 0), (topic, 1), (topic, 2)}
    clock = [0.0]
    health = ProcessHealth("inspector", ProgressWatchdog(30, lambda: clock[0]))
    monitor = LagMonitor(
        settings, make_identity(settings, "nobody", "nobody-1"), {topic: "lag-1"}, lambda: set(assigned), health, interval_s=0.05
    )
    monitor.start()
    try:
        wait_for(lambda: read_lag_metric("lag-1") == 9, 20, "expected the lag of three of the four partitions")
        assigned.clear()
        wait_for(lambda: read_lag_metric("lag-1") == 0, 20, "expected no lag of a worker without partitions")
        # No worker commits anything, and the worker without partitions reports that the others are stalled.
        clock[0] = 60.0
        wait_for(lambda: "12 pieces of work wait" in health.check_health()[1], 20, "expected /healthz to report all pending records")
        assigned.add((topic, 3))
        wait_for(lambda: read_lag_metric("lag-1") == 3, 20, "expected the lag of the partition taken over")
    finally:
        monitor.stop()


def test_records_that_kafka_has_deleted_do_not_wait(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("lag-2",), topics={"image_partitions": 1})
    topic = TopicNames(settings.topics.prefix).images("lag-2")
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for _ in range(10):
        producer.send(topic, value=b"a picture").get(10)
    producer.close()
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    admin.delete_records({TopicPartition(topic, 0): 7})
    admin.close()
    health = ProcessHealth("inspector", ProgressWatchdog(30))
    monitor = LagMonitor(
        settings, make_identity(settings, "nobody", "nobody-1"), {topic: "lag-2"}, lambda: {(topic, 0)}, health, interval_s=0.05
    )
    monitor.start()
    try:
        wait_for(lambda: read_lag_metric("lag-2") == 3, 20, "expected the three records that are left")
    finally:
        monitor.stop()


def test_a_worker_whose_producer_or_database_waits_is_not_stalled_but_it_is_not_ready(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("lag-6",), topics={"image_partitions": 1})
    topic = TopicNames(settings.topics.prefix).images("lag-6")
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    producer.send(topic, value=b"a picture").get(10)
    producer.close()
    clock = [0.0]
    health = ProcessHealth("archivist", ProgressWatchdog(30, lambda: clock[0]))
    health.set_ready()
    identity = make_identity(settings, "nobody", "nobody-1")
    measurements = count()

    def assigned() -> set[Partition]:
        measured[0] = next(measurements)
        return {(topic, 0)}

    measured = [0]
    monitor = LagMonitor(settings, identity, {topic: "lag-6"}, assigned, health, interval_s=0.05, clock=lambda: clock[0])
    monitor.start()
    try:
        wait_for(lambda: read_lag_metric("lag-6") == 1, 20, "expected the record that waits")
        for problem in ("database", "producer"):
            for _ in range(8):
                clock[0] += 20
                health.set_problem("does not answer", problem)
                begun = measured[0] + 2
                wait_for(lambda enough=begun: measured[0] >= enough, 20, "expected a measurement")  # type: ignore[misc]
                assert health.check_health() == (200, "ok")
                assert health.check_readiness() == (503, "does not answer"), "the monitor has ended a problem that it did not begin"
            health.set_problem("", problem)
        clock[0] += 61
        assert "1 pieces of work wait" in health.check_health()[1], "the worker has stopped trying"
    finally:
        monitor.stop()


@pytest.mark.real
def test_a_worker_is_not_restarted_while_kafka_is_away(tmp_path: Path) -> None:
    own = {"broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka", "access": "open"}, "topics": {"image_partitions": 1}}
    settings = Settings.model_validate({**own, "lines": [{"name": "lag-4"}]})
    broker = EmbeddedBroker(settings)
    broker.start()
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    create_topics(admin, settings)
    admin.close()
    topic = TopicNames(settings.topics.prefix).images("lag-4")
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    producer.send(topic, value=b"a picture").get(10)
    producer.close()
    clock = [0.0]
    health = ProcessHealth("inspector", ProgressWatchdog(30, lambda: clock[0]))
    identity = make_identity(settings, "nobody", "nobody-1")
    monitor = LagMonitor(settings, identity, {topic: "lag-4"}, lambda: {(topic, 0)}, health, interval_s=0.05, clock=lambda: clock[0])
    monitor.start()
    try:
        wait_for(lambda: read_lag_metric("lag-4") == 1, 20, "expected the picture to wait")
        broker.stop(20)
        wait_for(lambda: "does not answer" in health.check_readiness()[1], 60, "expected Kafka to be away")
        clock[0] = 1000.0
        assert health.check_health() == (200, "ok")
        broker = EmbeddedBroker(settings)
        broker.start()
        wait_for(lambda: "does not answer" not in health.check_readiness()[1], 60, "expected Kafka to be back")
        assert health.check_health() == (200, "ok"), "the time begins anew when Kafka is back"
        clock[0] = 1100.0
        wait_for(lambda: "1 pieces of work wait" in health.check_health()[1], 20, "expected the stall to be reported")
    finally:
        monitor.stop()
        broker.stop(20)


def test_a_partition_that_nobody_reads_is_a_stall_although_another_partition_makes_progress(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("lag-3",), topics={"image_partitions": 2})
    topic = TopicNames(settings.topics.prefix).images("lag-3")
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for number in range(40):
        producer.send(topic, value=b"a picture", partition=number % 2).get(10)
    producer.close()
    clock = [0.0]
    health = ProcessHealth("inspector", ProgressWatchdog(settings.service.stall_s, lambda: clock[0]))
    identity = make_identity(settings, "inspector", "inspector-1")
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, group_id=identity.group, enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, 0)])
    monitor = LagMonitor(
        settings,
        identity,
        {topic: "lag-3"},
        lambda: {(topic, 0), (topic, 1)},
        health,
        interval_s=0.05,
        clock=lambda: clock[0],
    )
    monitor.start()
    try:
        for offset in range(1, 5):
            consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(offset, "", -1)})
            expected = 40 - offset
            wait_for(lambda expected=expected: read_lag_metric("lag-3") == expected, 20, "expected the progress of partition 0")  # type: ignore[misc]
            clock[0] += settings.service.stall_s - 1
        assert health.check_health() == (
            503,
            f"partition 1 of {topic}: 20 pieces of work wait and none was finished for 116 s (limit 60 s)",
        )
    finally:
        monitor.stop()
        consumer.close()
