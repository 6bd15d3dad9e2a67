"""The share of defects of a line is estimated from the newest parts that the version judged, and from people's decisions about them."""

from __future__ import annotations

import pytest

from models.registry import BUNDLED_VERSIONS, open_registry
from station.line_settings.share_estimate import estimate_share, read_judged_parts
from streams.errors import ModelError
from tests.station.conftest import MakePart


def test_only_the_newest_parts_that_the_version_judged_count(part: MakePart) -> None:
    part(defect_probability=0.5)
    part(defect_probability=0.9, review_label="ok")
    part(defect_probability=0.1, review_label="defect")
    part(defect_probability=0.2)
    part(defect_probability=0.3, model="other")
    part(defect_probability=0.4, line="line-2")
    part(defect_probability=None, label="review")
    found = read_judged_parts("line-1", "demo", 3)
    assert found.unreviewed.tolist() == [0.2]
    assert sorted(zip(found.reviewed.tolist(), found.is_defect.tolist(), strict=True)) == [(0.1, True), (0.9, False)]
    assert found.since is not None
    assert len(read_judged_parts("line-1", "demo", 10).unreviewed) == 2


def test_a_line_without_parts_has_no_oldest_part(part: MakePart) -> None:
    found = read_judged_parts("line-2", "demo", 10)
    assert (len(found.unreviewed), len(found.reviewed), found.since) == (0, 0, None)


def test_the_estimate_is_corrected_once_enough_parts_are_reviewed(part: MakePart) -> None:
    manifest = open_registry(BUNDLED_VERSIONS).read_manifest("demo")
    for _ in range(40):
        part(defect_probability=0.001)
    for number in range(19):
        part(defect_probability=0.999, review_label="defect" if number < 5 else "ok")
    few = estimate_share("line-1", manifest)
    assert (few.parts, few.reviewed, few.corrected) == (59, 19, None)
    assert few.warning.startswith("Fewer than 20 of these parts are reviewed")
    assert few.uncorrected.low < few.uncorrected.value < few.uncorrected.high
    part(defect_probability=0.999, review_label="ok")
    enough = estimate_share("line-1", manifest)
    assert (enough.warning, enough.best) == ("", enough.corrected)
    assert enough.share == pytest.approx(5 / 60, abs=0.02), "5 of 20 suspicious parts are really defective"
    assert enough.share < few.share


def test_without_defect_probabilities_a_sentence_says_what_to_do(part: MakePart) -> None:
    manifest = open_registry(BUNDLED_VERSIONS).read_manifest("demo")
    with pytest.raises(ModelError, match="has judged no part of this line"):
        estimate_share("line-2", manifest)
    part()
    with pytest.raises(ModelError, match="has no networks and gives no defect probabilities"):
        estimate_share("line-1", manifest.model_copy(update={"voters": ()}))
