"""Creates the missing topics of Castline on a Kafka cluster, and corrects existing ones. `streams/topics.py` declares all topics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import InvalidPartitionsError, TopicAlreadyExistsError

from streams.settings import Settings
from streams.topics import TopicSpec, compute_max_bytes, declare_topics

# A broker can confirm a change of its topics before its metadata shows the change. The delay is at most this many seconds.
_METADATA_S = 3.0


@dataclass(frozen=True)
class TopicChange:
    """What `create_topics` did to one topic, such as `created` or `partitions 2 -> 4`. `as declared` means that nothing changed."""

    name: str
    description: str


def create_topics(admin: KafkaAdminClient, settings: Settings) -> list[TopicChange]:
    """Creates missing topics and partitions, corrects the configuration of existing topics, and returns what changed.

    Removes no partitions. Raises kafka.errors.KafkaError if the cluster refuses a change. Several processes may call this at the same time.
    """
    specs = declare_topics(settings, compute_max_bytes(settings))
    partitions_by_topic = _count_partitions(admin)
    missing = [spec for spec in specs if spec.name not in partitions_by_topic]
    if missing:
        with _repeated_requests_allowed(admin, missing):
            admin.create_topics(
                {
                    spec.name: {
                        "num_partitions": spec.partitions,
                        "replication_factor": spec.replication,
                        "configs": spec.configs,
                    }
                    for spec in missing
                },
                wait_for_metadata=True,
            )
    grown = [spec for spec in specs if partitions_by_topic.get(spec.name, spec.partitions) < spec.partitions]
    if grown:
        with _repeated_requests_allowed(admin, grown):
            admin.create_partitions({spec.name: spec.partitions for spec in grown})
    config_changes = _align_configs(admin, [spec for spec in specs if spec.name in partitions_by_topic])
    changes = []
    for spec in specs:
        steps = ["created"] if spec in missing else []
        if spec in grown:
            steps.append(f"partitions {partitions_by_topic[spec.name]} -> {spec.partitions}")
        steps += config_changes.get(spec.name, [])
        changes.append(TopicChange(spec.name, ", ".join(steps) or "as declared"))
    return changes


@contextmanager
def _repeated_requests_allowed(admin: KafkaAdminClient, specs: list[TopicSpec]) -> Iterator[None]:
    """Ignores Kafka's error that a topic or a partition exists already, if all topics of `specs` have their partitions.

    Kafka gives this error if another process has created the topics in the meantime. Kafka also gives the error if its answer came late, so
    that kafka-python sent the same request twice.
    """
    try:
        yield
    except (TopicAlreadyExistsError, InvalidPartitionsError):
        give_up_s = time.monotonic() + _METADATA_S
        while not _exist(admin, specs):
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.1)


def _exist(admin: KafkaAdminClient, specs: list[TopicSpec]) -> bool:
    found = _count_partitions(admin)
    return all(found.get(spec.name, 0) >= spec.partitions for spec in specs)


def _count_partitions(admin: KafkaAdminClient) -> dict[str, int]:
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(None)}


def _align_configs(admin: KafkaAdminClient, specs: list[TopicSpec]) -> dict[str, list[str]]:
    """Gives existing topics their declared configuration. Returns the changes by topic name, such as `retention.ms 1 -> 2`."""
    found = read_topic_configs(admin, [spec.name for spec in specs])
    changes: dict[str, list[str]] = {}
    resources = []
    for spec in specs:
        differing = {name: value for name, value in spec.configs.items() if found[spec.name].get(name) != value}
        if differing:
            changes[spec.name] = [f"{name} {found[spec.name].get(name)} -> {value}" for name, value in differing.items()]
            resources.append(ConfigResource(ConfigResourceType.TOPIC, spec.name, differing))
    if resources:
        admin.alter_configs(resources)
    return changes


def read_topic_configs(admin: KafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Returns the configuration of each topic in `names`, by topic name. The topics must exist."""
    if not names:
        return {}
    response: dict[str, dict[str, dict[str, Any]]] = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
    )
    (by_topic,) = response.values()
    return {topic: {name: entry["value"] for name, entry in entries.items()} for topic, entries in by_topic.items()}
