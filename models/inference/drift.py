"""Measures drift: how much a line's pictures and defect probabilities differ from the drift reference of its version.

The module uses only NumPy, and measuring a picture takes microseconds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference.pass_threshold import make_miss_curve
from models.registry.manifest import DriftReference, Histogram, PercentileHistogram

PICTURE_BINS = 10
# Limits between the wide bins of a histogram of defect probabilities. The bins are wide because runtimes round in different ways, and the
# rounding should seldom move a picture to another bin.
PROBABILITY_EDGES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
# Limits between the narrow bins of a histogram of defect probabilities, evenly spaced in log odds. If a line has few defects, its threshold
# is above 0.98, so the wide bins cannot show how many parts lie near the threshold.
DETAIL_EDGES = tuple(float(edge) for edge in 1 / (1 + np.exp(-np.arange(-8, 8.25, 0.25))))
# With fewer pictures than this, the stability index is mostly sampling noise.
MIN_PICTURES = 200
# The stability index contains the logarithm of the share of pictures in each bin, and 0 has no logarithm. So each share below this value
# is replaced by this value.
MIN_SHARE = 1e-3
# To save time, only every 16th row and every 16th column of a picture are measured.
_LINE_STEP = 16
# The share of defects is estimated in this many steps (expectation maximisation). Further steps would hardly change the estimate.
_MIXTURE_STEPS = 30

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PictureStatistics:
    """Statistics of a picture that are computed without a network.

    - `brightness`: the mean grey level, 0..255.
    - `sharpness`: see `measure_picture`.
    - `checksum`: equal for pictures with equal pixels.
    """

    brightness: float
    sharpness: float
    checksum: int


def measure_picture(pixels: npt.NDArray[np.uint8]) -> PictureStatistics:
    """Returns the statistics of a decoded picture, shape (side, side).

    Sharpness is the mean square of the second differences between neighbouring pixels. It is measured along rows and along columns.
    The smaller value counts, because motion blurs only one direction.
    Source: Pertuz, Puig, Garcia, 2013, LAP1 (energy of the Laplacian).
    """
    rows = pixels[::_LINE_STEP].astype(np.float32)
    columns = pixels[:, ::_LINE_STEP].T.astype(np.float32, order="C")
    brightness = float(np.add.reduce(rows, axis=None)) / rows.size
    return PictureStatistics(brightness, min(_mean_square_curvature(rows), _mean_square_curvature(columns)), zlib.crc32(pixels.data))


def make_picture_reference(pixels: npt.NDArray[np.uint8]) -> DriftReference:
    """Returns the brightness and the sharpness of good parts, with which the pictures of a line are compared later to find a drift.

    For a version that was learned from good parts alone, without networks. `pixels` has the shape (n, side, side).
    """
    statistics = [measure_picture(picture) for picture in pixels]
    return DriftReference(
        pictures=len(statistics),
        brightness=_make_percentile_histogram([one.brightness for one in statistics]),
        sharpness=_make_percentile_histogram([one.sharpness for one in statistics]),
    )


def make_drift_reference(
    pixels: npt.NDArray[np.uint8],
    probabilities: FloatArray,
    is_defect: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int32] | None = None,
) -> DriftReference:
    """Returns the drift reference of a version, from pictures that were not used for its training.

    - `pixels`: shape (n, side, side).
    - `probabilities` (of a defect), `is_defect`: shape (n,).
    - `groups`, shape (n,): a group number for each picture. Near-duplicates have the same number. None means no near-duplicates.
    """
    groups = np.arange(len(is_defect), dtype=np.int32) if groups is None else groups
    return make_picture_reference(pixels).model_copy(
        update={
            "good": _make_histogram(probabilities[~is_defect], PROBABILITY_EDGES),
            "bad": _make_histogram(probabilities[is_defect], PROBABILITY_EDGES),
            "good_detail": _make_histogram(probabilities[~is_defect], DETAIL_EDGES),
            "bad_detail": _make_histogram(probabilities[is_defect], DETAIL_EDGES),
            "miss_curve": make_miss_curve(probabilities[is_defect], groups[is_defect]) if is_defect.any() else None,
        }
    )


def bin_shares(values: Sequence[float] | FloatArray, edges: Sequence[float] | FloatArray) -> FloatArray:
    """Returns the share of `values` in each bin. `edges` are the limits between the bins, in rising order: 9 edges for 10 bins."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    result: FloatArray = counts / max(1, len(values))
    return result


def compute_stability_index(expected: Sequence[float] | FloatArray, found: Sequence[float] | FloatArray) -> float:
    """Returns the population stability index of two histograms of shares (Siddiqi, Credit Risk Scorecards, 2006).

    Below 0.1 the histograms are similar. Above 0.25 they come from different populations.
    """
    before, now = np.maximum(expected, MIN_SHARE), np.maximum(found, MIN_SHARE)
    before, now = before / before.sum(), now / now.sum()
    return float(((now - before) * np.log(now / before)).sum())


def compute_prediction_drift(reference: DriftReference, probabilities: Sequence[float] | FloatArray) -> float:
    """Returns how much the defect `probabilities` of a line differ from `reference`, as a population stability index.

    The reference has a histogram of good parts and one of defective parts. The two histograms are mixed in the proportion that fits
    `probabilities` best. So the index does not depend on the share of defects on the line.
    """
    if reference.good is None or reference.bad is None:
        raise ValueError(
            "The drift reference has no histograms of defect probabilities, because its version has no networks. Choose another version."
        )
    found = bin_shares(probabilities, reference.good.edges)
    good, bad = np.maximum(reference.good.shares, MIN_SHARE), np.maximum(reference.bad.shares, MIN_SHARE)
    defect_share = 0.5
    for _ in range(_MIXTURE_STEPS):
        mixture = defect_share * bad + (1 - defect_share) * good
        defect_share = float((found * defect_share * bad / mixture).sum())
    return compute_stability_index(defect_share * bad + (1 - defect_share) * good, found)


def _mean_square_curvature(lines: npt.NDArray[np.float32]) -> float:
    second_differences = lines[:, :-2] + lines[:, 2:]
    second_differences -= 2 * lines[:, 1:-1]
    return float(np.vdot(second_differences, second_differences)) / second_differences.size


def _make_histogram(values: FloatArray, edges: tuple[float, ...]) -> Histogram:
    return Histogram(edges=edges, shares=tuple(bin_shares(values, edges)))


def _make_percentile_histogram(values: Sequence[float]) -> PercentileHistogram:
    edges = np.quantile(values, np.linspace(0, 1, PICTURE_BINS + 1)[1:-1])
    low, high = np.quantile(values, (0.01, 0.99))
    return PercentileHistogram(edges=tuple(edges), shares=tuple(bin_shares(values, edges)), low=float(low), high=float(high))
