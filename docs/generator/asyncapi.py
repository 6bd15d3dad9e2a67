"""The AsyncAPI document: all topics, for tools."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from docs.generator.channels import Channel, channels
from docs.generator.schemas import DIALECT, path_of
from streams.identity import LINE_PATTERN
from streams.settings import Settings

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_HEAD = "# Written by `python -m docs.generate` from the code; changes made here are lost.\n"


def document() -> dict[str, Any]:
    """AsyncAPI 3.0. The schemas are referred to by their place beside the document."""
    found = channels()
    settings = Settings.model_construct()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Castline",
            "version": castline_version(),
            "description": "The topics that castings are photographed, judged and sorted through. The first part of each name is "
            "the setting `topics.prefix`; the sizes and times are the defaults of their settings.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "embedded": {
                "host": f"127.0.0.1:{settings.broker.port}",
                "protocol": "kafka",
                "description": "The embedded broker of one machine; elsewhere what the setting `kafka.bootstrap` names.",
            }
        },
        "channels": {channel.name: _channel(channel) for channel in found},
        "operations": dict(_operations(found)),
        "components": {"messages": {channel.name: _message(channel) for channel in found}},
    }


def castline_version() -> str:
    """The version of this tree, which may be newer than the installed one."""
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def pages() -> dict[str, str]:
    return {"asyncapi.yaml": _HEAD + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120)}


def _channel(channel: Channel) -> dict[str, Any]:
    spec = channel.spec
    compacted = spec.configs["cleanup.policy"] == "compact"
    topic = {
        "cleanup.policy": [spec.configs["cleanup.policy"]],
        **({} if compacted else {"retention.ms": int(spec.configs["retention.ms"])}),
        "max.message.bytes": int(spec.configs["max.message.bytes"]),
    }
    line = {"parameters": {"line": {"description": f"Name of the line: {LINE_PATTERN}", "examples": ["line-1"]}}}
    return {
        "address": channel.address,
        "description": f"{channel.purpose} Written by: {channel.writers}. Kept: {channel.keeping}.",
        "messages": {channel.name: {"$ref": f"#/components/messages/{channel.name}"}},
        **(line if channel.per_line else {}),
        "bindings": {"kafka": {"partitions": spec.partitions, "replicas": spec.replication, "topicConfiguration": topic}},
    }


def _message(channel: Channel) -> dict[str, Any]:
    record = channel.record
    headers = {name: {"type": "string", "description": meaning} for name, meaning in channel.headers.items()}
    message: dict[str, Any] = {
        "name": record.name if record else channel.name,
        "summary": channel.value,
        "contentType": "application/json" if record else "application/octet-stream",
        "headers": {"type": "object", "properties": headers},
        "bindings": {"kafka": {"key": {"type": "string", "description": channel.key}}},
    }
    if record:
        schema = {"$ref": f"./{path_of(record)}"}
        message["payload"] = {"schemaFormat": f"application/schema+json;version={DIALECT.split('/')[-2]}", "schema": schema}
    return message


def _operations(found: Iterable[Channel]) -> Iterable[tuple[str, dict[str, Any]]]:
    # An application that is not Castline's may read every topic, and write pictures.
    for channel in found:
        yield f"read-{channel.name}", _operation(channel, "receive", f"Read by: {channel.readers or 'your programs'}.")
        if channel.name == "images":
            yield f"send-{channel.name}", _operation(channel, "send", "The smallest valid record: a key and the picture's bytes.")


def _operation(channel: Channel, action: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{channel.name}"}],
    }
