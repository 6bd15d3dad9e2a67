"""A verdict is explained by the rule, by each vote with its weight, by the scorer and by the heat map."""

from __future__ import annotations

import pytest
from django.test import Client

from models.anomaly.detail_template import DetailTemplate
from models.registry import BUNDLED_VERSIONS, Manifest, open_registry
from models.registry.manifest import DetailEntry, ScorerEntry
from station.history.verdict_explanation import explain_verdict
from tests.station.conftest import MakePart

SCORER = ScorerEntry(
    name="golden-template", files=("a.npz",), side_px=160, cut_off=2.5, alarm_share=0.01, highest_alarm_share=0.03, good_pictures=400
)


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
    sentences = explain_verdict(part(**columns), manifest.model_copy(update={"scorers": (SCORER,)}))
    assert any(sentence in one for one in sentences)


def test_the_search_for_small_defects_is_explained_as_a_scorer(part: MakePart, manifest: Manifest) -> None:
    details = DetailEntry(
        file="details.npz",
        radius_px=900,
        rings=400,
        strip_rings=40,
        overlap_rings=4,
        cut_off=3.0,
        alarm_share=0.01,
        highest_alarm_share=0.03,
        good_pictures=400,
    )
    sentences = explain_verdict(part(votes={DetailTemplate.name: 0.7}), manifest.model_copy(update={"details": details}))
    assert "The scorer detail-template gives 0.700, which is above its cut-off 0.5." in sentences


def test_a_part_without_a_verdict_is_not_explained_and_an_unknown_version_has_no_weights(part: MakePart) -> None:
    assert explain_verdict(part(label=""), None) == []
    assert "The network or scorer alexnet gives 0.010." in explain_verdict(part(), None)


def test_the_page_of_a_part_explains_its_verdict(operator: Client, part: MakePart) -> None:
    row = part()
    page = operator.get(f"/parts/line-1/7/{row.part}/").content.decode()
    assert "Why this verdict" in page
    assert "Its vote has 15 % of the weight." in page
