"""Within v1, fields are added and nothing else: what breaks that promise is found and not written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from docs import generate
from docs.generator import schemas
from docs.generator.compatibility import breaks, changes
from tests.docs.pages import DOCS

RELEASED = DOCS / "schemas" / "released"
VERDICT = "castline.verdict.v1"


@pytest.fixture
def verdict() -> dict[str, Any]:
    """Today's schema of a verdict, to be changed by a test."""
    return copy.deepcopy(schemas.published()[VERDICT])


def test_todays_records_keep_every_promise_of_every_release() -> None:
    assert breaks(RELEASED, schemas.published()) == []


def test_a_new_optional_field_breaks_nothing(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["properties"]["shift"] = {"type": "string", "default": ""}
    verdict["$defs"]["ImageReference"]["properties"]["colour"] = {"type": "string", "default": ""}
    verdict["properties"]["label"]["description"] = "Said better."
    assert changes(old, verdict) == []


def test_a_removed_field_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    del verdict["properties"]["overdue"]
    assert changes(old, verdict) == ["overdue: expected the field to stay, it is gone"]


def test_a_removed_field_of_a_field_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    del verdict["$defs"]["ImageReference"]["properties"]["offset"]
    assert changes(old, verdict) == ["image.offset: expected the field to stay, it is gone"]


def test_a_retyped_field_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["properties"]["run"]["type"] = "string"
    verdict["properties"]["defect_probability"]["anyOf"][0]["maximum"] = 100
    assert changes(old, verdict) == [
        'run: expected type "integer", found "string"',
        "defect_probability: expected maximum 1, found 100",
    ]


def test_a_field_that_becomes_required_or_optional_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["required"].append("overdue")
    verdict["required"].remove("votes")
    (sentence,) = changes(old, verdict)
    assert sentence.startswith("the record: expected required [")


def test_a_word_more_in_a_closed_list_is_found(verdict: dict[str, Any]) -> None:
    """A reader that knows `ok`, `defect` and `review` would not know what to do with a fourth."""
    old = copy.deepcopy(verdict)
    verdict["properties"]["label"]["enum"].append("unknown")
    (sentence,) = changes(old, verdict)
    assert sentence.startswith("label: expected enum")


def test_another_value_for_an_absent_field_is_found(verdict: dict[str, Any]) -> None:
    old = copy.deepcopy(verdict)
    verdict["properties"]["overdue"]["default"] = True
    assert changes(old, verdict) == ["overdue: expected default false, found true"]


def released(folder: Path, schema: dict[str, Any]) -> None:
    kept = folder / "schemas" / "released" / "0.0.1"
    kept.mkdir(parents=True)
    (kept / f"{VERDICT}.schema.json").write_text(json.dumps(schema))


def test_a_schema_that_breaks_a_promise_is_not_written(tmp_path: Path, verdict: dict[str, Any]) -> None:
    verdict["properties"]["belt"] = {"type": "string"}
    released(tmp_path, verdict)
    with pytest.raises(SystemExit, match=rf"{VERDICT} of release 0\.0\.1: belt: expected the field to stay, it is gone"):
        generate.write(tmp_path)
    assert not (tmp_path / "topics.md").exists()


def test_a_record_that_is_published_no_more_is_found(tmp_path: Path, verdict: dict[str, Any]) -> None:
    released(tmp_path, verdict)
    assert breaks(tmp_path / "schemas" / "released", {}) == [f"{VERDICT} of release 0.0.1: expected to be published, found no such record"]


def test_what_is_released_is_not_written_again(tmp_path: Path) -> None:
    kept = generate.release("0.0.1", tmp_path)
    assert len(list(kept.iterdir())) == len(schemas.published())
    with pytest.raises(SystemExit, match=r"found the schemas of 0\.0\.1"):
        generate.release("0.0.1", tmp_path)
