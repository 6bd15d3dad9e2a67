"""Tests of the bounds of records: what a page or a database cannot hold is refused when a record is read."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from streams.errors import RecordError
from streams.identity import PartId
from streams.record_reader import read_record
from streams.records import Verdict
from tests.sample_records import make_verdict


def make_changed_verdict(change: dict[str, object]) -> bytes:
    """Returns a verdict as JSON in which the fields of `change` are replaced. In the field `image`, single fields are replaced."""
    record = json.loads(make_verdict(PartId("line-1", 1, 1), "castings.images.line-1", 0, 0).encode())
    image = change.get("image")
    record |= {**change, "image": {**record["image"], **image}} if isinstance(image, dict) else change
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "m" * 3_000_000},
        {"reason": "r" * 3_000_000},
        {"votes": {"v" * 3_000_000: 0.5}},
        {"votes": {f"voter-{number}": 0.5 for number in range(100_000)}},
        {"image": {"offset": 10**30}},
        {"image": {"partition": 2**40}},
    ],
)
def test_a_verdict_that_no_page_can_show_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Verdict.decode(make_changed_verdict(change))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "m" * 65},
        {"reason": "r" * 65},
        {"image": {"topic": "t" * 250}},
        {"image": {"width_px": 2**31}},
        {"votes": {"v" * 129: 0.5}},
    ],
)
def test_a_reader_refuses_a_verdict_that_the_archive_cannot_hold(change: dict[str, object]) -> None:
    value = make_changed_verdict(change)
    Verdict.decode(value)
    with pytest.raises(RecordError, match=r"not a valid castline\.verdict\.v1: expected"):
        read_record(Verdict, value)


def test_the_longest_text_of_a_verdict_is_read() -> None:
    record = json.loads(make_verdict(PartId("line-1", 1, 1), "castings.images.line-1", 0, 2**63 - 1).encode())
    assert len(Verdict.decode(json.dumps({**record, "reason": "r" * 4096}).encode()).reason) == 4096
