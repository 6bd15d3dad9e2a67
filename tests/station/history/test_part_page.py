"""The page of one part: timeline, remarks, records, boxes, and the explanation of the verdict."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.test import Client

from deploy.cli.trace import sorting_steps, verdict_steps
from models.anomaly.detail_template import DetailTemplate
from models.registry import BUNDLED_VERSIONS, Manifest, open_registry
from models.registry.manifest import CascadeBand
from station.archive.part_writer import make_row, merge_record
from station.archive.retention import RetentionPolicy
from station.history.part_page import explain_verdict, make_overlay, make_records, make_remarks, make_timeline
from streams.identity import PartId
from streams.records import ImageReference, Sorting, Verdict
from tests.station.conftest import EARLIEST, MakePart

BOX = {"left_px": 20, "top_px": 30, "width_px": 40, "height_px": 50, "score": 0.9, "kind": "scratch"}


def later(ms: int) -> datetime:
    return EARLIEST + timedelta(milliseconds=ms)


def test_every_page_of_a_verdict_says_that_its_version_has_seen_no_photograph(operator: Client, part: MakePart) -> None:
    row = part()
    assert "Version demo has learned from rendered pictures only." in operator.get(f"/parts/line-1/7/{row.part}/").content.decode()
    other = part(model="no-longer-there")
    assert "rendered pictures" not in operator.get(f"/parts/line-1/7/{other.part}/").content.decode()


def test_the_timeline_is_sorted_and_has_the_time_between_events(part: MakePart) -> None:
    row = part(
        counted_at=later(0),
        captured_at=later(5),
        received_at=later(30),
        decided_at=later(120),
        told_at=later(150),
        at_gate_at=later(2500),
        sorted_at=later(2550),
        action="passed",
        sorted_reason="verdict",
    )
    assert [(step.event, step.since_first_ms, step.since_previous_ms) for step in make_timeline(row)] == [
        ("counted at photo-eye 1", 0, 0),
        ("photographed", 5, 5),
        ("received by an inspector", 30, 25),
        ("judged", 120, 90),
        ("verdict taken by the board", 150, 30),
        ("seen at photo-eye 2", 2500, 2350),
        ("sorted", 2550, 50),
    ]
    records = make_records(row)
    assert "castline.review.v1" not in records
    assert records["castline.sorting.v1"]["action"] == "passed"


def test_the_timeline_equals_that_of_castline_trace() -> None:
    """`castline trace` makes its timeline from the records, this page makes it from the row into which the records were merged."""
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
    row = make_row(PartId("line-1", 7, 1), EARLIEST)
    for record in (sorting, verdict):
        merge_record(row, record, RetentionPolicy(0.0))
    traced = sorted([*verdict_steps(verdict, "verdicts/0@1"), *sorting_steps(sorting, "sorted/0@1")])
    timeline = make_timeline(row)
    assert [(step.at, step.event) for step in timeline] == [(step.at, step.what) for step in traced]
    assert timeline[3].details["label"] == traced[3].detail["label"] == "defect"


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"label": "", "decided_at": None}, "The archive has no verdict"),
        ({"label": "review", "reason": "truncated", "defect_probability": None}, "stored as a dead letter"),
        ({"label": "review", "reason": "anomaly", "defect_probability": None}, "different from good parts"),
        ({}, "There is no dead letter"),
        ({"overdue": True}, "after the part's deadline"),
        ({"late": True}, "after the part had passed the gate"),
        ({"sorted_reason": "no-verdict", "action": "diverted"}, "acted without a verdict"),
        ({}, "The archive has no report of the gate"),
        ({"label": "ok", "review_label": "defect", "reviewer": "anna"}, "The reviewer disagrees"),
    ],
    ids=str,
)
def test_a_remark_says_what_is_missing_or_unusual(part: MakePart, columns: dict[str, object], text: str) -> None:
    assert any(text in remark for remark in make_remarks(part(**columns), has_gate=True))


def test_the_page_shows_boxes_command_and_heat_map(reviewer: Client, part: MakePart) -> None:
    one = part(
        label="defect", finding_boxes=[BOX], finding_method="residual", heat_map="findings/x.png", image_topic="castings.images.line-1"
    )
    text = reviewer.get(f"/parts/line-1/7/{one.part}/").content.decode()
    assert '<rect class="finding" x="20" y="30" width="40" height="50"/>' in text
    assert f"castline trace line-1:7:{one.part}" in text
    assert "Review this part" in text
    assert "heat-map" in text


def test_the_page_shows_the_size_of_defects_and_the_rule_that_rejects_the_part(reviewer: Client, part: MakePart) -> None:
    acceptance = {"table": "impeller 17", "result": "rejected", "rules": ["gas porosity, C 2: a defect is 5 mm long, at most 3 allowed."]}
    boxes = [{**BOX, "length_mm": 5.04, "area_mm2": 12.34}, BOX]
    seen = {"found_at": later(9)}
    one = part(label="defect", verdict_kind="scratch", kind="scratch", finding_boxes=boxes, acceptance=acceptance, image_topic="t", **seen)
    text = reviewer.get(f"/parts/line-1/7/{one.part}/").content.decode()
    assert "5.04 mm, 12.3 mm²" in text
    assert "impeller 17: rejected" in text
    assert "at most 3 allowed." in text
    assert [box.size for box in make_overlay(one)] == ["5.04 mm, 12.3 mm²", ""]
    records = make_records(one)
    assert (records["castline.verdict.v1"]["kind"], records["castline.finding.v1"]["acceptance"]) == ("scratch", acceptance)


def test_only_reviewers_see_the_link_to_the_review(operator: Client, part: MakePart) -> None:
    part()
    assert "Review this part" not in operator.get("/parts/line-1/7/1/").content.decode()


@pytest.mark.parametrize(
    "address", ["/parts/line-1/7/999/", "/parts/line-1/7/99999999999999999999999/", "/parts/..%2f..%2fetc/1/1/", "/parts/LINE/0/0/"]
)
def test_an_unknown_part_is_not_found(operator: Client, part: MakePart, address: str) -> None:
    part()
    assert operator.get(address).status_code == 404


def test_the_upload_of_another_person_is_not_found(operator: Client, part: MakePart) -> None:
    part(line="uploads")
    assert operator.get("/parts/uploads/7/1/").status_code == 404


def test_hostile_text_in_a_record_is_shown_as_text(operator: Client, part: MakePart) -> None:
    part(reason="<script>x</script>", kind="<b>", model="<i>", finding_boxes=[BOX | {"kind": "<script>y</script>"}])
    text = operator.get("/parts/line-1/7/1/").content.decode()
    assert "<script>x" not in text
    assert "<script>y" not in text


def test_a_network_may_have_any_name(operator: Client, part: MakePart) -> None:
    part(votes={"items": 0.5, "<b>": 0.25})
    text = operator.get("/parts/line-1/7/1/").content.decode()
    assert "<dt>items</dt><dd>0.500</dd>" in text
    assert "<b>" not in text


def test_an_invalid_box_is_left_out(part: MakePart) -> None:
    assert [box.caption for box in make_overlay(part(finding_boxes=[{"left_px": "<"}, BOX]))] == ["scratch"]


@pytest.fixture
def manifest() -> Manifest:
    return open_registry(BUNDLED_VERSIONS).read_manifest("demo")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"label": "ok"}, "The defect probability is 0.020. It is below the threshold 0.500, so the part is called good."),
        ({"label": "defect", "defect_probability": 0.9}, "It is at least the threshold 0.500, so the part is called defective."),
        ({"label": "review", "reason": "doubt", "defect_probability": 0.49}, "so a person decides about it."),
        ({"label": "review", "reason": "anomaly"}, "A scorer that knows good parts finds this part unusual"),
        ({}, "The network lenet gives 0.030. Its vote has 85 % of the weight."),
        ({"votes": {"golden-template": 0.61}}, "The scorer golden-template gives 0.610, which is above its cut-off 0.5."),
        ({"heat_map": "maps/a", "finding_method": "grad-cam", "finding_boxes": [{}]}, "It marks 1 suspicious place."),
        ({"label": "defect", "defect_probability": 0.9}, "There is no heat map of this part yet."),
        ({}, "The settings of the line gave this threshold. The version's own threshold is 0.136."),
    ],
)
def test_a_verdict_is_explained(part: MakePart, manifest: Manifest, columns: dict[str, object], sentence: str) -> None:
    sentences = explain_verdict(part(**columns), manifest)
    assert any(sentence in one for one in sentences)


def test_the_search_for_small_defects_is_explained_as_a_scorer(part: MakePart, manifest: Manifest) -> None:
    sentences = explain_verdict(part(votes={DetailTemplate.name: 0.7}), manifest)
    assert "The scorer detail-template gives 0.700, which is above its cut-off 0.5." in sentences


@pytest.mark.parametrize("scores", [{}, {"golden-template": 0.3}])
def test_a_network_that_decided_alone_is_explained_also_beside_a_scorer(
    part: MakePart, manifest: Manifest, scores: dict[str, float]
) -> None:
    cascaded = manifest.model_copy(update={"cascade": CascadeBand(voter="lenet", low=0.1, high=0.9)})
    alone = "This network was so certain that the others were not asked."
    assert alone in explain_verdict(part(votes={"lenet": 0.01, **scores}), cascaded)
    assert alone not in explain_verdict(part(votes={"lenet": 0.01, "alexnet": 0.01, **scores}), cascaded)


def test_a_part_without_a_verdict_is_not_explained_and_an_unknown_version_has_no_weights(part: MakePart) -> None:
    assert explain_verdict(part(label=""), None) == []
    assert "The network alexnet gives 0.010." in explain_verdict(part(), None)


def test_the_page_of_a_part_explains_its_verdict(operator: Client, part: MakePart) -> None:
    row = part()
    page = operator.get(f"/parts/line-1/7/{row.part}/").content.decode()
    assert "Why this verdict" in page
    assert "Its vote has 15 % of the weight." in page
