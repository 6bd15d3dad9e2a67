"""Castings are found in the edges at two photo-eyes, and what cannot be measured is said in a sentence."""

from __future__ import annotations

import pytest

from agents.sorter.passed_castings import EyeEdges, PassedCastings

NOTHING = EyeEdges(0, 0, 0, 0, 0)
U32 = 2**32


def watch(
    *pages: tuple[EyeEdges, EyeEdges], has_encoder: bool = False, first: tuple[EyeEdges, EyeEdges] = (NOTHING, NOTHING)
) -> PassedCastings:
    castings = PassedCastings(*first, part_min_ms=5, has_encoder=has_encoder)
    for page in pages:
        castings.add(*page)
    return castings


def test_a_casting_is_measured_in_time_and_encoder_edges_also_when_the_counters_wrap() -> None:
    before = EyeEdges(65535, U32 - 2000, U32 - 300, 40, 20), EyeEdges(65535, U32 - 1200, U32 - 200, 40, 20)
    lead = EyeEdges(0, U32 - 100, U32 - 50, 40, 20)
    found = watch((lead, before[1]), (lead, EyeEdges(0, 700, 350, 0, 0)), has_encoder=True, first=before)
    (casting,) = found.castings
    assert (casting.travel_ms, casting.travel_steps, casting.length_ms, casting.length_steps) == (800, 400, 40, 20)
    assert found.problem == ""


def test_a_short_gap_does_not_end_a_casting() -> None:
    found = watch(
        (EyeEdges(1, 1000, 0, 20, 0), NOTHING),
        (EyeEdges(2, 1023, 0, 30, 0), NOTHING),
        (EyeEdges(2, 1023, 0, 30, 0), EyeEdges(1, 1600, 0, 0, 0)),
    )
    (casting,) = found.castings
    assert (casting.travel_ms, casting.length_ms) == (600, 53)


def test_a_casting_whose_edges_were_lost_is_left_out() -> None:
    found = watch(
        (EyeEdges(2, 1060, 0, 20, 0), NOTHING),
        (EyeEdges(2, 1060, 0, 20, 0), EyeEdges(1, 1600, 0, 20, 0)),
        (EyeEdges(3, 3000, 0, 20, 0), EyeEdges(1, 1600, 0, 20, 0)),
        (EyeEdges(3, 3000, 0, 20, 0), EyeEdges(2, 3600, 0, 20, 0)),
    )
    assert [casting.travel_ms for casting in found.castings] == [600]
    assert found.problem == ""


@pytest.mark.parametrize(
    ("pages", "has_encoder", "sentence"),
    [
        (((EyeEdges(1, 1000, 0, 20, 0), NOTHING), (EyeEdges(2, 1300, 0, 20, 0), NOTHING)), False, "too close together"),
        (((NOTHING, EyeEdges(1, 1000, 0, 20, 0)),), False, "the belt runs backwards"),
        (((EyeEdges(1, 1000, 500, 20, 0), NOTHING), (EyeEdges(1, 1000, 500, 20, 0), EyeEdges(1, 1600, 200, 0, 0))), True, "counted -300"),
        (((EyeEdges(1, 1000, 500, 20, 0), NOTHING), (EyeEdges(1, 1000, 500, 20, 0), EyeEdges(1, 1600, 500, 0, 0))), True, "counted 0"),
    ],
    ids=["too-close", "backwards", "encoder-backwards", "encoder-silent"],
)
def test_what_cannot_be_measured_is_said(pages: tuple[tuple[EyeEdges, EyeEdges], ...], has_encoder: bool, sentence: str) -> None:
    found = watch(*pages, has_encoder=has_encoder)
    assert sentence in found.problem
    assert found.castings == []


@pytest.mark.parametrize("next_length_ms", [0, 20])
def test_a_casting_keeps_its_length_if_the_next_one_reaches_eye_1_before_the_next_call(next_length_ms: int) -> None:
    first, second = EyeEdges(1, 1000, 0, 160, 0), EyeEdges(2, 1640, 0, next_length_ms, 0)
    found = watch((first, NOTHING), (second, EyeEdges(1, 1600, 0, 0, 0)), (second, EyeEdges(1, 1600, 0, 160, 0)))
    (casting,) = found.castings
    assert (casting.travel_ms, casting.length_ms) == (600, 160)
    assert found.problem == ""


def test_a_casting_whose_end_was_not_seen_has_the_length_0() -> None:
    """The casting was still at photo-eye 1 at the last call, and the next casting is there now."""
    found = watch((EyeEdges(1, 1000, 0, 0, 0), NOTHING), (EyeEdges(2, 1640, 0, 20, 0), EyeEdges(1, 1600, 0, 0, 0)))
    assert [casting.length_ms for casting in found.castings] == [0]
