"""Merging records into the row of a part: any order gives the same row, and a repeated record changes nothing."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import django.db
import pytest
from django.db import InternalError
from hypothesis import given
from hypothesis import strategies as st

from station.archive.models import Part
from station.archive.part_writer import PartWriter, make_row, merge_record, time_of
from station.archive.retention import RetentionPolicy
from station.reviews.candidates import CandidateQueue
from streams.errors import ArchiveError
from streams.identity import PartId
from streams.records import Acceptance, ArchivedRecord, Box, PartRecord, ReviewWithdrawal
from tests.sample_records import FIRST_CAPTURED_AT, make_finding, make_review, make_sorting, make_verdict
from tests.station.conftest import SETTINGS

# The sample verdict on the fourth part of a run is `review`, see tests.sample_records.
PART = PartId("line-1", 3, 4)
VERDICT = make_verdict(PART, "castings.images.line-1", 0, 17)
SECOND_VERDICT = make_verdict(
    PART, "castings.images.line-1", 0, 17, label="ok", model="other", decided_at=VERDICT.decided_at + timedelta(hours=1)
)
REVIEW = make_review(PART, "defect", kinds=("pores",))
LATER_REVIEW = make_review(PART, "ok", reviewer="berta", reviewed_at=FIRST_CAPTURED_AT + timedelta(days=1))
RECORDS: tuple[PartRecord, ...] = (VERDICT, SECOND_VERDICT, make_sorting(PART), make_finding(VERDICT), REVIEW, LATER_REVIEW)
KEEP_NO_GOOD_PICTURES = RetentionPolicy(0.0)


def merge(records: list[PartRecord], policy: RetentionPolicy = KEEP_NO_GOOD_PICTURES) -> dict[str, object]:
    """Returns the columns of a new row into which `records` were merged in this order."""
    row = make_row(PART, time_of(records[0]))
    for record in records:
        merge_record(row, record, policy)
    return {field.name: getattr(row, field.name) for field in Part._meta.concrete_fields}


@pytest.fixture
def part_writer(database: object) -> PartWriter:
    return PartWriter(KEEP_NO_GOOD_PICTURES, CandidateQueue(SETTINGS))


@given(st.integers())
def test_the_order_of_records_makes_no_difference(seed: int) -> None:
    shuffled = list(RECORDS)
    random.Random(seed).shuffle(shuffled)
    assert merge(shuffled) == merge(list(RECORDS))
    assert merge([*shuffled, *shuffled]) == merge(shuffled)


def test_the_type_of_defect_comes_from_the_reviewer_then_from_the_verdict_then_from_the_finding() -> None:
    box = Box(left_px=1, top_px=1, width_px=2, height_px=2, score=0.9, kind="flash")
    finding = make_finding(VERDICT).model_copy(update={"boxes": (box,), "acceptance": Acceptance(table="t", result="accepted")})
    verdict = VERDICT.model_copy(update={"label": "defect", "kind": "blow hole"})
    columns = merge([finding, verdict])
    assert (columns["kind"], columns["verdict_kind"], columns["acceptance"]) == (
        "blow hole",
        "blow hole",
        {"table": "t", "result": "accepted", "rules": []},
    )
    assert merge([finding, VERDICT])["kind"] == "flash"
    assert merge([finding, verdict, REVIEW])["kind"] == "pores"


def test_the_first_verdict_and_the_last_review_count() -> None:
    columns = merge(list(RECORDS))
    assert (columns["label"], columns["model"]) == ("review", "tiny")
    assert (columns["review_label"], columns["reviewer"]) == ("ok", "berta")


@pytest.mark.parametrize(
    ("records", "seen_at"),
    [
        ((make_finding(VERDICT),), make_finding(VERDICT).found_at),
        ((make_finding(VERDICT), make_sorting(PART)), make_sorting(PART).counted_at),
        ((make_sorting(PART), VERDICT), VERDICT.captured_at),
    ],
    ids=["finding", "counted", "captured"],
)
def test_seen_at_is_the_time_of_the_picture_else_of_counting(records: tuple[PartRecord, ...], seen_at: object) -> None:
    assert merge(list(records))["seen_at"] == seen_at


def test_the_defect_type_of_the_reviewer_overrides_the_found_one() -> None:
    assert merge([VERDICT, make_finding(VERDICT)])["kind"] == "crack"
    assert merge([VERDICT, make_finding(VERDICT), REVIEW])["kind"] == "pores"


@pytest.mark.parametrize(
    ("records", "policy", "keep_picture"),
    [
        ((VERDICT,), KEEP_NO_GOOD_PICTURES, True),
        ((SECOND_VERDICT,), KEEP_NO_GOOD_PICTURES, None),
        ((SECOND_VERDICT,), RetentionPolicy(1.0), True),
        ((SECOND_VERDICT,), RetentionPolicy(0.0, frozenset({"line-1"})), True),
        ((SECOND_VERDICT, REVIEW), KEEP_NO_GOOD_PICTURES, True),
        ((REVIEW,), KEEP_NO_GOOD_PICTURES, None),
    ],
    ids=["review", "ok", "ok, all are kept", "ok, all of the line are kept", "reviewed", "reviewed, picture not known yet"],
)
def test_the_policy_decides_which_pictures_are_marked(
    records: tuple[PartRecord, ...], policy: RetentionPolicy, keep_picture: bool | None
) -> None:
    assert merge(list(records), policy)["keep_picture"] == keep_picture


def test_a_repeated_record_writes_nothing(part_writer: PartWriter) -> None:
    assert part_writer.write(list(RECORDS)) == 1
    before = Part.objects.values().get()
    assert part_writer.write(list(RECORDS)) == 0
    assert Part.objects.values().get() == before


def test_a_row_keeps_its_primary_key_through_all_updates(part_writer: PartWriter) -> None:
    for record in RECORDS:
        part_writer.write([record])
    assert Part.objects.count() == 1
    key = Part.objects.get().pk
    part_writer.write([make_review(PART, "defect", reviewed_at=FIRST_CAPTURED_AT + timedelta(days=2))])
    assert Part.objects.get().pk == key


def test_a_withdrawn_review_leaves_the_part(part_writer: PartWriter) -> None:
    records: list[ArchivedRecord] = [*RECORDS, ReviewWithdrawal(PART), ReviewWithdrawal(PartId("line-1", 3, 99))]
    assert part_writer.write(records) == 1
    part = Part.objects.get()
    assert (part.review_label, part.reviewer, part.reviewed_at, part.review_kinds) == ("", "", None, [])
    assert part.kind == "crack"


def test_a_batch_with_a_record_that_does_not_fit_the_table_is_rejected(part_writer: PartWriter) -> None:
    # The reader of records refuses such a number. A copy is not checked.
    huge = VERDICT.model_copy(update={"run": 2**70})
    with pytest.raises(ArchiveError, match="does not fit") as raised:
        part_writer.write([VERDICT, huge])
    assert not raised.value.retriable


@pytest.mark.parametrize("fault", ["damaged", "can only be read", "refused"])
def test_no_record_is_rejected_because_the_database_cannot_be_written(fault: str, tmp_path: Path, database: object) -> None:
    def fail(_: Sequence[Part]) -> None:
        if fault == "refused":
            # PostgreSQL's answer during a failover, see ReadOnlySqlTransaction in the documentation of psycopg.
            raise InternalError("cannot execute INSERT in a read-only transaction")
        file = tmp_path / "other.sqlite3"
        file.write_bytes(b"no database" * 1000 if fault == "damaged" else b"")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as other:
            try:
                other.execute("CREATE TABLE parts (id INTEGER)")
            except sqlite3.DatabaseError as error:
                # Django gives its own error the name of the error of SQLite.
                raise getattr(django.db, type(error).__name__)(*error.args) from error

    with pytest.raises(ArchiveError, match="cannot write 1 records") as raised:
        PartWriter(KEEP_NO_GOOD_PICTURES, CandidateQueue(SETTINGS), fail).write([VERDICT])
    assert raised.value.retriable
