"""Kappa agrees with scikit-learn and with the worked example of the handbook, and its interval holds the true value."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from station.studies.kappa import MISSING, compute_cohen, compute_fleiss


def draw_labels(parts: int, error: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of two people, shape (parts, 1). Each of them mistakes the share `error` of the parts; half are defective."""
    rng = np.random.default_rng(seed)
    truth = rng.random((parts, 1)) < 0.5
    first, second = ((truth ^ (rng.random((parts, 1)) < error)).astype(np.int8) for _ in range(2))
    return first, second


def test_cohens_kappa_is_that_of_scikit_learn() -> None:
    first, second = draw_labels(200, 0.1, seed=3)
    found = compute_cohen(first, second)
    assert found.value == pytest.approx(cohen_kappa_score(first[:, 0], second[:, 0]))
    assert found.agreement == pytest.approx(float((first == second).mean()))
    assert found.parts == 200


def test_fleiss_kappa_is_that_of_the_formula() -> None:
    """Four parts with three labels each: 3, 0, 2 and 1 of them are `defect`."""
    labels = np.array([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0], [1, MISSING, 1]], np.int8)
    agreement, chance = (1 + 1 + 1 / 3 + 1 / 3) / 4, 0.5
    found = compute_fleiss(labels)
    assert found.parts == 4
    assert found.agreement == pytest.approx(agreement)
    assert found.value == pytest.approx((agreement - chance) / (1 - chance))


def test_the_interval_holds_the_true_kappa_in_nine_of_ten_studies() -> None:
    """Two people who mistake 10 % each agree about 0.9² + 0.1² of the parts, which is a kappa of 0.64."""
    found = [compute_cohen(*draw_labels(60, 0.1, seed)) for seed in range(60)]
    held = sum(kappa.low is not None and kappa.high is not None and kappa.low <= 0.64 <= kappa.high for kappa in found)
    assert held >= 0.88 * len(found)


@pytest.mark.parametrize(("parts", "error"), [(10, 0.01), (10, 0.025), (30, 0.01), (30, 0.025)])
def test_the_interval_holds_the_true_kappa_also_where_nearly_everybody_agrees(parts: int, error: float) -> None:
    """Without the imaginary parts, the interval held it in 19 % to 76 % of these studies."""
    agreement = (1 - error) ** 2 + error**2
    studies = [draw_labels(parts, error, seed) for seed in range(200)]
    for found in ([compute_cohen(*study) for study in studies], [compute_fleiss(np.hstack(study)) for study in studies]):
        defined = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
        held = sum(low <= 2 * agreement - 1 <= high for low, high in defined)
        assert held >= 0.92 * len(defined) > 0.9 * len(studies)


def test_full_agreement_about_few_parts_does_not_prove_full_agreement() -> None:
    labels = np.array([[0], [1], [0], [1], [1]], np.int8)
    for found in (compute_cohen(labels, labels), compute_fleiss(np.hstack([labels, labels]))):
        assert (found.value, found.high) == (1, 1)
        assert found.low is not None
        assert found.low < 0.6


def test_the_rounds_of_a_part_do_not_count_as_independent_parts() -> None:
    first, second = draw_labels(40, 0.15, seed=5)
    once, thrice = compute_cohen(first, second), compute_cohen(np.repeat(first, 3, axis=1), np.repeat(second, 3, axis=1))
    assert (once.value, once.low, once.high) == pytest.approx((thrice.value, thrice.low, thrice.high))


def test_kappa_is_not_defined_where_everybody_says_the_same_or_nothing() -> None:
    ones = np.ones((5, 1), np.int8)
    assert compute_cohen(ones, ones).value is None
    assert compute_cohen(ones, np.full((5, 1), MISSING, np.int8)).parts == 0
    assert compute_fleiss(np.ones((5, 3), np.int8)).value is None
    assert compute_fleiss(np.ones((5, 1), np.int8)).value is None
