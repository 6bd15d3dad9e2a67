"""The pass threshold: the stated risk holds on average, castings count once, and a risk that few defects cannot show is refused."""

from __future__ import annotations

import numpy as np
import pytest

from models.inference.pass_threshold import MAX_POINTS, choose_pass_threshold, count_castings_needed, make_miss_curve
from models.registry.manifest import Manifest
from streams.errors import ModelError
from tests.models.inference.test_line_threshold import make_manifest

HISTOGRAM = {"edges": (0.5,), "shares": (0.9, 0.1)}
PERCENTILES = HISTOGRAM | {"low": 0, "high": 1}


def make_version(probability: np.ndarray, groups: np.ndarray | None = None) -> Manifest:
    curve = make_miss_curve(probability, np.arange(len(probability), dtype=np.int32) if groups is None else groups)
    reference = {"pictures": 1, "brightness": PERCENTILES, "sharpness": PERCENTILES, "good": HISTOGRAM, "bad": HISTOGRAM}
    return make_manifest(reference=reference | {"miss_curve": curve.model_dump()})


@pytest.mark.parametrize("risk", [0.02, 0.1, 0.3])
def test_on_average_the_share_of_misses_is_at_most_the_risk_and_not_much_less(risk: float) -> None:
    random = np.random.default_rng(1)
    shares = [(random.beta(3, 1, 400) < choose_pass_threshold(make_version(random.beta(3, 1, 99)), risk)).mean() for _ in range(300)]
    assert risk - 0.012 < np.mean(shares) < risk + 0.004


def test_pictures_of_one_casting_count_as_one() -> None:
    """Nine of ten pictures show one casting. It is the only one that looks good, so it is one miss of ten, and not nine of ten."""
    probability = np.concatenate([np.full(81, 0.1), np.linspace(0.8, 0.9, 9)])
    groups = np.concatenate([np.zeros(81), np.arange(1, 10)]).astype(np.int32)
    assert choose_pass_threshold(make_version(probability, groups), 0.19) > 0.5
    assert choose_pass_threshold(make_version(probability), 0.19) < 0.1


def test_a_risk_that_needs_more_defective_castings_is_refused_with_their_number() -> None:
    version = make_version(np.linspace(0.1, 0.9, 49))
    assert choose_pass_threshold(version, 0.02) < 0.1
    with pytest.raises(ModelError, match=r"needs at least 99 different defective castings .* has only 49.* a miss risk of at least 0\.02"):
        choose_pass_threshold(version, 0.01)
    assert [count_castings_needed(risk) for risk in (0.5, 0.1, 0.01, 0.001)] == [1, 9, 99, 999]


def test_a_version_without_a_miss_curve_is_refused() -> None:
    with pytest.raises(ModelError, match="Train a new version, or remove the miss risk"):
        choose_pass_threshold(make_manifest(), 0.1)


def test_a_long_miss_curve_is_shortened_to_the_safe_side() -> None:
    probability = np.sort(np.random.default_rng(2).random(3 * MAX_POINTS))
    short = choose_pass_threshold(make_version(probability), 0.2)
    assert len(make_miss_curve(probability, np.arange(len(probability), dtype=np.int32)).misses) == MAX_POINTS
    assert 0.19 < (probability < short).mean() <= 0.2
