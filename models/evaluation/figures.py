"""Computes accuracy, error rates and other figures of a version on labelled pictures. A defect is the positive class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from models.registry.version_report import ClassificationFigures, Proportion

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

RELIABILITY_BINS = 10


def measure_figures(
    probability: FloatArray,
    is_defect: BoolArray,
    threshold: float,
    review_low: float,
    review_high: float,
    is_refused: BoolArray | None = None,
) -> ClassificationFigures:
    """Computes accuracy, misses and other figures from the defect `probability` and the truth `is_defect`, both of shape (n,).

    - A picture is called defective if its probability is at least `threshold`, even if a person reviews the picture.
    - A person reviews each picture with a probability of at least `review_low` and below `review_high`.
    - A person also reviews the pictures in `is_refused`, shape (n,), because these pictures do not show the whole part.
    """
    is_called = probability >= threshold
    is_review = (probability >= review_low) & (probability < review_high)
    if is_refused is not None:
        is_review |= is_refused
    hits, misses = int((is_defect & is_called).sum()), int((is_defect & ~is_called).sum())
    alarms, passed = int((~is_defect & is_called).sum()), int((~is_defect & ~is_called).sum())
    has_both_kinds = bool(is_defect.any() and (~is_defect).any())
    return ClassificationFigures(
        pictures=len(is_defect),
        defects=int(is_defect.sum()),
        accuracy=Proportion.from_counts(hits + passed, len(is_defect)),
        precision=Proportion.from_counts(hits, hits + alarms),
        recall=Proportion.from_counts(hits, hits + misses),
        f1=2 * hits / max(1, 2 * hits + alarms + misses),
        misses=Proportion.from_counts(misses, hits + misses),
        false_alarms=Proportion.from_counts(alarms, alarms + passed),
        reviews=Proportion.from_counts(int(is_review.sum()), len(is_defect)),
        misses_outside_review=int((is_defect & ~is_called & ~is_review).sum()),
        false_alarms_outside_review=int((~is_defect & is_called & ~is_review).sum()),
        roc_auc=float(roc_auc_score(is_defect, probability)) if has_both_kinds else None,
        average_precision=float(average_precision_score(is_defect, probability)) if has_both_kinds else None,
        calibration_error=compute_calibration_error(probability, is_defect),
        confusion=((passed, alarms), (misses, hits)),
    )


def bin_reliability(probability: FloatArray, is_defect: BoolArray) -> list[tuple[float, float, int]]:
    """Returns the points of the reliability diagram: mean probability, share of defects and number of pictures of each bin.

    There are 10 bins of equal width. Empty bins are left out."""
    bins = np.clip((probability * RELIABILITY_BINS).astype(int), 0, RELIABILITY_BINS - 1)
    return [
        (float(probability[bins == index].mean()), float(is_defect[bins == index].mean()), int((bins == index).sum()))
        for index in range(RELIABILITY_BINS)
        if (bins == index).any()
    ]


def compute_calibration_error(probability: FloatArray, is_defect: BoolArray) -> float:
    """Returns the expected calibration error: the mean difference between the defect probability and the true share of defects.

    The mean is taken over the bins of `bin_reliability`. A bin with more pictures has more weight.
    """
    return sum(count * abs(mean - share) for mean, share, count in bin_reliability(probability, is_defect)) / len(is_defect)
