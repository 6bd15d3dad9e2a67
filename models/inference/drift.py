"""Are the pictures and the answers still what the version was made for: what is measured of a picture, and how far two spreads lie apart.

Pure, and cheap: a picture is measured in some microseconds, on lines of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.registry.manifest import Range, Reference, Spread

BINS = 10  # with as many pictures of the reference in each
# Of defect probabilities: by tenths of the reference they would tell 0.007 from 0.008, which another runtime of the version mixes up.
SCORES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
FEWEST = 200  # of fewer pictures the index says more about chance than about drift
EMPTY = 1e-3  # share that an empty bin counts as: its logarithm would be infinite
_EVERY = 16  # of this many lines one is looked at
_STEPS = 30  # of the estimate of the share of defects; it stands still long before

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of a picture without judging it."""

    brightness: float  # mean grey level, 0..255
    sharpness: float  # mean square of the second differences along lines, grey levels squared
    mark: int  # the same for the same pixels


def look(pixels: npt.NDArray[np.uint8]) -> Look:
    """Of a decoded picture, shape (side, side).

    Sharpness is the energy of the Laplacian (Pertuz, Puig, Garcia, Pattern Recognition 46, 2013, there LAP1), taken apart into both
    directions, so that a picture smeared in one of them is found as well.
    """
    rows, columns = pixels[::_EVERY].astype(np.float32), pixels[:, ::_EVERY].T.astype(np.float32, order="C")
    brightness = float(np.add.reduce(rows, axis=None)) / rows.size
    return Look(brightness, min(_bend(rows), _bend(columns)), zlib.crc32(pixels.data))


def _bend(lines: npt.NDArray[np.float32]) -> float:
    second = lines[:, :-2] + lines[:, 2:]
    second -= 2 * lines[:, 1:-1]
    return float(np.vdot(second, second)) / second.size


def reference_of(pixels: npt.NDArray[np.uint8], probabilities: Values, bad: npt.NDArray[np.bool_]) -> Reference:
    """What a version's own pictures look like and what it says of them; `probabilities` of a defect and `bad` in the order of `pixels`.

    Pictures that the version did not learn from: of those it did it is too sure.
    """
    looks = [look(picture) for picture in pixels]
    return Reference(
        pictures=len(looks),
        brightness=_range([one.brightness for one in looks]),
        sharpness=_range([one.sharpness for one in looks]),
        good=Spread(edges=SCORES, shares=tuple(shares(probabilities[~bad], SCORES))),
        bad=Spread(edges=SCORES, shares=tuple(shares(probabilities[bad], SCORES))),
    )


def shares(values: Sequence[float] | Values, edges: Sequence[float] | Values) -> Values:
    """Share of `values` in each bin between rising `edges`, one more than there are edges."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    result: Values = counts / max(1, len(values))
    return result


def stability_index(expected: Sequence[float] | Values, found: Sequence[float] | Values) -> float:
    """Population stability index of two lists of shares (Siddiqi, Credit Risk Scorecards, 2006).

    Below 0.1 they are alike, above 0.25 they are of different populations.
    """
    before, now = np.maximum(expected, EMPTY), np.maximum(found, EMPTY)
    before, now = before / before.sum(), now / now.sum()
    return float(((now - before) * np.log(now / before)).sum())


def score_index(reference: Reference, probabilities: Sequence[float] | Values) -> float:
    """Stability index of the defect probabilities, whatever the share of defects is.

    That share is the castings' matter and no drift: the reference's two classes are mixed as they fit best (expectation
    maximisation), and what then still differs is that the version sees other good or other bad ones than it knows.
    """
    found = shares(probabilities, reference.good.edges)
    good, bad = np.maximum(reference.good.shares, EMPTY), np.maximum(reference.bad.shares, EMPTY)
    share = 0.5
    for _ in range(_STEPS):
        mixed = share * bad + (1 - share) * good
        share = float((found * share * bad / mixed).sum())
    return stability_index(share * bad + (1 - share) * good, found)


def _range(values: Sequence[float]) -> Range:
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    low, high = np.quantile(values, (0.01, 0.99))
    return Range(edges=tuple(edges), shares=tuple(shares(values, edges)), low=float(low), high=float(high))
