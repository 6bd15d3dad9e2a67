"""The published schemas, as a program of somebody else's would use them."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped, unused-ignore]

from docs.generator.schemas import path_of
from streams.records import Record
from tests.docs.pages import DOCS


def published(record: type[Record]) -> jsonschema.Draft202012Validator:
    """What checks values of `record` by its page's schema, which is first checked to be one."""
    schema = json.loads((DOCS / path_of(record)).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)
