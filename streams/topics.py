"""Declares all Kafka topics of Castline with their partitions and retention times.

This module imports no Kafka library, because some programs need only the names of the topics. For example, `castline models list` sends
nothing to Kafka.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from streams.settings import Settings, TopicSettings

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
# The fraction of the disk that all topics of the embedded broker together may use.
_DISK_SHARE = 0.6
# All topics together have a limited space. The topics of one kind may use this fraction of the space. Other kinds get `_SMALL_SHARE`.
_SHARES = {"images": 0.75, "verdicts": 0.06, "sorted": 0.06, "findings": 0.06, "dead-letters": 0.06}
_SMALL_SHARE = 0.01
_KINDS_OF_A_LINE = frozenset({"images", "verdicts", "sorted", "findings"})
# The offsets of these topics have no gaps, because Kafka deletes only the oldest records. All other topics can have gaps, for example
# compacted topics.
_KINDS_WITHOUT_GAPS = _KINDS_OF_A_LINE | {"dead-letters", "commands"}
_LARGEST_SEGMENT = 256 * 2**20


@dataclass(frozen=True)
class TopicNames:
    """The names of all topics. They begin with `prefix`, the setting `topics.prefix`."""

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

    @property
    def lines(self) -> str:
        return f"{self.prefix}.lines"

    @property
    def commands(self) -> str:
        return f"{self.prefix}.commands"


@dataclass(frozen=True)
class TopicSpec:
    """The declaration of a topic: name, number of partitions, number of replicas, and Kafka's topic configuration."""

    name: str
    partitions: int
    replication: int
    configs: dict[str, str] = field(default_factory=dict)


def can_have_gaps(topic: str) -> bool:
    """Returns whether the offsets of `topic` can have gaps. A compaction leaves gaps, because it removes records between other records."""
    return topic.partition(".")[2].partition(".")[0] not in _KINDS_WITHOUT_GAPS


def declare_topics(settings: Settings, max_bytes: int | None = None) -> list[TopicSpec]:
    """Returns the declarations of all topics: first four topics for each line, then the topics that all lines share.

    If `max_bytes` is given, each topic whose records expire gets a part of this size as its limit. Kafka deletes the oldest records of a
    topic that exceeds its limit.
    """
    topics, names = settings.topics, TopicNames(settings.topics.prefix)
    specs = []
    for line in settings.lines:
        specs.append(_make_spec(names.images(line.name), topics, topics.image_partitions, topics.image_hours * _HOUR_MS))
        for name in (names.verdicts(line.name), names.sorted(line.name), names.findings(line.name)):
            specs.append(_make_spec(name, topics, 1, topics.record_days * _DAY_MS))
    specs.append(_make_spec(names.dead_letters, topics, 4, topics.record_days * _DAY_MS))
    specs.append(_make_spec(names.reviews, topics, 1, None))
    specs.append(_make_spec(names.models, topics, 1, None))
    specs.append(_make_spec(names.lines, topics, 1, None))
    specs.append(_make_spec(names.commands, topics, 1, _HOUR_MS))
    return specs if max_bytes is None else _limit_sizes(specs, names, topics, len(settings.lines), max_bytes)


def compute_max_bytes(settings: Settings) -> int | None:
    """Returns how many bytes all topics together may use on the embedded broker. Returns None for other brokers, whose disks are unknown.

    The rest of the disk is for Kafka's metadata, for old segments that Kafka has not deleted yet, and for other programs.
    """
    if settings.kafka.bootstrap != "embedded":
        return None
    if settings.broker.max_bytes is not None:
        return settings.broker.max_bytes
    folder = settings.broker.data_dir.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    disk = os.statvfs(existing)
    return int(_DISK_SHARE * disk.f_blocks * disk.f_frsize)


def _limit_sizes(specs: list[TopicSpec], names: TopicNames, topics: TopicSettings, lines: int, max_bytes: int) -> list[TopicSpec]:
    """Returns `specs` with a size limit for each topic whose records expire. The topics of pictures get most of the space."""
    limited = []
    # A segment must be able to hold the largest record.
    smallest_segment = topics.max_message_bytes + 2**17
    for spec in specs:
        if spec.configs["cleanup.policy"] != "delete":
            limited.append(spec)
            continue
        kind = spec.name.removeprefix(f"{names.prefix}.").partition(".")[0]
        share = _SHARES.get(kind, _SMALL_SHARE) / (spec.partitions * (lines if kind in _KINDS_OF_A_LINE else 1))
        retention = max(int(share * max_bytes), 2 * smallest_segment)
        segment = min(max(retention // 8, smallest_segment), _LARGEST_SEGMENT)
        limited.append(replace(spec, configs={**spec.configs, "retention.bytes": str(retention), "segment.bytes": str(segment)}))
    return limited


def _make_spec(name: str, topics: TopicSettings, partitions: int, retention_ms: float | None) -> TopicSpec:
    """Returns a topic's declaration. A topic without `retention_ms` is compacted: Kafka keeps the last record of each key for ever."""
    if retention_ms is None:
        cleanup = {"cleanup.policy": "compact"}
    else:
        cleanup = {"cleanup.policy": "delete", "retention.ms": str(int(retention_ms))}
    # With replication 1, no other machine has a copy of a record. So the broker must force each record to its disk before it confirms
    # the record. Otherwise a power cut could lose confirmed records.
    flush = {"flush.messages": "1"} if topics.replication == 1 else {}
    # The broker unpacks each compressed batch, because the readers have no library for some kinds of compression. The size of the unpacked
    # batch is limited. Otherwise, a small compressed batch could fill the memory of the readers.
    formats = {"compression.type": "uncompressed", "max.message.bytes": str(topics.max_message_bytes)}
    return TopicSpec(name, partitions, topics.replication, {**cleanup, **flush, **formats})
