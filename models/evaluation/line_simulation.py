"""Simulates a line with a given share of defects by resampling labelled pictures, and computes the mean cost of a part."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.inference.line_threshold import DecisionRule
from models.training.labelled_pictures import LabelledFile
from streams.errors import ModelError

_LABELS = ("ok", "defect", "review")
_DRAWS = 4000
# 0.5 is added to the number of castings with each label, so that no share is estimated as exactly 0 (Jeffreys' prior).
_PRIOR_WEIGHT = 0.5

FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PartCosts:
    """The costs of a miss, of a false alarm and of a part that a person must review, all in the same currency."""

    miss: float
    false_alarm: float
    review: float


@dataclass(frozen=True, slots=True)
class CostInterval:
    """The 95 % interval of the cost of a part, from `low` to `high`, in the currency of the costs."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LineSimulation:
    """The result of a simulated line: numbers of parts, defects, misses, false alarms and reviews, and the mean cost of a part."""

    parts: int
    defects: int
    misses: int
    false_alarms: int
    reviews: int
    cost_per_part: float


def simulate_line(
    probability: FloatArray, is_defect: Flags, rule: DecisionRule | None, line_share: float, costs: PartCosts, parts: int, seed: int
) -> LineSimulation:
    """Draws `parts` random parts from labelled pictures, lets `rule` choose their labels, and counts the errors.

    - `probability`, shape (n,): the calibrated defect probability of each picture.
    - `is_defect`, shape (n,): whether the picture shows a defect.
    - `line_share`: the share of defective parts on the line.
    - `rule`: None means that every part passes.
    - `seed`: the same seed draws the same parts, so that rules can be compared.

    Raises ModelError if there are no good or no defective pictures.
    """
    if is_defect.all() or not is_defect.any():
        raise ModelError("A simulation needs good and defective pictures. Add pictures of the class that is missing.")
    random = np.random.default_rng(seed)
    drawn_defective = random.random(parts) < line_share
    drawn = np.where(drawn_defective, random.choice(np.flatnonzero(is_defect), parts), random.choice(np.flatnonzero(~is_defect), parts))
    labels = np.array([rule.choose_label(float(value)) if rule else "ok" for value in probability])[drawn]
    misses = int((drawn_defective & (labels == "ok")).sum())
    false_alarms = int((~drawn_defective & (labels == "defect")).sum())
    reviews = int((labels == "review").sum())
    cost = (costs.miss * misses + costs.false_alarm * false_alarms + costs.review * reviews) / parts
    return LineSimulation(parts, int(drawn_defective.sum()), misses, false_alarms, reviews, cost)


def estimate_cost_interval(
    probability: FloatArray,
    is_defect: Flags,
    groups: npt.NDArray[np.int32],
    rule: DecisionRule | None,
    line_share: float,
    costs: PartCosts,
    seed: int,
) -> CostInterval:
    """Returns the 95 % interval of the mean cost of a part on a line. `line_share` is the share of defective parts on the line.

    In `groups`, shape (n,), near-duplicates have the same number. For the other arguments, see `simulate_line`.

    The interval comes from random weights of the groups (Rubin, The Bayesian bootstrap, Annals of Statistics 9(1), 1981).

    Even if no good casting of the test was rejected, the line can reject some. So 0.5 is added to the number of castings with each label
    (Jeffreys' prior). Example: if none of 100 good castings was rejected, the true share of rejected good castings can be up to 2.4 %.
    """
    random = np.random.default_rng(seed)
    labels = np.array([rule.choose_label(float(value)) if rule else "ok" for value in probability])
    good = _draw_label_shares(labels[~is_defect], groups[~is_defect], random)
    bad = _draw_label_shares(labels[is_defect], groups[is_defect], random)
    if rule is None:
        # Without a rule, every part passes, and every defect is missed. So the cost is known exactly: both ends of the interval are equal.
        return CostInterval(line_share * costs.miss, line_share * costs.miss)
    drawn = (
        (1 - line_share) * good @ np.array([0, costs.false_alarm, costs.review])
        + line_share * bad @ np.array([costs.miss, 0, costs.review])
    )  # fmt: skip
    low, high = np.quantile(drawn, (0.025, 0.975))
    return CostInterval(float(low), float(high))


def _draw_label_shares(labels: npt.NDArray[np.str_], groups: npt.NDArray[np.int32], random: np.random.Generator) -> FloatArray:
    """Returns _DRAWS random guesses, each with three numbers: the fractions of parts that get the labels `ok`, `defect` and `review`.

    `labels` are the labels that were given to all good parts, or to all defective parts. How much the guesses differ shows how uncertain
    the fractions are. The shape of the result is (_DRAWS, 3).
    """
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    counts = np.zeros((len(sizes), len(_LABELS)))
    for column, label in enumerate(_LABELS):
        np.add.at(counts[:, column], group_of[labels == label], 1)
    # Even if no casting got a label, the true share of this label can be above 0. So one imaginary group of castings is added for each
    # label (Jeffreys' prior). An imaginary group has the average size.
    totals = draw_totals(counts, np.eye(len(_LABELS)) * sizes.mean(), _DRAWS, random)
    result: FloatArray = totals / totals.sum(axis=1, keepdims=True)
    return result


def draw_totals(counts: FloatArray, imaginary: FloatArray, draws: int, random: np.random.Generator) -> FloatArray:
    """Sums up the counts of all groups of castings, each time with other random weights. Returns the sums, shape (draws, columns).

    The differences between the sums show how uncertain they are (Bayesian bootstrap).

    - `counts`, shape (groups, columns): the counts of each group.
    - `imaginary`, shape (outcomes, columns): the counts of imaginary groups. There is one for each possible outcome, because an outcome
      that was never seen can still happen. An imaginary group has half the weight of a real group.
    """
    shapes = np.concatenate([np.ones(len(counts)), np.full(len(imaginary), _PRIOR_WEIGHT)])
    totals: FloatArray = random.gamma(shapes, size=(draws, len(shapes))) @ np.concatenate([counts, imaginary])
    return totals


def find_validation_pictures(split: Path) -> list[LabelledFile]:
    """Returns the validation pictures of a training run. `split` is the path of the file split.csv that the run wrote.

    The training used no near-duplicate of these pictures. Raises ModelError if the file cannot be read or lists no validation picture.
    """
    try:
        with split.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("side") == "validation"]
        found = [LabelledFile(_find_picture(split, row["path"]), row["class"], str(split)) for row in rows]
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise ModelError(
            f"Cannot read {split}: {error!r}. Give the file split.csv in the folder OUT.training of a training run."
        ) from error
    if not found:
        raise ModelError(f"{split} lists no validation picture. Give the file split.csv in the folder OUT.training of a training run.")
    return found


def _find_picture(split: Path, path: str) -> Path:
    """Returns the path of a picture that `split` lists.

    A relative path is looked up first in the folder of the list, and then in the working folder. Older releases wrote paths that are
    relative to the working folder.
    """
    beside = split.parent / path
    return beside if beside.exists() else Path(path).absolute()
