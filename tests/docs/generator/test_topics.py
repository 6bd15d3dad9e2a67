"""Tests of the descriptions of the topics: the AsyncAPI document follows AsyncAPI 3.0, and all topics and headers are described.

No Python package validates a document by the official schema of AsyncAPI. These tests therefore compare the fields of its objects
with those of the specification, and follow every reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml

from docs.generator.schemas import schema_path
from docs.generator.topics import CLOUD_EVENT_HEADERS, DEAD_LETTER_HEADERS, IMAGE_HEADERS, describe_topics
from streams.identity import PartId, PictureIdentity, make_header_map, make_headers, read_identity
from streams.record_producer import ConsumedRecord, cut_dead_letter, make_dead_letter, make_json_record
from streams.records import RECORDS, ModelChoice
from streams.settings import LineSettings, Settings
from streams.topics import TopicNames, declare_topics
from tests.docs.pages import DOCS

Node = dict[str, Any]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

# The fields of each object of the specification, with True for a required field.
# Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
DOCUMENT = {"asyncapi": True, "id": False, "info": True, "servers": False, "defaultContentType": False, "channels": False}
DOCUMENT |= {"operations": False, "components": False}
COMMON = {"title": False, "summary": False, "description": False, "tags": False, "externalDocs": False, "bindings": False}
INFO = {"title": True, "version": True, "description": False, "termsOfService": False, "contact": False, "license": False, "tags": False}
INFO |= {"externalDocs": False}
SERVER = {**COMMON, "host": True, "protocol": True, "protocolVersion": False, "pathname": False, "variables": False, "security": False}
CHANNEL = {**COMMON, "address": False, "messages": False, "servers": False, "parameters": False}
PARAMETER = {"enum": False, "default": False, "description": False, "examples": False, "location": False}
OPERATION = {**COMMON, "action": True, "channel": True, "security": False, "traits": False, "messages": False, "reply": False}
MESSAGE = {**COMMON, "headers": False, "payload": False, "correlationId": False, "contentType": False, "name": False, "examples": False}
MESSAGE |= {"traits": False}
MULTI_FORMAT = {"schemaFormat": True, "schema": True}
# Source of the Kafka bindings: https://github.com/asyncapi/bindings/blob/master/kafka/README.md
KAFKA_CHANNEL = {"topic": False, "partitions": False, "replicas": False, "topicConfiguration": False, "bindingVersion": False}
KAFKA_MESSAGE = {"key": False, "schemaIdLocation": False, "schemaIdPayloadEncoding": False, "schemaLookupStrategy": False}
KAFKA_TOPIC = {"cleanup.policy": False, "retention.ms": False, "retention.bytes": False, "delete.retention.ms": False}
KAFKA_TOPIC |= {"max.message.bytes": False}


def list_objects(document: Node) -> Iterator[tuple[str, Node, dict[str, bool]]]:
    """Yields the place of each object in the document, the object, and the fields that it may have."""
    yield "document", document, DOCUMENT
    yield "info", document["info"], INFO
    for name, server in document["servers"].items():
        yield f"servers.{name}", server, SERVER
    for name, channel in document["channels"].items():
        yield f"channels.{name}", channel, CHANNEL
        yield f"channels.{name}.bindings.kafka", channel["bindings"]["kafka"], KAFKA_CHANNEL
        yield f"channels.{name}.bindings.kafka.topicConfiguration", channel["bindings"]["kafka"]["topicConfiguration"], KAFKA_TOPIC
        for parameter, described in channel.get("parameters", {}).items():
            yield f"channels.{name}.parameters.{parameter}", described, PARAMETER
    for name, operation in document["operations"].items():
        yield f"operations.{name}", operation, OPERATION
    for name, message in document["components"]["messages"].items():
        yield f"messages.{name}", message, MESSAGE
        yield f"messages.{name}.bindings.kafka", message["bindings"]["kafka"], KAFKA_MESSAGE
        if "payload" in message:
            yield f"messages.{name}.payload", message["payload"], MULTI_FORMAT


def find_problems(document: Node) -> list[str]:
    """Returns a sentence for each unknown field and for each missing field."""
    found = []
    for place, node, fields in list_objects(document):
        found += [f"{place}: {name} is no field of AsyncAPI" for name in node if name not in fields]
        found += [f"{place}: {name} is missing" for name, required in fields.items() if required and name not in node]
    return found


def find_references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            else:
                yield from find_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from find_references(value)


@pytest.fixture
def document() -> Node:
    found: Node = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    return found


def test_the_document_has_the_fields_of_asyncapi_and_no_others(document: Node) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert find_problems(document) == []


def test_a_misspelt_and_a_missing_field_are_found(document: Node) -> None:
    document["channels"]["images"]["adress"] = document["channels"]["images"].pop("address")
    del document["operations"]["read-images"]["action"]
    assert find_problems(document) == ["channels.images: adress is no field of AsyncAPI", "operations.read-images: action is missing"]


def test_every_reference_leads_somewhere(document: Node) -> None:
    found = list(find_references(document))
    assert len(found) > len(RECORDS)
    for reference in found:
        if reference.startswith("#/"):
            node: Any = document
            for step in reference.removeprefix("#/").split("/"):
                node = node[step]
        else:
            assert (DOCS / reference).is_file(), reference


def test_the_parameters_of_a_channel_are_those_of_its_address(document: Node) -> None:
    for channel in document["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == set(channel.get("parameters", {}))


def test_operations_are_about_messages_of_their_channel(document: Node) -> None:
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{operation['channel']['$ref']}/messages/")
    assert {operation["channel"]["$ref"] for operation in document["operations"].values()} == {
        f"#/channels/{name}" for name in document["channels"]
    }


def test_every_record_is_the_payload_of_one_channel(document: Node) -> None:
    payloads = [message["payload"]["schema"]["$ref"] for message in document["components"]["messages"].values() if "payload" in message]
    assert sorted(payloads) == sorted(f"./{schema_path(record)}" for record in RECORDS)


def test_headers_are_json_schema(document: Node) -> None:
    for message in document["components"]["messages"].values():
        jsonschema.Draft7Validator.check_schema(message["headers"])
        assert message["headers"]["properties"]


def test_every_topic_is_described() -> None:
    settings = Settings(lines=(LineSettings(name="line-1"),))
    addresses = {topic.address for topic in describe_topics()}
    assert addresses == {spec.name.replace("line-1", "{line}") for spec in declare_topics(settings)}
    names = {name for name in vars(TopicNames) if not name.startswith("_") and name != "prefix"}
    assert len(describe_topics()) == len(names), "a topic has a name but is not declared"


def test_the_described_image_headers_are_those_that_are_written_and_read() -> None:
    part = PartId("line-1", 7, 1)
    identity = PictureIdentity(part, NOW, "image/jpeg", "0" * 64, "claim", "00-0-0-00")
    headers = make_headers(identity, {"truth": "ok"})
    assert [name for name, _ in headers] == list(IMAGE_HEADERS)
    assert read_identity(part.key, make_header_map(headers), "line-1") == identity


def test_the_described_headers_of_json_records_are_those_that_are_written() -> None:
    record = ModelChoice(line="*", version="v1", chosen_by="somebody", chosen_at=NOW)
    headers = make_json_record("castings.models", b"*", record, "inspector").headers
    assert [name for name, _ in headers] == list(CLOUD_EVENT_HEADERS)


def test_the_described_headers_of_dead_letters_are_those_that_are_written() -> None:
    original = ConsumedRecord("castings.images.line-1", 0, 1, b"key", b"too long", {})
    dead_letter = cut_dead_letter(make_dead_letter("castings.dead-letters", original, "inspector", "identity", "no part"), 1)
    assert [name for name, _ in dead_letter.headers] == list(DEAD_LETTER_HEADERS)
