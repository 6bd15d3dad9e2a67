"""The page of the topics, for people."""

from __future__ import annotations

from docs.generator.channels import CLOUD_EVENT_HEADERS, DEAD_LETTER_HEADERS, IMAGE_HEADERS, Fields, channels
from docs.generator.schemas import path_of, schema_of
from docs.generator.tables import page, table
from streams.records import RECORDS

_INTRODUCTION = """`castings` is the default of the setting `topics.prefix`; `{line}` is the name of a line, such as `line-1`.
Partitions and keeping are the defaults of `topics.image_partitions`, `topics.image_hours` and `topics.record_days`. The same for tools:
[asyncapi.yaml](asyncapi.yaml). How to read them: [analysts.md](analysts.md)."""


def pages() -> dict[str, str]:
    found = channels()
    overview = table(
        ("topic", "what", "value", "key", "partitions", "kept", "written by", "read by"),
        (
            (
                f"`{one.address}`",
                one.purpose,
                one.value,
                one.key,
                str(one.spec.partitions),
                one.keeping,
                one.writers,
                one.readers or "your programs",
            )
            for one in found
        ),
    )
    parts = [_INTRODUCTION, overview]
    parts += ["## Headers", "All header values are UTF-8 text."]
    parts += _headers("image records", IMAGE_HEADERS)
    parts += _headers("JSON records", CLOUD_EVENT_HEADERS, "CloudEvents' Kafka binding, binary mode.")
    parts += _headers("dead letters", DEAD_LETTER_HEADERS, "The record's own headers are kept beside them (32 at most, 1,024 bytes each).")
    parts.append("## Fields of the JSON records")
    for record in RECORDS:
        parts += [f"### `{record.name}`", _first_line(record.__doc__), f"Schema: [{path_of(record)}]({path_of(record)})."]
        parts.append(_fields(schema_of(record)))
        parts += [f"#### `{name}`\n\n{_fields(inner)}" for name, inner in schema_of(record).get("$defs", {}).items()]
    return {"topics.md": page("Topics", *parts)}


def _headers(whose: str, headers: Fields, remark: str = "") -> list[str]:
    rows = ((f"`{name}`", meaning) for name, meaning in headers.items())
    return [f"### Of {whose}", *([remark] if remark else []), table(("header", "meaning"), rows)]


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _fields(schema: dict[str, object]) -> str:
    properties, required = schema.get("properties"), schema.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    rows = (
        (f"`{name}`", _kind(found), "always" if name in required else "may be absent", found.get("description", ""))
        for name, found in properties.items()
    )
    return table(("field", "type", "present", "meaning"), rows)


def _kind(found: dict[str, object]) -> str:
    """The type of a field in words, without its bounds: those are in the schema."""
    for word in ("anyOf", "oneOf"):
        options = found.get(word)
        if isinstance(options, list):
            return " or ".join(_kind(option) for option in options)
    values = found.get("enum")
    if isinstance(values, list):
        return ", ".join(f"`{value}`" for value in values)
    if "const" in found:
        return f"`{found['const']}`"
    if "$ref" in found:
        return str(found["$ref"]).rpartition("/")[2]
    items, inner = found.get("items"), found.get("additionalProperties")
    if found.get("type") == "array" and isinstance(items, dict):
        return f"list of {_kind(items)}"
    if found.get("type") == "object" and isinstance(inner, dict):
        return f"object of {_kind(inner)}"
    return str(found.get("format", found.get("type", "any")))
