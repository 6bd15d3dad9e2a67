"""Every topic: its name, partitions and keeping; made and described here alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from streams.settings import Settings, TopicSettings

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True)
class TopicNames:
    """The names of all topics below one prefix."""

    prefix: str

    def images(self, line: str) -> str:
        return f"{self.prefix}.images.{line}"

    def verdicts(self, line: str) -> str:
        return f"{self.prefix}.verdicts.{line}"

    def sorted(self, line: str) -> str:
        return f"{self.prefix}.sorted.{line}"

    def findings(self, line: str) -> str:
        return f"{self.prefix}.findings.{line}"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dead-letters"

    @property
    def reviews(self) -> str:
        return f"{self.prefix}.reviews"

    @property
    def models(self) -> str:
        return f"{self.prefix}.models"


@dataclass(frozen=True)
class TopicSpec:
    """What a topic is declared as."""

    name: str
    partitions: int
    replication: int
    configs: dict[str, str] = field(default_factory=dict)


def declare_topics(settings: Settings) -> list[TopicSpec]:
    """All topics that the settings' lines need, in the order of the design."""
    topics, names = settings.topics, TopicNames(settings.topics.prefix)
    specs = []
    for line in settings.lines:
        specs.append(_spec(names.images(line.name), topics, topics.image_partitions, topics.image_hours * _HOUR_MS))
        for name in (names.verdicts(line.name), names.sorted(line.name), names.findings(line.name)):
            specs.append(_spec(name, topics, 1, topics.record_days * _DAY_MS))
    specs.append(_spec(names.dead_letters, topics, 4, topics.record_days * _DAY_MS))
    specs.append(_spec(names.reviews, topics, 1, None))
    specs.append(_spec(names.models, topics, 1, None))
    return specs


def _spec(name: str, topics: TopicSettings, partitions: int, keep_ms: float | None) -> TopicSpec:
    keeping = {"cleanup.policy": "compact"} if keep_ms is None else {"cleanup.policy": "delete", "retention.ms": str(int(keep_ms))}
    return TopicSpec(name, partitions, topics.replication, {**keeping, "max.message.bytes": str(topics.max_message_bytes)})


@dataclass(frozen=True)
class TopicChange:
    """What was done to one topic: `created`, `partitions 2 -> 4`, `retention.ms 1 -> 2` or `as declared`."""

    name: str
    what: str


def create_topics(admin: KafkaAdminClient, settings: Settings) -> list[TopicChange]:
    """Makes the cluster's topics as declared; idempotent. Partitions are added, never taken away.

    Raises kafka.errors.KafkaError: when the cluster refuses.
    """
    specs = declare_topics(settings)
    present = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(None)}
    absent = [spec for spec in specs if spec.name not in present]
    if absent:
        admin.create_topics(
            {
                spec.name: {
                    "num_partitions": spec.partitions,
                    "replication_factor": spec.replication,
                    "configs": spec.configs,
                }
                for spec in absent
            },
            wait_for_metadata=True,
        )
    few = [spec for spec in specs if present.get(spec.name, spec.partitions) < spec.partitions]
    if few:
        admin.create_partitions({spec.name: spec.partitions for spec in few})
    configs = _align_configs(admin, [spec for spec in specs if spec.name in present])
    changes = []
    for spec in specs:
        done = ["created"] if spec in absent else []
        if spec in few:
            done.append(f"partitions {present[spec.name]} -> {spec.partitions}")
        done += configs.get(spec.name, [])
        changes.append(TopicChange(spec.name, ", ".join(done) or "as declared"))
    return changes


def _align_configs(admin: KafkaAdminClient, specs: list[TopicSpec]) -> dict[str, list[str]]:
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
    """The configuration of the named topics, by name; they must exist."""
    if not names:
        return {}
    answer: dict[str, dict[str, dict[str, Any]]] = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
    )
    (by_topic,) = answer.values()
    return {topic: {name: entry["value"] for name, entry in entries.items()} for topic, entries in by_topic.items()}
