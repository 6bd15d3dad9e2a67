"""The topics as readers and writers meet them: address, key, headers, who writes, who reads, keeping.

Names, partitions and keeping come from the code that makes the topics; who writes and reads them is said here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streams.records import Finding, ModelChoice, Record, Review, Sorting, Verdict
from streams.settings import LineSettings, Settings
from streams.topics import TopicNames, TopicSpec, declare_topics

_LINE = "line-1"
_HOUR_MS = 3_600_000

Fields = Mapping[str, str]
_PART = "part id `<line>:<run>:<part>`, UTF-8"

# The headers of image records. Those that streams.identity reads; a test holds the two together.
IMAGE_HEADERS: Fields = {
    "line": "Line of the part. `line`, `run` and `part` come together, or none of them and the key says it.",
    "run": "The board's boot count, or the gateway's start time in seconds: a whole number of at least 1.",
    "part": "Counts up from 1 within the run.",
    "captured_at": "When the picture was taken, RFC 3339 with zone; where absent, the record's Kafka time.",
    "content-type": "Media type of the picture. The bytes decide: a wrong one does no harm.",
    "sha256": "SHA-256 of the encoded picture, 64 hexadecimal digits; checked where given.",
    "claim": "Address of the picture in the object store; then the value is empty.",
    "traceparent": "W3C trace context.",
    "truth": "Known label of a picture from a folder of classes; for checks afterwards, never read by the inspector.",
}
CLOUD_EVENT_HEADERS: Fields = {
    "content-type": "`application/json`.",
    "ce_specversion": "Version of CloudEvents, `1.0`.",
    "ce_type": "Name of the record's schema.",
    "ce_source": "`castline/<role>` that wrote the record.",
    "ce_id": "Id of the event: a verdict's is its `verdict_id`.",
    "ce_time": "When the record was made, RFC 3339, UTC.",
}
DEAD_LETTER_HEADERS: Fields = {
    "dead-reason": "Why, in a word: `identity`, `verdict`, or why a picture cannot be judged.",
    "dead-detail": "What was expected and what was found, at most 1,024 bytes.",
    "dead-role": "Role that parked the record.",
    "dead-topic": "Topic that the record came from.",
    "dead-partition": "Its partition there.",
    "dead-offset": "Its offset there.",
    "dead-at": "When it was parked, RFC 3339, UTC.",
}


@dataclass(frozen=True)
class Channel:
    """One topic, or one for each line: then its address has the parameter `{line}`. `record` is None where the value is no JSON."""

    name: str
    address: str
    purpose: str
    key: str
    value: str
    headers: Fields
    record: type[Record] | None
    writers: str
    readers: str
    spec: TopicSpec

    @property
    def per_line(self) -> bool:
        return "{line}" in self.address

    @property
    def keeping(self) -> str:
        """How long records are kept, in words."""
        if self.spec.configs["cleanup.policy"] == "compact":
            return "the last of each key, for ever"
        hours = int(self.spec.configs["retention.ms"]) / _HOUR_MS
        return f"{hours:g} hours" if hours < 72 else f"{hours / 24:g} days"


def channels() -> list[Channel]:
    """All topics with the default settings, in the order that a casting meets them."""
    settings = Settings.model_construct(lines=(LineSettings(name=_LINE),))
    specs = {spec.name: spec for spec in declare_topics(settings)}
    names = TopicNames(settings.topics.prefix)

    def pictures(topic: str) -> Channel:
        value = "the encoded picture as it is (JPEG, PNG, BMP, TIFF); or empty, with the header `claim`"
        key = f"{_PART}; may be absent where the headers name the part"
        purpose = "One record a picture."
        writers, readers = "gateway; a producer of yours", "inspector"
        return Channel("images", _parametrised(topic), purpose, key, value, IMAGE_HEADERS, None, writers, readers, specs[topic])

    def letters(topic: str) -> Channel:
        key = "the record's own, at most 1,024 bytes of it"
        purpose = "What could not be read or judged. An unreadable picture has a verdict `review` all the same."
        value = "the bytes as they came"
        return Channel("dead-letters", topic, purpose, key, value, DEAD_LETTER_HEADERS, None, "inspector, sorter", "", specs[topic])

    def records(name: str, topic: str, record: type[Record], writers: str, readers: str, key: str = _PART) -> Channel:
        purpose = _first_clause(record)
        value = f"JSON `{record.name}`"
        return Channel(name, _parametrised(topic), purpose, key, value, CLOUD_EVENT_HEADERS, record, writers, readers, specs[topic])

    return [
        pictures(names.images(_LINE)),
        records("verdicts", names.verdicts(_LINE), Verdict, "inspector", "sorter"),
        records("sorted", names.sorted(_LINE), Sorting, "sorter", "sorter, after its start"),
        records("findings", names.findings(_LINE), Finding, "inspector, in idle time", ""),
        letters(names.dead_letters),
        records("reviews", names.reviews, Review, "station", "archivist"),
        records("models", names.models, ModelChoice, "`castline models`", "inspector", key="the line, or `*`"),
    ]


def _parametrised(topic: str) -> str:
    return topic.replace(_LINE, "{line}")


def _first_clause(record: type[Record]) -> str:
    """What the record's docstring says of it, without the name of its topic."""
    return f"{(record.__doc__ or '').partition(';')[0].strip()}."
