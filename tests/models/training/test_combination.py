"""Threshold, weights and band follow from what mistakes cost."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.figures import Share, calibration_error, measure
from models.registry.manifest import Costs
from models.training.combination import best_temperature, best_threshold, combine, doubt


def test_the_threshold_falls_when_a_miss_costs_more() -> None:
    rng = np.random.default_rng(1)
    bad = rng.random(4000) < 0.5
    probability = np.clip(rng.normal(np.where(bad, 0.65, 0.35), 0.15), 0.001, 0.999)
    found = [best_threshold(probability, bad, Costs(miss=miss, false_alarm=1))[0] for miss in (0.1, 1, 10)]
    assert found[0] > found[1] > found[2]


def test_a_threshold_between_two_clean_sides_is_the_one_the_costs_ask_for() -> None:
    probability, bad = np.array([0.01, 0.02, 0.9, 0.95]), np.array([False, False, True, True])
    threshold, cost = best_threshold(probability, bad, Costs(miss=3, false_alarm=1))
    assert threshold == pytest.approx(0.25, abs=0.01)
    assert cost == 0


def test_the_threshold_found_costs_what_is_said() -> None:
    rng = np.random.default_rng(3)
    probability, bad = rng.random(300), rng.random(300) < 0.4
    threshold, cost = best_threshold(probability, bad, Costs(miss=5, false_alarm=2))
    called = probability >= threshold
    assert cost == pytest.approx((5 * (bad & ~called).sum() + 2 * (~bad & called).sum()) / 300)


def test_pictures_of_a_rare_class_count_what_they_are_told_to() -> None:
    rng = np.random.default_rng(4)
    bad = rng.random(2000) < 0.8
    probability = np.clip(rng.normal(np.where(bad, 0.6, 0.4), 0.15), 0.001, 0.999)
    costs, counts = Costs(miss=1, false_alarm=1), np.where(bad, 0.5 / bad.mean(), 0.5 / (~bad).mean())
    threshold, cost = best_threshold(probability, bad, costs, counts)
    assert threshold > best_threshold(probability, bad, costs)[0] + 0.05
    repeated = np.concatenate([np.flatnonzero(bad), np.repeat(np.flatnonzero(~bad), 4)])  # as if there were as many
    assert threshold == pytest.approx(best_threshold(probability[repeated], bad[repeated], costs)[0], abs=0.03)
    assert cost == pytest.approx((((probability < threshold) == bad) * counts).sum() / counts.sum())


def test_the_band_holds_the_share_asked_for_and_the_threshold() -> None:
    probability = np.linspace(0.001, 0.999, 1000)
    band = doubt(probability, 0.4, 0.05)
    inside = ((probability >= band.low) & (probability < band.high)).mean()
    assert inside == pytest.approx(0.05, abs=0.003)
    assert band.low <= 0.4 <= band.high
    assert doubt(probability, 0.4, 0).low == doubt(probability, 0.4, 0).high == 0.4


@pytest.mark.parametrize("seed", range(5))
def test_neither_threshold_nor_band_ends_at_a_picture(seed: int) -> None:
    """Another runtime rounds otherwise: a picture at the very edge would change its label."""
    rng = np.random.default_rng(seed)
    bad = rng.random(400) < 0.5
    probability = np.round(np.clip(rng.normal(np.where(bad, 0.65, 0.35), 0.15), 0.001, 0.999), 3).astype(np.float64)
    threshold, _ = best_threshold(probability, bad, Costs(miss=3, false_alarm=1))
    band = doubt(probability, threshold, 0.02)
    assert min(np.abs(probability - edge).min() for edge in (threshold, band.low, band.high)) > 5e-5


def test_a_network_too_sure_of_itself_is_cooled() -> None:
    rng = np.random.default_rng(5)
    true_logit = rng.normal(0, 2, 5000)
    labels = (rng.random(5000) < 1 / (1 + np.exp(-true_logit))).astype(np.int32)
    boasted = 1 / (1 + np.exp(-3 * true_logit))
    assert best_temperature(np.stack([1 - boasted, boasted], axis=1), labels) == pytest.approx(3, rel=0.1)


def test_two_voters_that_err_differently_are_better_together() -> None:
    rng = np.random.default_rng(7)
    labels = (rng.random(3000) < 0.5).astype(np.int32)
    logits = (labels * 2 - 1)[:, None] * 1.5 + rng.normal(0, 1.5, (3000, 2))
    defect = 1 / (1 + np.exp(-logits))
    answers = np.stack([1 - defect, defect], axis=-1).astype(np.float32)
    found = combine(["a", "b"], answers, labels, 0, Costs(miss=10, false_alarm=1), 0.01)
    assert found.better
    assert found.cost < min(found.voters_cost)


def test_an_ensemble_with_a_voter_that_knows_nothing_is_not_called_better() -> None:
    rng = np.random.default_rng(8)
    labels = (rng.random(2000) < 0.5).astype(np.int32)
    good = 1 / (1 + np.exp(-((labels * 2 - 1) * 4 + rng.normal(0, 2, 2000))))
    answers = np.stack([np.stack([1 - good, good], 1), np.full((2000, 2), 0.5)], axis=1).astype(np.float32)
    found = combine(["knows", "guesses"], answers, labels, 0, Costs(miss=10, false_alarm=1), 0.0)
    assert found.vote.weights[0] > 0.5
    assert not found.better


def test_an_interval_is_that_of_clopper_and_pearson() -> None:
    """Values of the published tables: 0 of 10 and 8 of 10."""
    nothing, most = Share.counted(0, 10), Share.counted(8, 10)
    assert (nothing.low, round(nothing.high, 4)) == (0.0, 0.3085)
    assert (round(most.low, 4), round(most.high, 4)) == (0.4439, 0.9748)


def test_figures_count_misses_alarms_and_reviews() -> None:
    probability = np.array([0.9, 0.2, 0.45, 0.6, 0.1])
    bad = np.array([True, True, True, False, False])
    found = measure(probability, bad, 0.5, 0.4, 0.5)
    assert found.confusion == ((1, 1), (2, 1))
    assert (found.misses.count, found.misses_outside_review, found.reviews.count) == (2, 1, 1)
    assert found.accuracy.value == pytest.approx(0.4)


def test_probabilities_that_are_true_have_no_calibration_error() -> None:
    rng = np.random.default_rng(9)
    probability = rng.random(40_000)
    assert calibration_error(probability, rng.random(40_000) < probability) < 0.01
