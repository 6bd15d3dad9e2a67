"""What people are asked about, who of them, and what a box must be: the pure part of the review."""

from __future__ import annotations

import pytest

from station.reviews.boxes import WrongBoxesError, boxes_of
from station.reviews.interest import Known, disagreement, doubt, drawn, interest
from station.reviews.opinions import Opinion, standing, state
from streams.identity import PartId
from tests.station.conftest import SETTINGS

KINDS = SETTINGS.review.kinds
PART = PartId("line-1", 7, 1)


# What is asked


def score(**known: object) -> float:
    return interest(Known(PART, **known), 0.25, 0.0, 1).score  # type: ignore[arg-type]


def test_doubt_is_greatest_on_the_threshold_and_none_where_all_is_certain() -> None:
    assert [doubt(p, 0.5) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0, 0.25, 0.5, 0.25, 0]
    assert doubt(0.2, 0.2) == 0.5
    assert doubt(0.6, 0.2) == pytest.approx(0.25)
    assert doubt(None, 0.5) is None
    assert doubt(1.0, 1.0) == 0.5


def test_the_reason_is_said_in_words() -> None:
    found = interest(Known(PART, "review", 0.48, 0.5, {"alexnet": 0.2, "lenet": 0.7}, "doubt"), 0.25, 0.0, 1)
    assert found.why == "doubt 0.48 of 0.50; the networks disagree: alexnet 0.20, lenet 0.70; left to a person: doubt"


def test_who_is_certain_is_not_asked_about() -> None:
    assert score(label="ok", defect_probability=0.02, threshold=0.5, votes={"a": 0.01, "b": 0.03}) == 0


def test_the_most_informative_comes_first() -> None:
    torn = score(label="review", defect_probability=0.5, threshold=0.5, votes={"a": 0.1, "b": 0.9})
    doubtful = score(label="review", defect_probability=0.48, threshold=0.5)
    unknown = score(label="", sorted_reason="no-verdict")
    unreadable = score(label="review", reason="truncated")
    audited = interest(Known(PART, "ok", 0.01, 0.5), 0.25, 1.0, 1).score
    assert torn > doubtful > unknown > unreadable > audited > 0


def test_networks_disagree_only_across_the_threshold() -> None:
    assert disagreement({"a": 0.6, "b": 0.9}, 0.5) is None
    assert disagreement({"a": 0.4, "b": 0.9}, 0.5) == pytest.approx(0.5)


def test_the_audit_draws_its_share_alike_on_every_machine() -> None:
    parts = [PartId("line-1", 1, number) for number in range(5_000)]
    taken = [part for part in parts if drawn(part, 0.05, 1)]
    assert 200 < len(taken) < 300
    assert taken == [part for part in parts if drawn(part, 0.05, 1)]
    assert taken != [part for part in parts if drawn(part, 0.05, 2)]


# Who is asked


@pytest.mark.parametrize(
    ("model", "labels", "expected"),
    [
        ("ok", "", "open"),
        ("ok", "ok", "settled"),
        ("ok", "defect", "second"),
        ("review", "defect", "settled"),
        ("", "ok", "settled"),
        ("ok", "defect defect", "settled"),
        ("ok", "defect ok", "third"),
        ("ok", "defect ok ok", "settled"),
        ("ok", "skip", "open"),
        ("ok", "skip defect", "second"),
    ],
)
def test_who_is_asked_next(model: str, labels: str, expected: str) -> None:
    assert state(model, [Opinion(f"person-{number}", label) for number, label in enumerate(labels.split())]) == expected


def test_without_second_opinions_one_word_settles() -> None:
    assert state("ok", [Opinion("anna", "defect")], second_opinions=False) == "settled"


def test_the_last_word_stands_and_a_skip_is_none() -> None:
    assert standing([Opinion("anna", "ok"), Opinion("bert", "defect"), Opinion("carl", "skip")]) == 1
    assert standing([Opinion("anna", "skip")]) is None


# Boxes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON list"),
        ('{"left_px": 1}', "JSON list"),
        ("[1]", "JSON list"),
        ("[" * 5000, "JSON list"),
        ('[{"left_px": 1}]', "Box 1: top_px"),
        ('[{"left_px": -1, "top_px": 0, "width_px": 5, "height_px": 5}]', "Box 1: left_px"),
        ('[{"left_px": 290, "top_px": 0, "width_px": 20, "height_px": 5}]', "reaches beyond the picture of 300 x 300"),
        ('[{"left_px": 1e30, "top_px": 0, "width_px": 20, "height_px": 5}]', "Box 1"),
        ('[{"left_px": 0, "top_px": 0, "width_px": 5, "height_px": 5, "kind": "<script>"}]', "expected a type of defect"),
        ("[" + ",".join(['{"left_px":0,"top_px":0,"width_px":5,"height_px":5}'] * 51) + "]", "at most 50 boxes"),
        (" " * 30_000, "at most 20000"),
    ],
)
def test_boxes_that_are_none_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(WrongBoxesError, match=words):
        boxes_of(text, 300, 300, KINDS)
