"""Generates two descriptions of the Kafka topics: `topics.md` for people and the AsyncAPI document `asyncapi.yaml` for tools.

Names, partitions and retention come from the code that creates the topics. Only this module lists which roles write and read a topic.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from docs.generator.markdown import make_page, make_table
from docs.generator.schemas import DIALECT, make_schema, schema_path
from streams.identity import LINE_PATTERN
from streams.records import RECORDS, Command, Finding, LiveLineSettings, ModelChoice, Record, Review, Sorting, Verdict
from streams.settings import LineSettings, Settings
from streams.topics import TopicNames, TopicSpec, declare_topics

_EXAMPLE_LINE = "line-1"
_HOUR_MS = 3_600_000
_PROJECT_FILE = Path(__file__).parents[2] / "pyproject.toml"

HeaderMeanings = Mapping[str, str]
_PART_KEY = "part id `<line>:<run>:<part>`, UTF-8"

IMAGE_HEADERS: HeaderMeanings = {
    "line": "Line of the part. A record needs the headers `line`, `run` and `part`, or a key that is the part id.",
    "run": "A whole number of at least 1: the boot count of the board, or the start time of the gateway in seconds if there is no board.",
    "part": "Number of the part, counted up from 1 within the run.",
    "captured_at": "Time of the picture, RFC 3339 with a time zone. If the header is missing, the Kafka timestamp of the record is used.",
    "content-type": "Media type of the picture. A wrong value does no harm, because the type is read from the picture itself.",
    "sha256": "SHA-256 of the encoded picture, 64 hexadecimal digits. A picture that does not match this header is refused.",
    "claim": "Address of the picture in the object store. With this header the value is empty.",
    "traceparent": "W3C trace context.",
    "truth": "Known label of a picture that was replayed from class folders. Audits use this header, and the inspector ignores it.",
}
CLOUD_EVENT_HEADERS: HeaderMeanings = {
    "content-type": "`application/json`.",
    "ce_specversion": "Version of CloudEvents, `1.0`.",
    "ce_type": "Name of the record's schema.",
    "ce_source": "The role that wrote the record, as `castline/<role>`.",
    "ce_id": "Id of the event. For a verdict it is the `verdict_id`.",
    "ce_time": "Time at which the record was made, RFC 3339, UTC.",
}
DEAD_LETTER_HEADERS: HeaderMeanings = {
    "dead-reason": "The reason in one word: `identity`, `verdict`, `command`, `not-a-record`, `other-line`, `reference`, `signature`, "
    "`refused-by-archive`, or why a picture cannot be judged. `reference` means that a record names a picture or a heat map that it must "
    "not name. `signature` means that no permitted role has signed the record. `handling-failed` means that a role failed on a valid "
    "record, and `refused-by-kafka` that Kafka did not take a record from a role.",
    "dead-detail": "What was expected and what was found, at most 1,024 bytes.",
    "dead-role": "The role that wrote the dead letter.",
    "dead-topic": "Topic of the original record.",
    "dead-partition": "Partition of the original record; -1 if Kafka did not take the record from a role.",
    "dead-offset": "Offset of the original record; -1 if Kafka did not take the record from a role.",
    "dead-at": "Time at which the dead letter was written, RFC 3339, UTC.",
    "dead-bytes": "Size of the original value, if the dead letter has only the first 65,536 bytes of the value.",
    "dead-sha256": "SHA-256 of the original value, if the dead letter has only its first bytes: 64 hexadecimal digits.",
}

_PAGE_INTRODUCTION = """The names of all topics begin with the setting `topics.prefix`, which is `castings` by default. In the table,
the part `{line}` stands for the name of a line, such as `line-1`. The table shows the default numbers of
partitions and the default retention, which the settings under [topics] change. Your own programs may read every topic, and the
page [analysts.md](analysts.md) shows how. The document [asyncapi.yaml](asyncapi.yaml) describes the same topics for tools."""
_ASYNCAPI_HEAD = "# Written by `python -m docs.generate` from the code; changes made here are lost.\n"


@dataclass(frozen=True)
class TopicDescription:
    """Describes a Kafka topic. If each line has its own topic of this kind, `address` contains `{line}`.

    `record` is the type of the JSON values, or None if the values are not JSON.
    """

    name: str
    address: str
    purpose: str
    key: str
    value: str
    headers: HeaderMeanings
    record: type[Record] | None
    writers: str
    readers: str
    spec: TopicSpec

    @property
    def is_per_line(self) -> bool:
        """True if each line has its own topic of this kind."""
        return "{line}" in self.address

    @property
    def is_compacted(self) -> bool:
        """True if the topic is compacted, which means that Kafka keeps only the newest record of each key."""
        return self.spec.configs["cleanup.policy"] == "compact"

    @property
    def retention(self) -> str:
        """The time for which Kafka keeps the records, in words, such as "7 days"."""
        if self.is_compacted:
            return "the last record of each key, without a time limit"
        hours = int(self.spec.configs["retention.ms"]) / _HOUR_MS
        return f"{hours:g} hours" if hours < 72 else f"{hours / 24:g} days"


def describe_topics() -> list[TopicDescription]:
    """Returns all topics with their default settings, in the order in which the records about a casting are written."""
    settings = Settings.model_construct(lines=(LineSettings(name=_EXAMPLE_LINE),))
    specs = {spec.name: spec for spec in declare_topics(settings)}
    names = TopicNames(settings.topics.prefix)

    def describe_json(name: str, topic: str, record: type[Record], writers: str, readers: str, key: str = _PART_KEY) -> TopicDescription:
        value = f"JSON `{record.name}`"
        address = _with_line_parameter(topic)
        purpose = _first_sentence(record)
        return TopicDescription(name, address, purpose, key, value, CLOUD_EVENT_HEADERS, record, writers, readers, specs[topic])

    images = TopicDescription(
        name="images",
        address=_with_line_parameter(names.images(_EXAMPLE_LINE)),
        purpose="One record for each picture.",
        key=f"{_PART_KEY}; may be absent if the headers give the part id",
        value="the encoded picture (JPEG, PNG, BMP or TIFF), or empty if the header `claim` is given",
        headers=IMAGE_HEADERS,
        record=None,
        writers="gateway, station; your programs",
        readers="inspector; localiser, archivist and station, single pictures",
        spec=specs[names.images(_EXAMPLE_LINE)],
    )
    dead_letters = TopicDescription(
        name="dead-letters",
        address=names.dead_letters,
        purpose="Records that could not be read or judged. A picture that cannot be judged also gets a verdict with the label `review`.",
        key="the key of the original record, cut to 1,024 bytes",
        value="the value of the original record; its first 65,536 bytes if the value does not fit into a Kafka record",
        headers=DEAD_LETTER_HEADERS,
        record=None,
        writers="inspector, sorter, archivist, localiser",
        readers="station, `castline dead-letters`",
        spec=specs[names.dead_letters],
    )
    return [
        images,
        describe_json("verdicts", names.verdicts(_EXAMPLE_LINE), Verdict, "inspector", "sorter, localiser, archivist, station"),
        describe_json("sorted", names.sorted(_EXAMPLE_LINE), Sorting, "sorter", "archivist, station; sorter, when it starts"),
        describe_json("findings", names.findings(_EXAMPLE_LINE), Finding, "localiser", "archivist, station"),
        dead_letters,
        describe_json("reviews", names.reviews, Review, "station", "archivist"),
        describe_json(
            "models",
            names.models,
            ModelChoice,
            "`castline models`, station",
            "inspector, localiser, station, archivist",
            key="the line, or `*`",
        ),
        describe_json(
            "lines",
            names.lines,
            LiveLineSettings,
            "`castline lines`, station",
            "inspector, localiser, archivist, station, `castline lines`",
            key="the line",
        ),
        describe_json("commands", names.commands, Command, "station, sorter", "sorter, station, archivist", key="the line"),
    ]


def _with_line_parameter(topic: str) -> str:
    return topic.replace(_EXAMPLE_LINE, "{line}")


def _first_sentence(record: type[Record]) -> str:
    """Returns the first sentence of the docstring of `record`."""
    return f"{(record.__doc__ or '').partition('. ')[0].strip()}."


def make_topics_page() -> dict[str, str]:
    """Returns the page `topics.md`: an overview of the topics, their headers, and the fields of all records."""
    overview = make_table(
        ("topic", "what", "value", "key", "partitions", "retention", "written by", "read by"),
        (
            (
                f"`{topic.address}`",
                topic.purpose,
                topic.value,
                topic.key,
                str(topic.spec.partitions),
                topic.retention,
                topic.writers,
                topic.readers,
            )
            for topic in describe_topics()
        ),
    )
    parts = [_PAGE_INTRODUCTION, overview, "## Headers", "All header values are UTF-8 text."]
    parts += _make_header_section("image records", IMAGE_HEADERS)
    parts += _make_header_section(
        "JSON records", CLOUD_EVENT_HEADERS, "The headers of JSON records follow the Kafka binding of CloudEvents in binary mode."
    )
    remark = (
        "A dead letter also keeps the headers of the original record, at most 32 headers of at most 1,024 bytes each.\n\nThe command "
        "`castline dead-letters redrive` sends dead letters to their original topics again. Each new record has the header "
        "`redriven-from`, which names the dead letter.\n\nThe command `castline dead-letters redrive` also writes marks to the topic of "
        "dead letters. A mark says that a dead letter was sent again. A mark is a record with an empty value and headers `redrive-…`, and "
        "it is not a dead letter."
    )
    parts += _make_header_section("dead letters", DEAD_LETTER_HEADERS, remark)
    parts.append("## Fields of the JSON records")
    for record in RECORDS:
        schema = make_schema(record)
        parts += [
            f"### `{record.name}`",
            _first_sentence(record),
            f"The JSON Schema of this record is [{schema_path(record)}]({schema_path(record)}).",
        ]
        parts.append(_make_field_table(schema))
        parts += [f"#### `{name}`\n\n{_make_field_table(inner)}" for name, inner in schema.get("$defs", {}).items()]
    return {"topics.md": make_page("Topics", *parts)}


def _make_header_section(title: str, headers: HeaderMeanings, remark: str = "") -> list[str]:
    rows = ((f"`{name}`", meaning) for name, meaning in headers.items())
    return [f"### Of {title}", *([remark] if remark else []), make_table(("header", "meaning"), rows)]


def _make_field_table(schema: dict[str, object]) -> str:
    properties, required = schema.get("properties"), schema.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    rows = (
        (f"`{name}`", _describe_type(field), "always" if name in required else "may be absent", field.get("description", ""))
        for name, field in properties.items()
    )
    return make_table(("field", "type", "present", "meaning"), rows)


def _describe_type(schema: dict[str, object]) -> str:
    """Returns the type of a field in words, without the bounds of its values."""
    for keyword in ("anyOf", "oneOf"):
        options = schema.get(keyword)
        if isinstance(options, list):
            return " or ".join(_describe_type(option) for option in options)
    values = schema.get("enum")
    if isinstance(values, list):
        return ", ".join(f"`{value}`" for value in values)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    items, inner = schema.get("items"), schema.get("additionalProperties")
    if schema.get("type") == "array" and isinstance(items, dict):
        return f"list of {_describe_type(items)}"
    if schema.get("type") == "object" and isinstance(inner, dict):
        return f"object of {_describe_type(inner)}"
    return str(schema.get("format", schema.get("type", "any")))


def make_asyncapi_file() -> dict[str, str]:
    """Returns the file `asyncapi.yaml`."""
    return {"asyncapi.yaml": _ASYNCAPI_HEAD + yaml.safe_dump(make_asyncapi(), sort_keys=False, allow_unicode=True, width=120)}


def make_asyncapi() -> dict[str, Any]:
    """Returns the AsyncAPI 3.0 document. It refers to the JSON Schemas by paths relative to the document."""
    topics = describe_topics()
    settings = Settings.model_construct()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Castline",
            "version": read_castline_version(),
            "description": "The Kafka topics through which castings are photographed, judged and sorted. The first part of each topic's "
            "name is the setting `topics.prefix`. Sizes and times are the defaults of their settings.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "embedded": {
                "host": f"127.0.0.1:{settings.broker.port}",
                "protocol": "kafka",
                "description": "The embedded broker of one machine. For another broker see the setting `kafka.bootstrap`.",
            }
        },
        "channels": {topic.name: _make_channel(topic) for topic in topics},
        "operations": dict(_make_operations(topics)),
        "components": {"messages": {topic.name: _make_message(topic) for topic in topics}},
    }


def read_castline_version() -> str:
    """Returns the version in pyproject.toml, because the installed package may be older."""
    project = tomllib.loads(_PROJECT_FILE.read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def _make_channel(topic: TopicDescription) -> dict[str, Any]:
    spec = topic.spec
    configuration = {
        "cleanup.policy": [spec.configs["cleanup.policy"]],
        **({} if topic.is_compacted else {"retention.ms": int(spec.configs["retention.ms"])}),
        "max.message.bytes": int(spec.configs["max.message.bytes"]),
    }
    line = {"parameters": {"line": {"description": f"Name of the line: {LINE_PATTERN}", "examples": [_EXAMPLE_LINE]}}}
    return {
        "address": topic.address,
        "description": f"{topic.purpose} Written by: {topic.writers}. Retention: {topic.retention}.",
        "messages": {topic.name: {"$ref": f"#/components/messages/{topic.name}"}},
        **(line if topic.is_per_line else {}),
        "bindings": {"kafka": {"partitions": spec.partitions, "replicas": spec.replication, "topicConfiguration": configuration}},
    }


def _make_message(topic: TopicDescription) -> dict[str, Any]:
    record = topic.record
    headers = {name: {"type": "string", "description": meaning} for name, meaning in topic.headers.items()}
    message: dict[str, Any] = {
        "name": record.name if record else topic.name,
        "summary": topic.value,
        "contentType": "application/json" if record else "application/octet-stream",
        "headers": {"type": "object", "properties": headers},
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}}},
    }
    if record:
        schema = {"$ref": f"./{schema_path(record)}"}
        message["payload"] = {"schemaFormat": f"application/schema+json;version={DIALECT.split('/')[-2]}", "schema": schema}
    return message


def _make_operations(topics: Iterable[TopicDescription]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yields the AsyncAPI operations. They let an analyst's program read every topic and send pictures."""
    for topic in topics:
        yield f"read-{topic.name}", _make_operation(topic, "receive", f"Read by: {topic.readers}.")
        if topic.name == "images":
            summary = "The smallest valid record has a key and the bytes of a picture."
            yield f"send-{topic.name}", _make_operation(topic, "send", summary)


def _make_operation(topic: TopicDescription, action: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{topic.name}"}],
    }
