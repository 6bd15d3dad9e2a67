"""Figures of an evaluation: intervals, counts of mistakes and the calibration error."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.figures import compute_calibration_error, measure_figures
from models.registry.version_report import Proportion


def test_an_interval_is_that_of_clopper_and_pearson() -> None:
    """The expected values are those of published tables for 0 of 10 and 8 of 10."""
    none, eight = Proportion.from_counts(0, 10), Proportion.from_counts(8, 10)
    assert (none.low, round(none.high, 4)) == (0.0, 0.3085)
    assert (round(eight.low, 4), round(eight.high, 4)) == (0.4439, 0.9748)


def test_figures_count_misses_alarms_and_reviews() -> None:
    probability = np.array([0.9, 0.2, 0.45, 0.6, 0.1])
    is_defect = np.array([True, True, True, False, False])
    found = measure_figures(probability, is_defect, 0.5, 0.4, 0.5)
    assert found.confusion == ((1, 1), (2, 1))
    assert (found.misses.count, found.misses_outside_review, found.reviews.count) == (2, 1, 1)
    assert found.accuracy.value == pytest.approx(0.4)


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    rng = np.random.default_rng(9)
    probability = rng.random(40_000)
    assert compute_calibration_error(probability, rng.random(40_000) < probability) < 0.01
