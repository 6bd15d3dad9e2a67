"""The records of the topics of a run, from Kafka or from the dump in the folder of the run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from tests.campaign_judge.recording import Plan, read_lines

_POLL_MS = 1000
_READ_TIMEOUT_MS = 30_000


@dataclass(frozen=True)
class TopicRecord:
    """A record of a topic. `at` is its Kafka timestamp in seconds. `sha256` is the checksum of the value that was stored."""

    topic: str
    partition: int
    offset: int
    at: float
    value: bytes | None
    sha256: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset

    @property
    def name(self) -> str:
        return f"{self.topic}, partition {self.partition}, offset {self.offset}"

    @property
    def picture_sha256(self) -> str:
        """The checksum of the picture. A large picture lies in the object store, and only the header has its checksum."""
        return self.headers.get("sha256", "") if "claim" in self.headers else self.sha256


@dataclass(frozen=True)
class JsonRecord:
    """A record with JSON fields about a part."""

    record: TopicRecord
    fields: dict[str, Any]

    @property
    def part(self) -> tuple[str, int, int]:
        return self.fields["line"], self.fields["run"], self.fields["part"]

    @property
    def image(self) -> dict[str, Any]:
        """For a verdict: the picture that was judged."""
        image = self.fields.get("image")
        return image if isinstance(image, dict) else {}

    @property
    def image_place(self) -> tuple[str, int, int]:
        """For a verdict: topic, partition and offset of the image record."""
        return str(self.image.get("topic")), int(self.image.get("partition", -1)), int(self.image.get("offset", -1))


@dataclass
class Topics:
    """The records of all topics, in the order of their offsets, without the records that the campaign itself has written."""

    images: list[TopicRecord] = field(default_factory=list)
    verdicts: list[JsonRecord] = field(default_factory=list)
    # The verdicts about image records that the campaign itself has written.
    injected_verdicts: list[JsonRecord] = field(default_factory=list)
    sortings: list[JsonRecord] = field(default_factory=list)
    dead_letters: list[TopicRecord] = field(default_factory=list)
    # Records of verdicts and sortings that are no JSON objects about a part.
    unreadable: list[TopicRecord] = field(default_factory=list)
    injected_images: list[TopicRecord] = field(default_factory=list)
    repeated_offsets: list[TopicRecord] = field(default_factory=list)


def read_topics(folder: Path, plan: Plan, injected: set[tuple[str, int, int]], bootstrap: str = "") -> Topics:
    """Returns the records of the run. If the folder has no dump, reads the topics from Kafka first, and dumps them."""
    names = {kind: [f"{plan.prefix}.{kind}.{line}" for line in plan.lines] for kind in ("images", "verdicts", "sorted")} | {
        "dead-letters": [f"{plan.prefix}.dead-letters"]
    }
    if not (folder / "topics").is_dir():
        _dump_topics(folder / "topics", [name for group in names.values() for name in group], bootstrap or plan.bootstrap)
    topics = Topics()
    for kind, group in names.items():
        for name in group:
            seen: set[tuple[str, int, int]] = set()
            for record in sorted(_read_dump(folder / "topics" / f"{name}.jsonl", name), key=lambda record: record.place):
                if record.place in seen:
                    topics.repeated_offsets.append(record)
                seen.add(record.place)
                _add(topics, kind, record, record.place in injected)
    topics.injected_verdicts = [verdict for verdict in topics.verdicts if verdict.image_place in injected]
    topics.verdicts = [verdict for verdict in topics.verdicts if verdict.image_place not in injected]
    return topics


def _add(topics: Topics, kind: str, record: TopicRecord, is_injected: bool) -> None:
    if kind == "images":
        (topics.injected_images if is_injected else topics.images).append(record)
    elif is_injected:
        return
    elif kind == "dead-letters":
        if not any(name.startswith("redrive-") for name in record.headers):
            topics.dead_letters.append(record)
    elif (fields := _read_fields(record.value)) is None:
        topics.unreadable.append(record)
    else:
        (topics.verdicts if kind == "verdicts" else topics.sortings).append(JsonRecord(record, fields))


def _read_fields(value: bytes | None) -> dict[str, Any] | None:
    try:
        fields = json.loads(value or b"")
    except ValueError:
        return None
    is_about_part = isinstance(fields, dict) and isinstance(fields.get("line"), str)
    return fields if is_about_part and all(isinstance(fields.get(name), int) for name in ("run", "part")) else None


def _read_dump(file: Path, topic: str) -> Iterator[TopicRecord]:
    for line in read_lines(file):
        value = None if line.get("value") is None else base64.b64decode(line["value"])
        sha256 = line.get("sha256") or hashlib.sha256(value or b"").hexdigest()
        headers = {name: base64.b64decode(text or "").decode(errors="replace") for name, text in line.get("headers") or ()}
        yield TopicRecord(topic, int(line["partition"]), int(line["offset"]), float(line["timestamp"]) / 1000, value, sha256, headers)


def _dump_topics(folder: Path, names: list[str], bootstrap: str) -> None:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, request_timeout_ms=_READ_TIMEOUT_MS)
    try:
        texts = {name: [_dump_record(record) for record in _read_topic(consumer, name)] for name in names}
    finally:
        consumer.close()
    folder.mkdir()
    for name, lines in texts.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _read_topic(consumer: Any, topic: str) -> Iterator[Any]:
    places = [TopicPartition(topic, partition) for partition in sorted(consumer.partitions_for_topic(topic) or ())]
    if not places:
        return
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    while any(consumer.position(place) < ends[place] for place in places):
        for records in consumer.poll(timeout_ms=_POLL_MS).values():
            yield from records


def _dump_record(record: Any) -> dict[str, Any]:
    value = record.value
    is_picture = ".images." in record.topic
    line = {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": _encode(record.key),
        "value": None if is_picture else _encode(value),
        "headers": [(name, _encode(content)) for name, content in record.headers],
    }
    return line | ({"sha256": hashlib.sha256(value or b"").hexdigest()} if is_picture else {})


def _encode(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
