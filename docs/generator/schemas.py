"""The JSON Schemas of the records, as Castline publishes them."""

from __future__ import annotations

import json
from typing import Any

from streams.records import RECORDS, Record

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def path_of(record: type[Record]) -> str:
    """Where the record's schema lies below `docs/`."""
    return f"schemas/{record.name}.schema.json"


def schema_of(record: type[Record]) -> dict[str, Any]:
    """The record's schema by its names on the wire.

    As a reader needs it: a field that came later, or may be left out, is not required, and unknown fields are allowed.
    """
    found = record.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, "$id": f"urn:castline:{record.name}", **found, "title": record.name}


def published() -> dict[str, dict[str, Any]]:
    """All schemas, by the record's name."""
    return {record.name: schema_of(record) for record in RECORDS}


def pages() -> dict[str, str]:
    return {path_of(record): json.dumps(schema_of(record), indent=2, sort_keys=True, ensure_ascii=False) + "\n" for record in RECORDS}
