"""Tests of the bounds of records: what a page or a database cannot hold is refused when a record is read."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from streams.identity import PartId
from streams.records import Verdict
from tests.sample_records import make_verdict


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
    record = json.loads(make_verdict(PartId("line-1", 1, 1), "castings.images.line-1", 0, 0).encode())
    image = change.get("image")
    record |= {**change, "image": {**record["image"], **image}} if isinstance(image, dict) else change
    with pytest.raises(ValidationError):
        Verdict.decode(json.dumps(record).encode())


def test_the_longest_text_of_a_verdict_is_read() -> None:
    record = json.loads(make_verdict(PartId("line-1", 1, 1), "castings.images.line-1", 0, 2**63 - 1).encode())
    assert len(Verdict.decode(json.dumps({**record, "reason": "r" * 4096}).encode()).reason) == 4096
