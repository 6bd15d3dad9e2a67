"""Computes the pass threshold of a line. A part with a lower defect probability passes without a review.

Only a chosen share of the defective parts, such as 1 %, is expected to pass. The method is called conformal risk control.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.registry.manifest import Manifest, MissCurve
from streams.errors import ModelError

# A miss curve has at most this many points, so that a manifest stays small.
MAX_POINTS = 2000
# The pass threshold lies a little below the defect probability of a validation picture, so that rounding changes no label. The distance is
# this share of the gap to the next lower probability. Example: between the probabilities 0.4 and 0.5, the threshold is 0.49.
GAP_MARGIN = 0.1

FloatArray = npt.NDArray[np.float64]


def make_miss_curve(probability: FloatArray, groups: npt.NDArray[np.int32]) -> MissCurve:
    """Returns the miss curve of defective validation pictures: the number of missed castings for each pass threshold.

    A casting is missed if its defect probability is below the pass threshold. The curve has at most MAX_POINTS points.
    `probability`, shape (n,), is the calibrated defect probability. `groups`, shape (n,), has equal numbers for near-duplicates,
    which count together as one casting.
    """
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(probability, kind="stable")
    misses = np.cumsum(1 / sizes[group_of][order])
    kept = np.unique(np.linspace(0, len(order) - 1, MAX_POINTS).astype(np.int64))
    # If there are more pictures than MAX_POINTS, several pictures share a point of the miss curve. At this point, all of them count as
    # missed. So the curve shows too many misses rather than too few.
    upper = np.append(kept[1:] - 1, len(order) - 1)
    return MissCurve(castings=len(sizes), probabilities=tuple(probability[order][kept].tolist()), misses=tuple(misses[upper].tolist()))


def choose_pass_threshold(manifest: Manifest, miss_risk: float) -> float:
    """Returns the highest pass threshold that fits `miss_risk`. Parts with a lower defect probability pass without a review.

    Example: with a `miss_risk` of 0.01, at most 1 % of the defective parts are expected to pass.

    Raises ModelError if there are too few defective castings for this risk.

    Source: Angelopoulos et al., Conformal Risk Control, 2022 (arXiv 2208.02814), theorem 1.
    """
    curve = manifest.reference.miss_curve if manifest.reference else None
    if curve is None:
        raise ModelError(
            f"The manifest of version {manifest.version} does not say how its defective validation pictures were judged, so no pass "
            "threshold can be computed from the miss risk. Train a new version, or remove the miss risk from the settings of the line."
        )
    allowed = miss_risk * (curve.castings + 1) - 1
    if allowed < 0:
        needed, smallest = count_castings_needed(miss_risk), math.ceil(1000 / (curve.castings + 1)) / 1000
        raise ModelError(
            f"A miss risk of {miss_risk:g} needs at least {needed} different defective castings among the validation pictures, but version "
            f"{manifest.version} has only {curve.castings}. Add defective pictures and train a new version, or set a miss risk of at least "
            f"{smallest:g}."
        )
    # `first` is the first point of the miss curve with more misses than allowed. It always exists, because all castings are missed at the
    # last point.
    first = int(np.flatnonzero(np.array(curve.misses) > allowed + 1e-9)[0])
    end = curve.probabilities[first]
    below = max((value for value in curve.probabilities[:first] if value < end), default=0.0)
    return end - GAP_MARGIN * (end - below)


def count_castings_needed(miss_risk: float) -> int:
    """Returns how many defective validation castings are needed to compute a pass threshold for `miss_risk`."""
    return math.ceil(1 / miss_risk - 1e-9) - 1
