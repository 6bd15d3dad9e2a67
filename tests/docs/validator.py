"""Validates records by the published schemas, as a foreign program would."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped, unused-ignore]

from docs.generator.schemas import schema_path
from streams.records import Record
from tests.docs.pages import DOCS


def make_validator(record: type[Record]) -> jsonschema.Draft202012Validator:
    """Returns a validator of the published schema of `record`, after checking that the file is a valid JSON Schema."""
    schema = json.loads((DOCS / schema_path(record)).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)
