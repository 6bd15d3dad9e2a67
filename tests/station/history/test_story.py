"""One part's story: every time, every word of its records, and what is missing said in words."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.test import Client

from deploy.cli.trace import sorting_steps, verdict_steps
from station.archive.folding import blank, fold
from station.archive.keeping import Keeping
from station.history.overlay import overlay
from station.history.story import story
from streams.identity import PartId
from streams.records import ImageReference, Sorting, Verdict
from tests.station.conftest import EARLIEST, MakePart

BOX = {"left_px": 20, "top_px": 30, "width_px": 40, "height_px": 50, "score": 0.9, "kind": "scratch"}


def later(ms: int) -> datetime:
    return EARLIEST + timedelta(milliseconds=ms)


def test_steps_stand_in_the_order_of_time_with_their_distances(part: MakePart) -> None:
    told = story(
        part(
            counted_at=later(0),
            captured_at=later(5),
            received_at=later(30),
            decided_at=later(120),
            told_at=later(150),
            at_gate_at=later(2500),
            sorted_at=later(2550),
            action="passed",
            sorted_reason="verdict",
        ),
        gated=True,
    )
    assert [(step.what, step.after_ms, step.took_ms) for step in told.steps] == [
        ("counted at photo-eye 1", 0, 0),
        ("photographed", 5, 5),
        ("received by an inspector", 30, 25),
        ("judged", 120, 90),
        ("verdict taken by the board", 150, 30),
        ("seen at photo-eye 2", 2500, 2350),
        ("sorted", 2550, 50),
    ]
    assert "castline.review.v1" not in told.records
    assert told.records["castline.sorting.v1"]["action"] == "passed"


def test_the_story_has_the_steps_that_castline_trace_has() -> None:
    """Records folded into a row tell the same as the records themselves."""
    image = ImageReference(topic="castings.images.line-1", partition=0, offset=3, sha256="0" * 64, width_px=300, height_px=300)
    verdict = Verdict(
        line="line-1",
        run=7,
        part=1,
        verdict_id=UUID(int=1),
        label="defect",
        defect_probability=0.9,
        votes={"lenet": 0.9},
        threshold=0.5,
        model="demo",
        captured_at=later(5),
        received_at=later(30),
        decided_at=later(120),
        image=image,
    )
    sorting = Sorting(
        line="line-1",
        run=7,
        part=1,
        board="gate-1",
        event=1,
        action="diverted",
        reason="verdict",
        label="defect",
        gate_moved=True,
        move_count=1,
        counted_at=later(0),
        told_at=later(150),
        at_gate_at=later(2500),
        sorted_at=later(2550),
    )
    row = blank(PartId("line-1", 7, 1), EARLIEST)
    for record in (sorting, verdict):
        fold(row, record, Keeping(0.0))
    traced = sorted([*verdict_steps(verdict, "verdicts/0@1"), *sorting_steps(sorting, "sorted/0@1")])
    told = story(row, gated=True).steps
    assert [(step.at, step.what) for step in told] == [(step.at, step.what) for step in traced]
    assert told[3].detail["label"] == traced[3].detail["label"] == "defect"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"label": "", "decided_at": None}, "No verdict is known"),
        ({"label": "review", "reason": "truncated", "defect_probability": None}, "its bytes are a dead letter"),
        ({}, "no dead letter"),
        ({"overdue": True}, "after the part's deadline"),
        ({"late": True}, "after the part had passed the gate"),
        ({"sorted_reason": "no-verdict", "action": "diverted"}, "acted without a verdict"),
        ({}, "No gate report is known"),
        ({"label": "ok", "review_label": "defect", "reviewer": "anna"}, "A person says otherwise"),
    ],
    ids=str,
)
def test_what_is_missing_or_odd_is_said_in_words(part: MakePart, given: dict[str, object], words: str) -> None:
    assert any(words in remark for remark in story(part(**given), gated=True).remarks)


def test_the_page_tells_it_all(reviewer: Client, part: MakePart) -> None:
    one = part(
        label="defect", finding_boxes=[BOX], finding_method="residual", heat_map="findings/x.png", image_topic="castings.images.line-1"
    )
    text = reviewer.get(f"/parts/line-1/7/{one.part}/").content.decode()
    assert '<rect class="finding" x="20" y="30" width="40" height="50"/>' in text
    assert f"castline trace line-1:7:{one.part}" in text
    assert "Review this part" in text
    assert "heat-map" in text


def test_who_may_not_review_is_not_asked_to(operator: Client, part: MakePart) -> None:
    part()
    assert "Review this part" not in operator.get("/parts/line-1/7/1/").content.decode()


@pytest.mark.parametrize(
    "address", ["/parts/line-1/7/999/", "/parts/line-1/7/99999999999999999999999/", "/parts/..%2f..%2fetc/1/1/", "/parts/LINE/0/0/"]
)
def test_a_part_that_is_not_there_is_not_found(operator: Client, part: MakePart, address: str) -> None:
    part()
    assert operator.get(address).status_code == 404


def test_an_uploaded_picture_of_another_person_is_not_there(operator: Client, part: MakePart) -> None:
    part(line="uploads")
    assert operator.get("/parts/uploads/7/1/").status_code == 404


def test_hostile_words_in_a_record_are_shown_as_words(operator: Client, part: MakePart) -> None:
    part(reason="<script>x</script>", kind="<b>", model="<i>", finding_boxes=[BOX | {"kind": "<script>y</script>"}])
    text = operator.get("/parts/line-1/7/1/").content.decode()
    assert "<script>x" not in text
    assert "<script>y" not in text


def test_a_vote_may_be_called_anything(operator: Client, part: MakePart) -> None:
    part(votes={"items": 0.5, "<b>": 0.25})
    text = operator.get("/parts/line-1/7/1/").content.decode()
    assert "<dt>items</dt><dd>0.500</dd>" in text
    assert "<b>" not in text


def test_a_box_that_is_none_is_not_drawn(part: MakePart) -> None:
    assert [box.words for box in overlay(part(finding_boxes=[{"left_px": "<"}, BOX]))] == ["scratch"]
