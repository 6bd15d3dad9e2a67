"""Generates the JSON Schemas of the records, and compares them with the schemas of earlier releases.

Programs rely on a released schema such as `castline.verdict.v1`. A later release may add optional fields to it, but must not change
anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streams.records import RECORDS, Record

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = Mapping[str, Any]

# A later release may change these keywords of JSON Schema, because they only describe a record. They make no record invalid.
_FREE_KEYWORDS = frozenset({"title", "description", "examples", "$comment", "$schema", "$id", "$defs"})


def schema_path(record: type[Record]) -> str:
    """Returns the path of the record's schema file in the folder `docs/`."""
    return f"schemas/{record.name}.schema.json"


def make_schema(record: type[Record]) -> dict[str, Any]:
    """Returns the JSON Schema with which a program can check that it understands a record.

    The names of the fields are those in the JSON record. The record may have fields that the schema does not name. A field that was added
    in a later release is not required, because older records do not have it.
    """
    schema = record.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, "$id": f"urn:castline:{record.name}", **schema, "title": record.name}


def make_schemas() -> dict[str, dict[str, Any]]:
    """Returns the schemas of all records. The keys are the names of the records."""
    return {record.name: make_schema(record) for record in RECORDS}


def make_schema_files() -> dict[str, str]:
    """Returns the texts of all schema files. The keys are their paths in the folder `docs/`."""
    return {schema_path(record): json.dumps(make_schema(record), indent=2, sort_keys=True, ensure_ascii=False) + "\n" for record in RECORDS}


def find_broken_promises(released: Path, schemas: Mapping[str, Schema]) -> list[str]:
    """Returns a sentence for each forbidden difference between `schemas` and the schemas of earlier releases.

    The folder `released` holds the earlier schemas as `<release>/<record>.schema.json`.
    """
    problems = []
    for file in sorted(released.glob("*/*.schema.json")):
        name, schema = file.name.removesuffix(".schema.json"), json.loads(file.read_text(encoding="utf-8"))
        prefix = f"{name} of release {file.parent.name}"
        if name in schemas:
            problems += [f"{prefix}: {problem}" for problem in find_breaking_changes(schema, schemas[name])]
        else:
            problems.append(f"{prefix}: the record is not published any more")
    return problems


def find_breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Returns a sentence for each difference between two schemas. Ignores added optional fields, because they are allowed."""
    return list(_compare(old, new, old, new, ""))


def _compare(old: Schema, new: Schema, old_root: Schema, new_root: Schema, place: str) -> Iterator[str]:
    old, new = _resolve(old, old_root), _resolve(new, new_root)
    title = place or "the record"
    for keyword in sorted((old.keys() | new.keys()) - _FREE_KEYWORDS - {"properties", "required"}):
        yield from _compare_keyword(keyword, old.get(keyword), new.get(keyword), old_root, new_root, place)
    if set(old.get("required", ())) != set(new.get("required", ())):
        yield f"{title}: expected required {sorted(old.get('required', ()))}, found {sorted(new.get('required', ()))}"
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    for name, field in old_fields.items():
        field_place = f"{place}.{name}".lstrip(".")
        if name in new_fields:
            yield from _compare(field, new_fields[name], old_root, new_root, field_place)
        else:
            yield f"{field_place}: the field was removed"


def _compare_keyword(keyword: str, old: Any, new: Any, old_root: Schema, new_root: Schema, place: str) -> Iterator[str]:
    if keyword in ("anyOf", "prefixItems") and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for old_option, new_option in zip(old, new, strict=True):
            yield from _compare(old_option, new_option, old_root, new_root, place)
    elif keyword in ("items", "additionalProperties") and isinstance(old, dict) and isinstance(new, dict):
        yield from _compare(old, new, old_root, new_root, f"{place}[]")
    elif old != new:
        yield f"{place or 'the record'}: expected {keyword} {json.dumps(old)}, found {json.dumps(new)}"


def _resolve(schema: Schema, root: Schema) -> Schema:
    """Returns the definition behind the `$ref` in `schema`, or `schema` itself if it has no `$ref`."""
    if "$ref" not in schema:
        return schema
    target: Schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
