"""Computes kappa, which says how well people agree beyond chance, and its 95 % interval.

The interval comes from random weights of the parts (Rubin, The Bayesian bootstrap, Annals of Statistics 9(1), 1981). People can disagree
about other parts even if they agree about all parts of a study. So imaginary parts are added with a weight of 0.5 for each outcome: all
people say ok, all say defect, and not all say the same (Jeffreys' prior). Without the imaginary parts, full agreement had the interval 1 to
1.

In simulated studies, two people made errors in 1 % or 2.5 % of the parts. The interval contained the true kappa in 95 to 98 % of the
studies with 10 parts, and in 96 to 99 % of the studies with 30 parts. Without the imaginary parts, the interval contained the true kappa in
only 18 to 39 % of the studies with 10 parts, and in 46 to 76 % of the studies with 30 parts.

Labels are numbers: 0 is ok, 1 is defect, and MISSING means that there is no label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MISSING = -1
_DRAWS = 2000
_SEED = 1
# The weights of the imaginary parts: all people say ok, only one says defect, only one says ok, all say defect. In the second and the
# third, not all say the same. These two together have the weight 0.5.
_PRIOR_WEIGHTS = (0.5, 0.25, 0.25, 0.5)

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
    """Returns Cohen's kappa of two sides, such as a person and the model.

    `first` and `second` hold the labels of the two sides: 0, 1 or MISSING. Both have a row for each part, and a column for each comparison,
    such as a round of a study.

    Source: Cohen, Educational and Psychological Measurement 20(1), 1960.
    """
    is_counted = (first != MISSING) & (second != MISSING)
    # Each part has a row in `counts`. The four columns count its pairs of labels: (ok, ok), (ok, defect), (defect, ok) and
    # (defect, defect).
    counts = np.stack([((2 * first + second == cell) & is_counted).sum(axis=1) for cell in range(4)], axis=1).astype(np.float64)
    counts = counts[counts.sum(axis=1) > 0]
    mean_pairs = counts.sum(axis=1).mean() if len(counts) else 0.0
    return _estimate(counts, np.eye(4) * mean_pairs, _cohen_of_totals)


def compute_fleiss(labels: Labels) -> Kappa:
    """Returns Fleiss' kappa of several labels of each part.

    `labels` has shape (parts, labels of a part) and contains 0, 1 or MISSING.

    Source: Fleiss, Psychological Bulletin 76(5), 1971.
    """
    complete = labels[(labels != MISSING).all(axis=1)]
    raters = labels.shape[1]
    imaginary = _count_fleiss(np.array([0.0, 1.0, raters - 1.0, raters]), raters)
    return _estimate(
        _count_fleiss(complete.sum(axis=1, dtype=np.float64), raters)[: None if raters > 1 else 0], imaginary, _fleiss_of_totals
    )


def _count_fleiss(defects: Counts, raters: int) -> Counts:
    """Returns a row with three columns for each part. `defects` says how many of the `raters` people called the part defective.

    The first column is 1, so the sum of this column is the number of parts. For the second column, the people are compared in pairs: it is
    the share of the pairs that agree about the part. The third column is the share of the people who chose `defect`.
    """
    pairs = max(1, raters * (raters - 1))
    agreement = (defects * (defects - 1) + (raters - defects) * (raters - defects - 1)) / pairs
    return np.stack([np.ones_like(defects), agreement, defects / max(1, raters)], axis=1)


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


def _estimate(counts: Counts, imaginary: Counts, compute: Callable[[Counts], tuple[Counts, Counts]]) -> Kappa:
    """Returns the kappa of all parts and its interval. `counts` has a row for each part, and `imaginary` for each imaginary part."""
    parts = len(counts)
    if not parts:
        return Kappa(0, None, None, None, None)
    agreement, value = (float(each[0]) for each in compute(counts.sum(axis=0, keepdims=True)))
    if np.isnan(value):
        return Kappa(parts, agreement, None, None, None)
    weights = np.random.default_rng(_SEED).gamma(np.concatenate([np.ones(parts), _PRIOR_WEIGHTS]), size=(_DRAWS, parts + len(imaginary)))
    _, drawn = compute(weights @ np.concatenate([counts, imaginary]))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Kappa(parts, agreement, value, min(float(low), value), max(float(high), value))
