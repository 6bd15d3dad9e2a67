"""The lag of workers with and without partitions, measured on a real broker."""

from __future__ import annotations

from kafka import KafkaProducer
from prometheus_client import REGISTRY

from streams.group_members import make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.lag import LagMonitor, Partition
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
