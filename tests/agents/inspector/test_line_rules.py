"""The rules of lines: which threshold decides, what a changed label keeps, and lines without settings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.inspector.judging import make_verdict
from agents.inspector.line_rules import LineRules
from models.inference.line_threshold import choose_line_threshold
from models.inference.soft_vote import Prediction
from models.pictures.regions import Regions
from models.registry import Version
from streams.live_line_settings import LiveSettingsByLine
from streams.records import LiveLineSettings
from tests.agents.inspector.images import CAPTURED_AT, make_judged_image
from tests.models.inference.test_line_threshold import make_manifest, make_measured_manifest

VERSION = Version(Path("v1"), make_manifest())
PIXELS = np.zeros((8, 8), np.uint8)


def make_rules(**given: Any) -> LineRules:
    """Rules with these settings of line-1."""
    rules = LineRules()
    record = LiveLineSettings(line="line-1", set_by="anna", set_at=datetime(2026, 1, 31, tzinfo=UTC), **given)
    rules.follow(LiveSettingsByLine({"line-1": record}))
    return rules


def test_a_line_without_settings_keeps_the_labels_and_the_verdict_ids_of_the_version() -> None:
    for rules, line in ((LineRules(), "line-1"), (make_rules(threshold=0.0), "line-2"), (make_rules(mm_per_px=0.1), "line-1")):
        judged, rule = make_judged_image(line, 1, PIXELS), rules.find(line, VERSION)
        assert rule.apply(judged) is judged
        verdict = make_verdict(judged, "v1", rule.threshold, CAPTURED_AT, rule.decision)
        assert (verdict.threshold, verdict.decision) == (0.3, "")
        assert verdict.verdict_id == make_verdict(judged, "v1", 0.3, CAPTURED_AT).verdict_id


def test_a_threshold_changes_the_label_and_the_id_and_leaves_the_probability() -> None:
    rules = make_rules(threshold=0.005)
    judged = rules.apply(make_judged_image("line-1", 1, PIXELS), VERSION)
    assert judged.label == "defect"
    assert isinstance(judged.prediction, Prediction)
    assert (judged.prediction.defect_probability, judged.prediction.reason) == (0.01, "")
    rule = rules.find("line-1", VERSION)
    verdict = make_verdict(judged, "v1", rule.threshold, CAPTURED_AT, rule.decision)
    assert verdict.threshold == 0.005
    assert verdict.verdict_id != make_verdict(judged, "v1", 0.3, CAPTURED_AT).verdict_id


def test_a_share_of_defects_gives_the_threshold_of_each_version() -> None:
    rules = make_rules(defect_share=0.01)
    cheap = Version(Path("v2"), make_manifest(version="v2", costs={"miss": 1, "false_alarm": 1}))
    for version in (VERSION, cheap):
        rule = rules.find("line-1", version)
        assert rule.threshold == choose_line_threshold(version.manifest, 0.01)
    assert rules.find("line-1", cheap).threshold > rules.find("line-1", VERSION).threshold


def test_a_label_in_the_moved_review_band_has_the_reason_doubt() -> None:
    version = Version(Path("v3"), make_manifest(band={"low": 0.25, "high": 0.35}))
    prediction = make_rules(threshold=0.01).apply(make_judged_image("line-1", 1, PIXELS), version).prediction
    assert isinstance(prediction, Prediction)
    assert (prediction.label, prediction.reason) == ("review", "doubt")


def test_a_picture_that_could_not_be_judged_stays_for_review() -> None:
    judged = make_judged_image("line-1", 1, None)
    assert make_rules(threshold=1.0).apply(judged, VERSION) is judged


def test_a_version_that_cannot_take_a_share_into_account_keeps_its_threshold(caplog: pytest.LogCaptureFixture) -> None:
    uncounted = Version(Path("v4"), make_manifest(data={"sha256": "0" * 64, "pictures": {}, "split": "none"}))
    rule = make_rules(defect_share=0.01).find("line-1", uncounted)
    assert (rule.threshold, rule.rule) == (0.3, None)
    assert "so the threshold of version v1 stays active" in caplog.text


@pytest.mark.parametrize("given", [{"threshold": 0.0}, {"threshold": 1.0}, {"miss_risk": 0.01}])
def test_settings_that_would_call_every_part_the_same_keep_the_threshold_of_the_version(
    given: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    """The version has no histograms, so that a miss risk cannot be applied to it either."""
    rule = make_rules(**given).find("line-1", VERSION)
    assert (rule.threshold, rule.rule) == (0.3, None)
    assert rule.decision
    assert "The settings of line line-1 cannot be used" in caplog.text


def test_with_a_miss_risk_a_part_passes_only_if_it_is_certain_enough() -> None:
    rules = make_rules(miss_risk=0.05)
    version = Version(Path("v5"), make_measured_manifest((0.001, 0.1), (0.005, *[0.9] * 19), version="v5"))
    prediction = rules.apply(make_judged_image("line-1", 1, PIXELS), version).prediction
    assert isinstance(prediction, Prediction)
    assert (prediction.label, prediction.reason, prediction.defect_probability) == ("review", "doubt", 0.01)
    assert rules.find("line-1", version).threshold == 0.3


def test_new_settings_replace_the_old_ones() -> None:
    rules = make_rules(threshold=0.005)
    before = rules.find("line-1", VERSION)
    rules.follow(LiveSettingsByLine())
    assert before.threshold == 0.005, "a batch that has begun keeps its rule"
    assert rules.find("line-1", VERSION).threshold == 0.3


def test_regions_change_the_decision_and_no_threshold() -> None:
    corners = [{"x": x, "y": y} for x, y in ((0, 0), (0.5, 0), (0.5, 1), (0, 1))]
    rules = make_rules(inspect_regions=[{"corners": corners}])
    rule = rules.find("line-1", VERSION)
    assert (rule.threshold, rule.rule) == (0.3, None)
    assert rule.decision
    assert rule.regions == rules.find_regions("line-1") == Regions(inspect=(((0, 0), (0.5, 0), (0.5, 1), (0, 1)),))
    assert rules.find_regions("line-2") is None


@pytest.mark.parametrize(
    ("review_anomalies", "score", "threshold", "expected"),
    [
        (True, 0.51, None, ("review", "anomaly")),
        (True, 0.5, None, ("ok", "")),
        (False, 0.99, None, ("ok", "")),
        (None, 0.99, None, ("ok", "")),
        (True, 0.99, 0.005, ("defect", "")),
    ],
)
def test_a_score_above_the_cut_off_changes_ok_to_review_where_the_line_says_so(
    review_anomalies: bool | None, score: float, threshold: float | None, expected: tuple[str, str]
) -> None:
    rules = make_rules(review_anomalies=review_anomalies, threshold=threshold)
    judged = make_judged_image("line-1", 1, PIXELS)
    assert isinstance(judged.prediction, Prediction)
    scored = replace(judged, prediction=replace(judged.prediction, scores={"golden-template": score}))
    rule = rules.find("line-1", VERSION)
    verdict = make_verdict(rule.apply(scored), "v1", rule.threshold, CAPTURED_AT, rule.decision)
    assert (verdict.label, verdict.reason) == expected
    assert verdict.votes == {"alexnet": 0.01, "golden-template": score}
    assert bool(rule.decision) == (review_anomalies is not None or threshold is not None)


def test_no_threshold_changes_the_label_of_a_version_without_networks() -> None:
    entry = {
        "name": "golden-template",
        "files": ["s.npz"],
        "side_px": 64,
        "cut_off": 2.0,
        "alarm_share": 0.05,
        "highest_alarm_share": 0.1,
        "good_pictures": 20,
    }
    files = {file: {"sha256": "0" * 64, "bytes": 0} for file in ("s.npz", "g.npz")}
    version = Version(Path("v5"), make_manifest(voters=[], scorers=[entry], threshold=0.5, files=files))
    judged = make_judged_image("line-1", 1, PIXELS)
    scored = replace(judged, prediction=Prediction("review", None, {}, "anomaly", scores={"golden-template": 0.7}))
    rule = make_rules(threshold=0.0, defect_share=0.5).find("line-1", version)
    assert rule.apply(scored) is scored
    assert rule.threshold == 0.5
