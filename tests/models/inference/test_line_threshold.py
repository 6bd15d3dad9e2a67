"""The threshold of a line: the correction for its share of defects, the threshold from the costs, and the expected rejects and misses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.inference.drift import make_drift_reference
from models.inference.line_threshold import (
    DecisionRule,
    choose_line_threshold,
    correct_for_share,
    estimate_shares,
    find_training_share,
    make_decision_rule,
    share_below,
)
from models.registry.manifest import Histogram, Manifest
from streams.errors import ModelError

shares = st.floats(0.001, 0.999)


def make_manifest(**given: Any) -> Manifest:
    """A version trained on 600 good and 400 defective pictures, for costs of a miss and of a false alarm of 4 : 1."""
    values = {
        "version": "v1",
        "created": "2026-01-31T12:00:00Z",
        "classes": ("ok", "crack", "pore"),
        "ok_class": 0,
        "preprocessing": {"side_px": 64},
        "voters": [{"name": "lenet", "network": "lenet", "weights_file": "w.h5", "side_px": 32}],
        "threshold": 0.3,
        "band": {"low": 0.3, "high": 0.3},
        "costs": {"miss": 4, "false_alarm": 1},
        "golden": {"file": "g.npz"},
        "data": {"sha256": "0" * 64, "pictures": {"ok": 600, "crack": 300, "pore": 100}, "split": "none"},
        "figures": {},
        "command": "none",
        "files": {file: {"sha256": "0" * 64, "bytes": 0} for file in ("w.h5", "g.npz")},
    }
    return Manifest.model_validate(values | given)


@given(st.floats(0, 1), st.floats(0, 1), shares, shares)
def test_the_correction_keeps_the_order_of_the_pictures(first: float, second: float, training: float, line: float) -> None:
    lower, higher = sorted((first, second))
    assert correct_for_share(lower, training, line) <= correct_for_share(higher, training, line)


@given(st.floats(0, 1), shares)
def test_at_the_share_of_the_training_the_correction_changes_nothing(probability: float, training: float) -> None:
    assert correct_for_share(probability, training, training) == pytest.approx(probability, abs=1e-12)


@given(st.floats(0, 1), shares, shares)
def test_the_correction_is_undone_by_its_reverse_and_fewer_defects_lower_the_probability(
    probability: float, training: float, line: float
) -> None:
    corrected = correct_for_share(probability, training, line)
    assert 0 <= corrected <= 1
    assert correct_for_share(corrected, line, training) == pytest.approx(probability, abs=1e-6)
    if line <= training:
        assert corrected <= probability + 1e-12


@given(shares, st.floats(0.01, 100))
def test_a_part_at_the_threshold_costs_as_much_rejected_as_passed(line: float, miss: float) -> None:
    manifest = make_manifest(costs={"miss": miss, "false_alarm": 1})
    corrected = float(correct_for_share(choose_line_threshold(manifest, line), find_training_share(manifest), line))
    assert corrected * miss == pytest.approx(1 - corrected, rel=1e-3)


@given(shares, shares)
def test_fewer_defects_on_the_line_raise_the_threshold(first: float, second: float) -> None:
    fewer, more = sorted((first, second))
    assert choose_line_threshold(make_manifest(), fewer) >= choose_line_threshold(make_manifest(), more)


def test_the_share_of_the_training_counts_all_classes_of_defects() -> None:
    assert find_training_share(make_manifest()) == pytest.approx(0.4)


def test_a_version_that_does_not_count_its_pictures_is_refused_for_a_share_and_accepted_for_a_threshold() -> None:
    manifest = make_manifest(data={"sha256": "0" * 64, "pictures": {"ok": 0, "crack": 0}, "split": "none"})
    with pytest.raises(ModelError, match="Set a threshold instead"):
        make_decision_rule(manifest, line_share=0.01)
    assert make_decision_rule(manifest, threshold=0.8, line_share=0.01).threshold == 0.8


def test_an_explicit_threshold_wins_and_without_both_the_version_decides() -> None:
    manifest = make_manifest()
    assert make_decision_rule(manifest) == DecisionRule(0.3, 0.3, 0.3)
    assert make_decision_rule(manifest, 0.6, 0.01) == DecisionRule(0.6, 0.6, 0.6)
    assert make_decision_rule(manifest, line_share=0.01).threshold == pytest.approx(choose_line_threshold(manifest, 0.01))


@given(st.floats(1e-6, 1 - 1e-6))
def test_the_review_band_moves_with_the_threshold_and_contains_it(threshold: float) -> None:
    rule = make_decision_rule(make_manifest(band={"low": 0.2, "high": 0.5}), threshold)
    assert 0 <= rule.low <= rule.threshold <= rule.high <= 1
    if 0.001 < threshold < 0.999:
        assert rule.choose_label(threshold) == "review"


def test_the_threshold_of_the_version_keeps_its_review_band() -> None:
    rule = make_decision_rule(make_manifest(band={"low": 0.2, "high": 0.5}), 0.3)
    assert (rule.low, rule.high) == pytest.approx((0.2, 0.5))


def test_the_share_below_a_value_is_exact_at_the_edges_and_grows_between_them() -> None:
    histogram = Histogram(edges=(0.1, 0.5), shares=(0.5, 0.3, 0.2))
    assert share_below(histogram, 0.1) == pytest.approx(0.5)
    assert share_below(histogram, 0.5) == pytest.approx(0.8)
    assert (share_below(histogram, 0.0), share_below(histogram, 1.0)) == (0, 1)
    values = [share_below(histogram, probability) for probability in np.linspace(0, 1, 50)]
    assert values == sorted(values)


def test_the_expected_shares_are_those_of_the_validation_pictures() -> None:
    """The narrow bins of a new version place the numbers where they belong, even far above the last wide bin."""
    random = np.random.default_rng(1)
    is_defect = np.arange(4000) < 2000
    probability = 1 / (1 + np.exp(-random.normal(np.where(is_defect, 4, -4), 2)))
    reference = make_drift_reference(np.zeros((4000, 16, 16), np.uint8), probability, is_defect)
    manifest = make_manifest(reference=reference.model_dump(), band={"low": 0.2, "high": 0.5})
    rule = make_decision_rule(manifest, line_share=0.01)
    labels = np.array([rule.choose_label(float(value)) for value in probability])
    expected = estimate_shares(manifest, rule, 0.01)
    assert expected.false_alarms == pytest.approx(0.99 * (labels[~is_defect] == "defect").mean(), abs=0.002)
    assert expected.misses == pytest.approx(0.01 * (labels[is_defect] == "ok").mean(), abs=0.0005)
    reviews = 0.99 * (labels[~is_defect] == "review").mean() + 0.01 * (labels[is_defect] == "review").mean()
    assert expected.reviews == pytest.approx(reviews, abs=0.002)


def test_without_histograms_nothing_is_estimated() -> None:
    with pytest.raises(ModelError, match="castline models reference"):
        estimate_shares(make_manifest(), DecisionRule(0.5, 0.5, 0.5), 0.01)


def make_measured_manifest(good: tuple[float, ...], bad: tuple[float, ...], **given: Any) -> Manifest:
    """A version whose validation pictures had these probabilities."""
    probability, is_defect = np.array([*good, *bad]), np.arange(len(good) + len(bad)) >= len(good)
    reference = make_drift_reference(np.zeros((len(probability), 16, 16), np.uint8), probability, is_defect)
    return make_manifest(reference=reference.model_dump(), **given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"threshold": 0.0}, "would call every part defective"),
        ({"threshold": 0.01}, "would call every part defective"),
        ({"threshold": 0.95}, "would call no part defective"),
        ({"line_share": 0.0001}, "would call no part defective"),
        ({"line_share": 0.999}, "would call every part defective"),
        ({"miss_risk": 0.09}, "No part would pass without a review"),
    ],
)
def test_settings_that_call_every_part_defective_or_none_are_refused(given: dict[str, float], reason: str) -> None:
    manifest = make_measured_manifest((0.05, 0.1, 0.2), (0.04, *[0.9] * 10))
    with pytest.raises(ModelError, match=reason):
        make_decision_rule(manifest, **given)
    assert make_decision_rule(manifest, threshold=0.5).threshold == 0.5
    assert make_decision_rule(manifest).threshold == 0.3, "the rule of the version is never refused here"


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_without_histograms_only_a_threshold_that_no_probability_fulfils_is_refused(threshold: float) -> None:
    with pytest.raises(ModelError, match="Choose another threshold"):
        make_decision_rule(make_manifest(), threshold)


def test_a_part_passes_only_below_the_pass_threshold_and_is_for_review_above_it() -> None:
    manifest = make_measured_manifest((0.01, 0.1, 0.2, 0.5), (0.4, 0.6, *[0.9] * 18))
    rule = make_decision_rule(manifest, threshold=0.8, miss_risk=0.05)
    assert 0.35 < rule.low < 0.4
    assert [rule.choose_label(value) for value in (0.2, 0.5, 0.79, 0.81)] == ["ok", "review", "review", "defect"]
    expected = estimate_shares(manifest, rule, 0.1)
    assert expected.misses == pytest.approx(0, abs=0.005)
    assert expected.reviews == pytest.approx(0.9 / 4 + 0.1 * 2 / 20, abs=0.01)
