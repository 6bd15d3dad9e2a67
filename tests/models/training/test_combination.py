"""Threshold, weights and review band follow from the costs of mistakes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from models.registry.manifest import Costs
from models.training.combination import (
    choose_combination,
    choose_review_band,
    choose_temperature,
    choose_threshold,
    compare_weights,
    expect_separation,
)
from streams.errors import ModelError


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


def make_votes(
    labels: npt.NDArray[np.int32], strengths: tuple[float, ...], noises: tuple[float, ...], seed: int
) -> npt.NDArray[np.float32]:
    """Probabilities, shape (n, networks, 2), of networks whose log odds are right on average."""
    rng = np.random.default_rng(seed)
    logits = (labels * 2 - 1)[:, None] * np.array(strengths) + rng.normal(0, 1, (len(labels), len(noises))) * np.array(noises)
    defect = 1 / (1 + np.exp(-logits))
    return np.stack([1 - defect, defect], axis=-1).astype(np.float32)


LABELS = (np.random.default_rng(7).random(600) < 0.5).astype(np.int32)
COSTS = Costs(miss=10, false_alarm=1)


def test_two_networks_with_different_errors_are_better_together() -> None:
    found = choose_combination(["a", "b"], make_votes(LABELS, (1.5, 1.5), (1.5, 1.5), 7), LABELS, 0, COSTS, 0.01)
    assert found.beats_members
    assert found.cost < min(found.member_costs)
    assert min(found.vote.weights) > 0.25
    assert found.notes == ()


def test_an_ensemble_that_is_worse_than_a_network_on_held_out_pictures_is_not_written() -> None:
    """A certain network with wrong certainties once got nearly the whole weight. Held-out pictures show which network is better."""
    found = choose_combination(["knows", "guesses"], make_votes(LABELS, (1, 0), (1, 3), 8), LABELS, 0, COSTS, 0.0)
    assert found.vote.weights.tolist() == [1, 0]
    assert not found.beats_members
    assert "no ensemble is better than knows alone" in found.notes[0]


def test_a_casting_never_stands_on_both_sides_of_a_comparison_of_weights() -> None:
    """All defective pictures show one casting. So no defective picture can be held out while another one chooses the temperature."""
    votes, counts, weights = make_votes(LABELS, (1, 1), (1, 1), 9), np.ones(len(LABELS)), list(np.eye(2))
    groups = np.where(LABELS == 1, 0, 1 + np.arange(len(LABELS))).astype(np.int32)
    assert compare_weights(weights, votes, LABELS, 0, counts) is not None
    assert compare_weights(weights, votes, LABELS, 0, counts, groups) is None


def test_too_few_pictures_to_compare_get_equal_weights_and_a_sentence() -> None:
    labels = np.array([0, 0, 0, 0, 1], np.int32)
    found = choose_combination(["a", "b"], make_votes(labels, (2, 2), (0.5, 0.5), 1), labels, 0, COSTS, 0.0)
    assert found.vote.weights.tolist() == [0.5, 0.5]
    assert "too few to compare weights" in found.notes[0]


def test_a_threshold_that_calls_every_part_defective_is_refused_with_the_reason() -> None:
    """A miss costs so much that rejecting all parts would be cheapest."""
    votes = make_votes(LABELS, (0.5,), (2,), 3)
    found = choose_combination(["a"], votes, LABELS, 0, Costs(miss=1000, false_alarm=1), 0.0)
    probability = votes[:, 0, 1].astype(np.float64)
    called = found.vote.compute_defect_probability(votes) >= found.vote.threshold
    assert not called[LABELS == 0].all()
    assert called[LABELS == 1].any()
    assert "a version that calls every part defective would be the cheapest" in found.notes[0]
    assert choose_threshold(probability, LABELS == 1, Costs(miss=0.001, false_alarm=1))[0] < probability[LABELS == 1].max()


@pytest.mark.parametrize("defect", [[0.5] * 4, [0.6, 0.7, 0.2, 0.3]])
def test_networks_for_which_every_threshold_is_degenerate_are_refused(defect: list[float]) -> None:
    is_defect = np.array([False, False, True, True])
    with pytest.raises(ModelError, match="So no threshold tells them apart"):
        expect_separation(np.array(defect), is_defect)
    expect_separation(np.array([0.6, 0.2, 0.1, 0.3]), is_defect)
