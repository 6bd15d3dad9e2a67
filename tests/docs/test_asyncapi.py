"""The AsyncAPI document keeps to AsyncAPI 3.0 and to the topics.

There is no validator of it among Python's packages that holds a document to the official schema, so its objects are held here to
the names that the specification gives them; every reference is followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml

from docs.generator.schemas import path_of
from streams.records import RECORDS
from tests.docs.pages import DOCS

Node = dict[str, Any]

# Fixed fields of the specification's objects, https://www.asyncapi.com/docs/reference/specification/v3.0.0; True: required.
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
# https://github.com/asyncapi/bindings/blob/master/kafka/README.md
KAFKA_CHANNEL = {"topic": False, "partitions": False, "replicas": False, "topicConfiguration": False, "bindingVersion": False}
KAFKA_MESSAGE = {"key": False, "schemaIdLocation": False, "schemaIdPayloadEncoding": False, "schemaLookupStrategy": False}
KAFKA_TOPIC = {"cleanup.policy": False, "retention.ms": False, "retention.bytes": False, "delete.retention.ms": False}
KAFKA_TOPIC |= {"max.message.bytes": False}


def objects(document: Node) -> Iterator[tuple[str, Node, dict[str, bool]]]:
    """Every object of the document with its place and the fields it may have."""
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


def problems(document: Node) -> list[str]:
    """A sentence for each field that AsyncAPI does not know, and each that it misses."""
    found = []
    for place, node, fields in objects(document):
        found += [f"{place}: {name} is no field of AsyncAPI" for name in node if name not in fields]
        found += [f"{place}: {name} is missing" for name, required in fields.items() if required and name not in node]
    return found


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.fixture
def document() -> Node:
    found: Node = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    return found


def test_the_document_has_the_fields_of_asyncapi_and_no_others(document: Node) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert problems(document) == []


def test_a_misspelt_and_a_missing_field_are_found(document: Node) -> None:
    document["channels"]["images"]["adress"] = document["channels"]["images"].pop("address")
    del document["operations"]["read-images"]["action"]
    assert problems(document) == ["channels.images: adress is no field of AsyncAPI", "operations.read-images: action is missing"]


def test_every_reference_leads_somewhere(document: Node) -> None:
    found = list(references(document))
    assert len(found) > len(RECORDS)
    for reference in found:
        if reference.startswith("#/"):
            node: Any = document
            for step in reference.removeprefix("#/").split("/"):
                node = node[step]
        else:
            assert (DOCS / reference).is_file(), reference


def test_a_line_in_an_address_is_a_parameter_and_the_other_way_round(document: Node) -> None:
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
    assert sorted(payloads) == sorted(f"./{path_of(record)}" for record in RECORDS)


def test_headers_are_json_schema(document: Node) -> None:
    for message in document["components"]["messages"].values():
        jsonschema.Draft7Validator.check_schema(message["headers"])
        assert message["headers"]["properties"]
