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

FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PartCosts:
    """The costs of a miss, of a false alarm and of a part that a person must review, all in the same currency."""

    miss: float
    false_alarm: float
    review: float


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
    """Draws `parts` parts from labelled pictures at random, lets `rule` choose their labels, and counts the errors.

    A drawn part is defective with the probability `line_share`. A picture may be drawn several times. `probability` is the calibrated
    defect probability of each picture, and `is_defect` its true class, both of shape (n,). If `rule` is None, every part passes. Equal
    seeds draw equal parts, so rules can be compared.

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


def find_validation_pictures(split: Path) -> list[LabelledFile]:
    """Returns the validation pictures in `split`, the file split.csv of a training run.

    No near-duplicate of them was used for the training. Raises ModelError if the file cannot be read or lists no validation picture.
    """
    try:
        with split.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("side") == "validation"]
        found = [LabelledFile(split.parent / row["path"], row["class"], str(split)) for row in rows]
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise ModelError(
            f"Cannot read {split}: {error!r}. Give the file split.csv in the folder OUT.training of a training run."
        ) from error
    if not found:
        raise ModelError(f"{split} lists no validation picture. Give the file split.csv in the folder OUT.training of a training run.")
    return found
