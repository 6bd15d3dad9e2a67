"""How much work waits, asked of a real broker by workers with and without partitions of their own."""

from __future__ import annotations

from kafka import KafkaProducer
from prometheus_client import REGISTRY

from streams.health import ProcessHealth, ProgressWatchdog
from streams.lag import LagMonitor, Partition
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import wait_for

PARTITIONS = 4


def shown(line: str) -> float | None:
    return REGISTRY.get_sample_value("castline_consumer_lag_records", {"line": line})


def test_what_waits_is_shown_once_by_those_whose_work_it_is_and_seen_by_all(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("lag-1",), topics={"image_partitions": PARTITIONS})
    topic = TopicNames(settings.topics.prefix).images("lag-1")
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for number in range(12):
        producer.send(topic, value=b"a picture", partition=number % PARTITIONS).get(10)
    producer.close()
    assigned: set[Partition] = {(topic, 0), (topic, 1), (topic, 2)}
    clock = [0.0]
    health = ProcessHealth("inspector", ProgressWatchdog(30, lambda: clock[0]))
    watch = LagMonitor(settings, "nobody", {topic: "lag-1"}, lambda: set(assigned), health, interval_s=0.05)
    watch.start()
    try:
        wait_for(lambda: shown("lag-1") == 9, 20, "expected the lag of three of the four partitions")
        assigned.clear()
        wait_for(lambda: shown("lag-1") == 0, 20, "expected no lag of a worker without partitions")
        # Nobody commits: the worker that has nothing to do says that the others stand still.
        clock[0] = 60.0
        wait_for(lambda: "12 pieces of work wait" in health.check_health()[1], 20, "expected the complaint about all that waits")
        assigned.add((topic, 3))
        wait_for(lambda: shown("lag-1") == 3, 20, "expected the lag of the partition taken over")
    finally:
        watch.stop()
