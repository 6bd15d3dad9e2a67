"""Tests that changes that break the promise of a released schema are found, and that such a schema is not written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from docs import generate
from docs.generator.schemas import find_breaking_changes, find_broken_promises, make_schemas
from tests.docs.pages import DOCS

RELEASED = DOCS / "schemas" / "released"
VERDICT = "castline.verdict.v1"


@pytest.fixture
def verdict() -> dict[str, Any]:
    """Returns a copy of today's schema of a verdict, which a test may change."""
    return copy.deepcopy(make_schemas()[VERDICT])


def test_todays_schemas_keep_the_promises_of_every_release() -> None:
    assert find_broken_promises(RELEASED, make_schemas()) == []


def test_a_new_optional_field_breaks_nothing(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["properties"]["shift"] = {"type": "string", "default": ""}
    verdict["$defs"]["ImageReference"]["properties"]["colour"] = {"type": "string", "default": ""}
    verdict["properties"]["label"]["description"] = "A better description."
    assert find_breaking_changes(old, verdict) == []


def test_a_removed_field_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    del verdict["properties"]["overdue"]
    assert find_breaking_changes(old, verdict) == ["overdue: the field was removed"]


def test_a_removed_field_of_a_field_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    del verdict["$defs"]["ImageReference"]["properties"]["offset"]
    assert find_breaking_changes(old, verdict) == ["image.offset: the field was removed"]


def test_a_retyped_field_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["properties"]["run"]["type"] = "string"
    verdict["properties"]["defect_probability"]["anyOf"][0]["maximum"] = 100
    assert find_breaking_changes(old, verdict) == [
        'run: expected type "integer", found "string"',
        "defect_probability: expected maximum 1, found 100",
    ]


def test_a_field_that_becomes_required_or_optional_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["required"].append("overdue")
    verdict["required"].remove("votes")
    (sentence,) = find_breaking_changes(old, verdict)
    assert sentence.startswith("the record: expected required [")


def test_an_added_value_of_an_enumeration_is_found(verdict: dict[str, Any]) -> None:
    """A reader that knows the labels `ok`, `defect` and `review` could not handle a fourth one."""
    old = copy.deepcopy(verdict)
    verdict["properties"]["label"]["enum"].append("unknown")
    (sentence,) = find_breaking_changes(old, verdict)
    assert sentence.startswith("label: expected enum")


def test_a_changed_default_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["properties"]["overdue"]["default"] = True
    assert find_breaking_changes(old, verdict) == ["overdue: expected default false, found true"]


def write_released(folder: Path, schema: dict[str, Any]) -> None:
    folder_of_release = folder / "schemas" / "released" / "0.0.1"
    folder_of_release.mkdir(parents=True)
    (folder_of_release / f"{VERDICT}.schema.json").write_text(json.dumps(schema))


def test_a_schema_that_breaks_a_promise_is_not_written(tmp_path: Path, verdict: dict[str, Any]) -> None:
    verdict["properties"]["belt"] = {"type": "string"}
    write_released(tmp_path, verdict)
    with pytest.raises(SystemExit, match=rf"{VERDICT} of release 0\.0\.1: belt: the field was removed"):
        generate.write_documents(tmp_path)
    assert not (tmp_path / "topics.md").exists()


def test_a_removed_record_is_found(tmp_path: Path, verdict: dict[str, Any]) -> None:
    write_released(tmp_path, verdict)
    assert find_broken_promises(tmp_path / "schemas" / "released", {}) == [
        f"{VERDICT} of release 0.0.1: the record is not published any more"
    ]


def test_released_schemas_are_never_overwritten(tmp_path: Path) -> None:
    folder_of_release = generate.keep_released_schemas("0.0.1", tmp_path)
    assert len(list(folder_of_release.iterdir())) == len(make_schemas())
    with pytest.raises(SystemExit, match=r"release 0\.0\.1 exist already"):
        generate.keep_released_schemas("0.0.1", tmp_path)
