"""Threshold, weights and review band follow from the costs of mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from models.registry.manifest import Costs
from models.training.combination import choose_combination, choose_review_band, choose_temperature, choose_threshold


def test_the_threshold_falls_when_a_miss_costs_more() -> None:
    rng = np.random.default_rng(1)
    is_defect = rng.random(4000) < 0.5
    probability = np.clip(rng.normal(np.where(is_defect, 0.65, 0.35), 0.15), 0.001, 0.999)
    found = [choose_threshold(probability, is_defect, Costs(miss=miss, false_alarm=1))[0] for miss in (0.1, 1, 10)]
    assert found[0] > found[1] > found[2]


def test_a_threshold_between_two_separate_classes_follows_from_the_costs() -> None:
    probability, is_defect = np.array([0.01, 0.02, 0.9, 0.95]), np.array([False, False, True, True])
    threshold, cost = choose_threshold(probability, is_defect, Costs(miss=3, false_alarm=1))
    assert threshold == pytest.approx(0.25, abs=0.01)
    assert cost == 0


def test_the_returned_cost_is_that_of_the_threshold() -> None:
    rng = np.random.default_rng(3)
    probability, is_defect = rng.random(300), rng.random(300) < 0.4
    threshold, cost = choose_threshold(probability, is_defect, Costs(miss=5, false_alarm=2))
    called = probability >= threshold
    assert cost == pytest.approx((5 * (is_defect & ~called).sum() + 2 * (~is_defect & called).sum()) / 300)


def test_pictures_of_a_rare_class_count_by_their_weight() -> None:
    rng = np.random.default_rng(4)
    is_defect = rng.random(2000) < 0.8
    probability = np.clip(rng.normal(np.where(is_defect, 0.6, 0.4), 0.15), 0.001, 0.999)
    costs, counts = Costs(miss=1, false_alarm=1), np.where(is_defect, 0.5 / is_defect.mean(), 0.5 / (~is_defect).mean())
    threshold, cost = choose_threshold(probability, is_defect, costs, counts)
    assert threshold > choose_threshold(probability, is_defect, costs)[0] + 0.05
    repeated = np.concatenate([np.flatnonzero(is_defect), np.repeat(np.flatnonzero(~is_defect), 4)])
    assert threshold == pytest.approx(choose_threshold(probability[repeated], is_defect[repeated], costs)[0], abs=0.03)
    assert cost == pytest.approx((((probability < threshold) == is_defect) * counts).sum() / counts.sum())


def test_the_review_band_holds_the_given_share_and_the_threshold() -> None:
    probability = np.linspace(0.001, 0.999, 1000)
    band = choose_review_band(probability, 0.4, 0.05)
    inside = ((probability >= band.low) & (probability < band.high)).mean()
    assert inside == pytest.approx(0.05, abs=0.003)
    assert band.low <= 0.4 <= band.high
    assert choose_review_band(probability, 0.4, 0).low == choose_review_band(probability, 0.4, 0).high == 0.4


@pytest.mark.parametrize("seed", range(5))
def test_neither_threshold_nor_band_ends_at_a_picture(seed: int) -> None:
    """The rounding of another runtime would change the label of a picture at the edge."""
    rng = np.random.default_rng(seed)
    is_defect = rng.random(400) < 0.5
    probability = np.round(np.clip(rng.normal(np.where(is_defect, 0.65, 0.35), 0.15), 0.001, 0.999), 3).astype(np.float64)
    threshold, _ = choose_threshold(probability, is_defect, Costs(miss=3, false_alarm=1))
    band = choose_review_band(probability, threshold, 0.02)
    assert min(np.abs(probability - edge).min() for edge in (threshold, band.low, band.high)) > 5e-5


def test_an_overconfident_network_gets_a_higher_temperature() -> None:
    rng = np.random.default_rng(5)
    true_logit = rng.normal(0, 2, 5000)
    labels = (rng.random(5000) < 1 / (1 + np.exp(-true_logit))).astype(np.int32)
    overconfident = 1 / (1 + np.exp(-3 * true_logit))
    assert choose_temperature(np.stack([1 - overconfident, overconfident], axis=1), labels) == pytest.approx(3, rel=0.1)


def test_two_networks_with_different_errors_are_better_together() -> None:
    rng = np.random.default_rng(7)
    labels = (rng.random(3000) < 0.5).astype(np.int32)
    logits = (labels * 2 - 1)[:, None] * 1.5 + rng.normal(0, 1.5, (3000, 2))
    defect = 1 / (1 + np.exp(-logits))
    probabilities = np.stack([1 - defect, defect], axis=-1).astype(np.float32)
    found = choose_combination(["a", "b"], probabilities, labels, 0, Costs(miss=10, false_alarm=1), 0.01)
    assert found.beats_members
    assert found.cost < min(found.member_costs)


def test_an_ensemble_with_a_network_that_guesses_does_not_beat_its_members() -> None:
    rng = np.random.default_rng(8)
    labels = (rng.random(2000) < 0.5).astype(np.int32)
    good = 1 / (1 + np.exp(-((labels * 2 - 1) * 4 + rng.normal(0, 2, 2000))))
    probabilities = np.stack([np.stack([1 - good, good], 1), np.full((2000, 2), 0.5)], axis=1).astype(np.float32)
    found = choose_combination(["knows", "guesses"], probabilities, labels, 0, Costs(miss=10, false_alarm=1), 0.0)
    assert found.vote.weights[0] > 0.5
    assert not found.beats_members
