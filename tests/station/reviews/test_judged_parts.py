"""The parts from which the share of defects of a line is estimated: the newest ones that the version judged, with people's decisions."""

from __future__ import annotations

from station.reviews.judged_parts import read_judged_parts
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
