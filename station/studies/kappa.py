"""Computes kappa, which says how well people agree beyond chance, and its interval by bootstrap (random samples of the parts).

Labels are numbers: 0 is ok, 1 is defect, and MISSING means that there is no label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MISSING = -1
_RESAMPLES = 2000
_SEED = 1
# If kappa is defined in a smaller share of the random samples than this, its interval is None.
_MIN_DEFINED = 0.5

Labels = npt.NDArray[np.int8]
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kappa:
    """A kappa `value` with its 95 % interval `low` to `high`. A figure that is not defined is None.

    `agreement` is the share (0..1) of equal labels, and `parts` is the number of parts.
    """

    parts: int
    agreement: float | None
    value: float | None
    low: float | None
    high: float | None


def compute_cohen(first: Labels, second: Labels) -> Kappa:
    """Returns Cohen's kappa of two sides, such as a person and the model. The interval comes from bootstrap (random samples of the parts).

    `first` and `second` hold the labels of the two sides: 0, 1 or MISSING. Both have a row for each part, and a column for each comparison,
    such as a round of a study.

    Source: Cohen, Educational and Psychological Measurement 20(1), 1960. Interval: Efron and Tibshirani, An Introduction to the Bootstrap,
    1993.
    """
    is_counted = (first != MISSING) & (second != MISSING)
    # Each part has a row in `counts`. The four columns count its pairs of labels: (ok, ok), (ok, defect), (defect, ok) and
    # (defect, defect).
    counts = np.stack([((2 * first + second == cell) & is_counted).sum(axis=1) for cell in range(4)], axis=1).astype(np.float64)
    return _bootstrap(counts[counts.sum(axis=1) > 0], _cohen_of_totals)


def compute_fleiss(labels: Labels) -> Kappa:
    """Returns Fleiss' kappa of several labels of each part, with an interval by bootstrap (random samples of the parts).

    `labels` has shape (parts, labels of a part) and contains 0, 1 or MISSING.

    Source: Fleiss, Psychological Bulletin 76(5), 1971.
    """
    complete = labels[(labels != MISSING).all(axis=1)]
    raters = labels.shape[1]
    defects = complete.sum(axis=1, dtype=np.float64)
    pairs = max(1, raters * (raters - 1))
    agreement = (defects * (defects - 1) + (raters - defects) * (raters - defects - 1)) / pairs
    # Each part has a row with three columns. The first column is 1, so the sum of this column is the number of parts. For the second
    # column, the people are compared in pairs: it is the share of the pairs that agree about the part. The third column is the share of the
    # people who chose `defect`.
    counts = np.stack([np.ones_like(defects), agreement, defects / max(1, raters)], axis=1)
    return _bootstrap(counts if raters > 1 else counts[:0], _fleiss_of_totals)


def _cohen_of_totals(totals: Counts) -> tuple[Counts, Counts]:
    """Returns the agreement and Cohen's kappa for each row of `totals`, which has shape (n, 4)."""
    number = totals.sum(axis=1)
    agreement = (totals[:, 0] + totals[:, 3]) / number
    first, second = (totals[:, 2] + totals[:, 3]) / number, (totals[:, 1] + totals[:, 3]) / number
    return agreement, _correct_for_chance(agreement, first * second + (1 - first) * (1 - second))


def _fleiss_of_totals(totals: Counts) -> tuple[Counts, Counts]:
    """Returns the agreement and Fleiss' kappa for each row of `totals`, which has shape (n, 3)."""
    agreement, share = totals[:, 1] / totals[:, 0], totals[:, 2] / totals[:, 0]
    return agreement, _correct_for_chance(agreement, share**2 + (1 - share) ** 2)


def _correct_for_chance(agreement: Counts, chance: Counts) -> Counts:
    room = 1 - chance
    return np.where(room > 1e-12, (agreement - chance) / np.where(room > 1e-12, room, 1), np.nan)


def _bootstrap(counts: Counts, compute: Callable[[Counts], tuple[Counts, Counts]]) -> Kappa:
    """Returns the kappa of all parts, and its interval from random samples of the parts. `counts` has a row for each part."""
    parts = len(counts)
    if not parts:
        return Kappa(0, None, None, None, None)
    agreement, value = (float(each[0]) for each in compute(counts.sum(axis=0, keepdims=True)))
    times = np.random.default_rng(_SEED).multinomial(parts, np.full(parts, 1 / parts), _RESAMPLES)
    _, resampled = compute(times @ counts)
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or len(defined) < _MIN_DEFINED * _RESAMPLES:
        return Kappa(parts, agreement, None if np.isnan(value) else value, None, None)
    low, high = np.percentile(defined, (2.5, 97.5))
    return Kappa(parts, agreement, value, float(low), float(high))
