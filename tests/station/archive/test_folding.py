"""What records make of a part's row: the same whatever their order, and a repeat changes nothing."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.archive.folding import blank, fold, time_of
from station.archive.keeper import Keeper
from station.archive.keeping import Keeping, drawn
from station.archive.models import Part
from streams.errors import ArchiveError
from streams.identity import PartId
from streams.records import ArchivedRecord, PartRecord, ReviewWithdrawal
from tests.sample_records import FIRST_CAPTURED_AT, make_finding, make_review, make_sorting, make_verdict

PART = PartId("line-1", 3, 4)  # in doubt, see tests.sample_records
VERDICT = make_verdict(PART, "castings.images.line-1", 0, 17)
SECOND = make_verdict(PART, "castings.images.line-1", 0, 17, label="ok", model="other", decided_at=VERDICT.decided_at + timedelta(hours=1))
REVIEW = make_review(PART, "defect", kinds=("pores",))
LATER_REVIEW = make_review(PART, "ok", reviewer="berta", reviewed_at=FIRST_CAPTURED_AT + timedelta(days=1))
RECORDS: tuple[PartRecord, ...] = (VERDICT, SECOND, make_sorting(PART), make_finding(VERDICT), REVIEW, LATER_REVIEW)
NOTHING = Keeping(0.0)


def folded(told: list[PartRecord], keeping: Keeping = NOTHING) -> dict[str, object]:
    row = blank(PART, time_of(told[0]))
    for one in told:
        fold(row, one, keeping)
    return {field.name: getattr(row, field.name) for field in Part._meta.concrete_fields}


@given(st.integers())
def test_the_order_of_records_makes_no_difference(seed: int) -> None:
    shuffled = list(RECORDS)
    random.Random(seed).shuffle(shuffled)
    assert folded(shuffled) == folded(list(RECORDS))
    assert folded([*shuffled, *shuffled]) == folded(shuffled)


def test_the_first_verdict_and_the_last_review_stand() -> None:
    found = folded(list(RECORDS))
    assert (found["label"], found["model"]) == ("review", "tiny")
    assert (found["review_label"], found["reviewer"]) == ("ok", "berta")


@pytest.mark.parametrize(
    ("told", "seen_at"),
    [
        ((make_finding(VERDICT),), make_finding(VERDICT).found_at),
        ((make_finding(VERDICT), make_sorting(PART)), make_sorting(PART).counted_at),
        ((make_sorting(PART), VERDICT), VERDICT.captured_at),
    ],
    ids=["finding", "counted", "captured"],
)
def test_a_part_is_seen_when_its_picture_was_taken_else_when_it_was_counted(told: tuple[PartRecord, ...], seen_at: object) -> None:
    assert folded(list(told))["seen_at"] == seen_at


def test_what_a_person_calls_the_defect_stands_before_what_was_found() -> None:
    assert folded([VERDICT, make_finding(VERDICT)])["kind"] == "crack"
    assert folded([VERDICT, make_finding(VERDICT), REVIEW])["kind"] == "pores"


@pytest.mark.parametrize(
    ("told", "keeping", "kept"),
    [
        ((VERDICT,), NOTHING, True),
        ((SECOND,), NOTHING, None),
        ((SECOND,), Keeping(1.0), True),
        ((SECOND,), Keeping(0.0, frozenset({"line-1"})), True),
        ((SECOND, REVIEW), NOTHING, True),
        ((REVIEW,), NOTHING, None),
    ],
    ids=["doubt", "good", "good, all kept", "good, of a line whose all are kept", "reviewed", "reviewed, picture unknown yet"],
)
def test_pictures_are_kept_of_defects_doubts_reviewed_parts_and_a_share(
    told: tuple[PartRecord, ...], keeping: Keeping, kept: bool | None
) -> None:
    assert folded(list(told), keeping)["keep_picture"] == kept


def test_a_share_is_drawn_evenly_and_always_alike() -> None:
    parts = [PartId("line-1", 1, number) for number in range(1, 20_001)]
    taken = [part for part in parts if drawn(part, 0.1)]
    assert 1800 < len(taken) < 2200
    assert [part for part in parts if drawn(part, 0.1)] == taken
    assert set(taken) <= {part for part in parts if drawn(part, 0.2)}


def test_a_repeat_writes_nothing(database: object) -> None:
    keeper = Keeper(NOTHING)
    assert keeper.write(list(RECORDS)) == 1
    before = Part.objects.values().get()
    assert keeper.write(list(RECORDS)) == 0
    assert Part.objects.values().get() == before


def test_a_row_keeps_its_key_however_often_it_is_told_of(database: object) -> None:
    keeper = Keeper(NOTHING)
    for one in RECORDS:
        keeper.write([one])
    assert Part.objects.count() == 1
    key = Part.objects.get().pk
    keeper.write([make_review(PART, "defect", reviewed_at=FIRST_CAPTURED_AT + timedelta(days=2))])
    assert Part.objects.get().pk == key


def test_a_review_taken_back_leaves_the_part(database: object) -> None:
    told: list[ArchivedRecord] = [*RECORDS, ReviewWithdrawal(PART), ReviewWithdrawal(PartId("line-1", 3, 99))]
    assert Keeper(NOTHING).write(told) == 1
    part = Part.objects.get()
    assert (part.review_label, part.reviewer, part.reviewed_at, part.review_kinds) == ("", "", None, [])
    assert part.kind == "crack"


def test_a_record_that_does_not_fit_is_refused_whole(database: object) -> None:
    huge = make_verdict(PartId("line-1", 2**70, 1), "", 0, 0)
    with pytest.raises(ArchiveError, match="does not fit") as refused:
        Keeper(NOTHING).write([VERDICT, huge])
    assert not refused.value.retriable
