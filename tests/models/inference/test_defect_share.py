"""The estimated share of defects of a line: from probabilities alone, and corrected by reviews where the version is wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from models.inference.defect_share import correct_by_reviews, estimate_from_probabilities

TRAINING_SHARE = 0.5
FloatArray = npt.NDArray[np.float64]


def draw_parts(share: float, parts: int, seed: int, good_shift: float = 0) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Parts of a line and the probabilities that a calibrated version gives them. `good_shift` makes good parts look more defective."""
    random = np.random.default_rng(seed)
    is_defect = random.random(parts) < share
    ratio = random.normal(np.where(is_defect, 4.5, -4.5 + good_shift), 3)
    return 1 / (1 + np.exp(-ratio)), is_defect


def review(probability: FloatArray, is_defect: npt.NDArray[np.bool_], seed: int) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """People review the 150 most suspicious parts and 150 others. Returns the other parts, the reviewed ones and their truth."""
    order = np.argsort(-probability)
    chosen = np.zeros(len(probability), np.bool_)
    chosen[order[:150]] = True
    chosen[np.random.default_rng(seed).choice(order[150:], 150, replace=False)] = True
    return probability[~chosen], probability[chosen], is_defect[chosen]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.6])
def test_the_probabilities_of_a_calibrated_version_show_the_share(share: float) -> None:
    inside = 0
    for seed in range(20):
        estimate = estimate_from_probabilities(draw_parts(share, 3000, seed)[0], TRAINING_SHARE)
        inside += estimate.low <= share <= estimate.high
        assert estimate.low < estimate.value < estimate.high
    assert inside >= 16


def test_a_line_without_a_suspicious_part_has_a_share_near_nothing() -> None:
    estimate = estimate_from_probabilities(np.full(1000, 1e-4), TRAINING_SHARE)
    assert estimate.value < 1e-4
    assert 0.001 < estimate.high < 0.005


def test_reviews_correct_a_version_that_gives_good_parts_too_high_probabilities() -> None:
    misled, inside = 0, 0
    for seed in range(10):
        probability, is_defect = draw_parts(0.02, 5000, seed, good_shift=3)
        alone = estimate_from_probabilities(probability, TRAINING_SHARE)
        corrected = correct_by_reviews(*_arguments(probability, is_defect, seed))
        misled += alone.low > 0.03
        inside += corrected.low <= 0.02 <= corrected.high
        assert corrected.high < 0.06
    assert misled == 10
    assert inside >= 8


def test_reviews_change_little_if_the_version_is_right() -> None:
    inside = 0
    for seed in range(10):
        probability, is_defect = draw_parts(0.02, 5000, seed)
        corrected = correct_by_reviews(*_arguments(probability, is_defect, seed))
        inside += corrected.low <= 0.02 <= corrected.high
        assert corrected.high < 0.04
    assert inside >= 8


def test_a_few_reviews_are_not_enough() -> None:
    with pytest.raises(ValueError, match="at least 20 reviewed parts"):
        correct_by_reviews(np.full(100, 0.1), 0.5, np.full(19, 0.1), np.zeros(19, np.bool_))


def _arguments(
    probability: FloatArray, is_defect: npt.NDArray[np.bool_], seed: int
) -> tuple[FloatArray, float, FloatArray, npt.NDArray[np.bool_]]:
    others, reviewed, truth = review(probability, is_defect, seed)
    return others, TRAINING_SHARE, reviewed, truth
