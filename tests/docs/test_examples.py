"""Tests that the examples of every release are valid by today's schemas and readable by today's readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest

from streams.records import RECORDS, Record
from tests.docs.pages import DOCS
from tests.docs.validator import make_validator

BY_NAME = {record.name: record for record in RECORDS}
EXAMPLES = sorted((DOCS / "examples").glob("*/*.json"))
Value = dict[str, Any]


def find_record(example: Path) -> type[Record]:
    """Returns the record type of an example: `castline.verdict.v1.defect.json` is an example of `castline.verdict.v1`."""
    return BY_NAME[example.stem.rpartition(".")[0]]


def read(example: Path) -> Value:
    found: Value = json.loads(example.read_text())
    return found


def keep_known_fields(written: Any, released: Any) -> Any:
    """Returns `written` without the fields that were added after the release, also in objects within objects and lists."""
    if isinstance(written, dict) and isinstance(released, dict):
        return {name: keep_known_fields(written[name], value) for name, value in released.items()}
    if isinstance(written, list) and isinstance(released, list) and len(written) == len(released):
        return [keep_known_fields(new, old) for new, old in zip(written, released, strict=True)]
    return written


every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.parent.name}-{example.stem}")


def test_every_released_schema_has_an_example() -> None:
    released = {(file.parent.name, file.name.removesuffix(".schema.json")) for file in (DOCS / "schemas" / "released").glob("*/*.json")}
    assert released
    assert released == {(example.parent.name, find_record(example).name) for example in EXAMPLES}


@every_example
def test_an_example_is_valid_by_its_published_schema(example: Path) -> None:
    make_validator(find_record(example)).validate(read(example))


@every_example
def test_an_example_is_valid_by_the_schema_of_its_release(example: Path) -> None:
    released = DOCS / "schemas" / "released" / example.parent.name / f"{find_record(example).name}.schema.json"
    jsonschema.Draft202012Validator(json.loads(released.read_text())).validate(read(example))


@every_example
def test_an_example_is_unchanged_after_reading_and_writing(example: Path) -> None:
    record = find_record(example)
    value = read(example)
    decoded = record.decode(example.read_bytes())
    written = json.loads(decoded.encode())
    assert keep_known_fields(written, value) == value
    assert record.decode(decoded.encode()) == decoded


@every_example
def test_an_unknown_field_harms_no_reader(example: Path) -> None:
    record = find_record(example)
    later = add_unknown_fields(read(example))
    make_validator(record).validate(later)
    assert record.decode(json.dumps(later).encode()) == record.decode(example.read_bytes())


def add_unknown_fields(value: Any) -> Any:
    """Returns `value` with an unknown field in every object except `votes`, whose field names are those of the networks."""
    if isinstance(value, list):
        return [add_unknown_fields(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {name: field if name == "votes" else add_unknown_fields(field) for name, field in value.items()}
    return {**inner, "added_later": {"by": "a newer release"}}


@every_example
def test_a_record_without_a_required_field_is_refused_by_schema_and_reader(example: Path) -> None:
    record = find_record(example)
    validator = make_validator(record)
    for name in validator.schema["required"]:
        value = {field: found for field, found in read(example).items() if field != name}
        assert not validator.is_valid(value), name
        with pytest.raises(ValueError, match=name):
            record.decode(json.dumps(value).encode())
