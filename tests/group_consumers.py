"""A consumer of kafka-python that is a member of a consumer group, as another program or another machine would be."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer

from streams.group_members import GroupIdentity
from streams.settings import Settings
from tests.image_topics import wait_for


def make_group_consumer(settings: Settings, topics: list[str], identity: GroupIdentity, client_id: str, **options: Any) -> KafkaConsumer:
    """Returns a consumer that joins the group of `identity` at its first poll. `options` are further arguments of KafkaConsumer."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.bootstrap,
        group_id=identity.group,
        group_instance_id=identity.instance_id,
        client_id=client_id,
        **options,
    )
    # Wait for the partitions before the consumer joins. If kafka-python 3.0.12 learns them only during the join, its consumer stays in the
    # group without any partition.
    wait_for(lambda: all(consumer.partitions_for_topic(topic) for topic in topics), 30, "expected the partitions of the topics")
    consumer.subscribe(topics)
    return consumer
