"""The outlook of a line: rejects and misses per hour, before and after a change of its settings or of its version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from models.inference.line_outlook import compare_versions, find_share, make_outlook, make_present_outlook
from models.registry.manifest import DetailEntry, Manifest, ScorerEntry
from streams.errors import ModelError
from streams.records import LiveLineSettings
from tests.models.inference.test_line_threshold import make_manifest, make_measured_manifest

GOOD, BAD = (0.01, 0.05, 0.1, 0.6), (0.4, 0.7, 0.8, *[0.95] * 17)


def make_line(**given: Any) -> LiveLineSettings:
    return LiveLineSettings(line="line-1", set_by="anna", set_at=datetime(2026, 1, 31, tzinfo=UTC), **given)


def test_two_versions_are_compared_at_the_share_that_was_set_for_the_line() -> None:
    worse = make_measured_manifest(GOOD, BAD)
    better = make_measured_manifest((0.01, 0.05, 0.1, 0.1), BAD, version="v2")
    found = compare_versions("line-1", worse, better, make_line(threshold=0.5, defect_share=0.1), parts_per_hour=200)
    assert found.title == "Expected on line-1 at 200 parts an hour and 10.000% defects"
    assert found.before is not None
    assert found.before.false_alarms_per_hour == pytest.approx(45, abs=0.5)
    assert found.after.false_alarms_per_hour == pytest.approx(0, abs=0.5)
    assert "per hour 45.00 good parts rejected, 1.00 defects missed" in found.before.describe()


def test_without_a_set_share_the_training_pictures_give_it() -> None:
    assert find_share(make_manifest(), None) == find_share(make_manifest(), make_line(mm_per_px=0.1)) == pytest.approx(0.4)
    assert compare_versions("line-1", None, make_measured_manifest(GOOD, BAD), None).line_share == pytest.approx(0.4)


def test_settings_that_do_not_fit_a_version_are_named_and_its_own_threshold_decides() -> None:
    line = make_line(threshold=1.0)
    with pytest.raises(ModelError, match="would call no part defective"):
        make_outlook(make_measured_manifest(GOOD, BAD), line, 0.01, 1000)
    present = make_present_outlook(make_measured_manifest(GOOD, BAD), line, 0.01, 1000)
    assert (present.threshold, present.false_alarms_per_hour) == (0.3, None)
    assert "the threshold of the version decides. The threshold 1 would call no part defective" in present.describe()


SCORER = {"cut_off": 2.0, "alarm_share": 0.01, "highest_alarm_share": 0.05, "good_pictures": 60}
TEMPLATE = {"name": "golden-template", "files": ["s.npz"], "side_px": 64, **SCORER}
DETAILS = {"file": "d.npz", "radius_px": 900, "rings": 400, "strip_rings": 40, "overlap_rings": 4, **SCORER, "highest_alarm_share": 0.03}


def with_scorers(manifest: Manifest, **given: Any) -> Manifest:
    return manifest.model_copy(update={"scorers": (ScorerEntry(**TEMPLATE),), "details": DetailEntry(**DETAILS), **given})


def test_the_alarms_of_all_scorers_are_added() -> None:
    """A part goes to review if one of the two scorers is above its cut-off."""
    found = make_outlook(with_scorers(make_measured_manifest(GOOD, BAD), voters=()), None, None, 1000)
    expected = "at most 80.00 go to review because of their scores (with 95 % confidence for each of the scorers)."
    assert expected in found.describe()
    alone = make_outlook(with_scorers(make_measured_manifest(GOOD, BAD), voters=(), details=None), None, None, 1000)
    assert "at most 50.00 go to review because of their scores (with 95 % confidence)." in alone.describe()


def test_the_reviews_because_of_scores_are_named_where_the_line_has_them() -> None:
    manifest = with_scorers(make_measured_manifest(GOOD, BAD))
    assert "go to review" not in make_outlook(manifest, make_line(), 0.1, 1000).describe()
    assert "at most 80.00 go to review" in make_outlook(manifest, make_line(review_anomalies=True), 0.1, 1000).describe()
