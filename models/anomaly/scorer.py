"""Defines scorers that learn from good parts alone, and chooses their cut-offs.

A larger score means that the picture looks less like a good part. A part with a score above the cut-off is sent to review.
"""

from __future__ import annotations

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from models.pictures.part_finder import FoundPart
from models.pictures.regions import Mask
from streams.atomic_file import write_atomically
from streams.errors import ModelError

FloatArray = npt.NDArray[np.float32]
PixelArray = npt.NDArray[np.uint8]

# With fewer good pictures than this, the scores do not show how much good parts vary, so no cut-off is chosen.
MIN_GOOD_PICTURES = 8
# If a cut-off must be above all known scores, it is extrapolated from the scores of the castings with the highest scores. This share of the
# castings is used, but at least MIN_TAIL_CASTINGS.
TAIL_SHARE = 0.2
MIN_TAIL_CASTINGS = 5
# Very rare false alarms cannot be estimated from few castings. Example: from 100 castings, the smallest share that can be estimated is one
# false alarm in 20 * 100 = 2000 good parts. For a smaller share, no cut-off is chosen.
MAX_TAIL_EXTENSION = 20.0
# A cut-off that sends more than this share of the good parts to review is refused, because nobody would review so many parts.
MAX_ALARM_SHARE = 0.5
# Learning is refused if no part is found in more than this share of the good pictures.
MAX_MISSING_SHARE = 0.2
# The largest possible score, for pictures in which no part is found. Good parts have much lower scores.
NO_PART_SCORE = 1000.0
# Sums of weights have rounding errors. So a sum that differs from a limit by less than this value is treated as equal to it.
_ROUNDING = 1e-9

# For each picture, a mask of the inspected pixels, or None if the whole picture is inspected. A mask has the shape of its picture.
Masks = Sequence[Mask | None]
PartFinder = Callable[[PixelArray], FoundPart | None]


@dataclass(frozen=True, slots=True)
class AnomalyScores:
    """The scores and residual maps of n pictures. All values are at least 0.

    - `scores`, shape (n,): a picture with a larger score looks less like a good part.
    - `residuals`, shape (n, side_px, side_px): how much each pixel differs from a good part.
    """

    scores: FloatArray
    residuals: FloatArray


class GoodOnlyScorer(Protocol):
    """A scorer that has learned from good parts alone. Its files are safe to load, because they contain only data and no code.

    - `name`: the name of the score in manifests and verdicts.
    - `side_px`: the side of the square pictures that the scorer takes.
    """

    name: ClassVar[str]

    @property
    def side_px(self) -> int:
        """Side of the pictures that the scorer takes, in pixels."""
        ...

    def score(self, pixels: PixelArray) -> AnomalyScores:
        """Scores pictures of shape (n, side_px, side_px), grey levels 0..255. Raises ValueError for another shape."""
        ...

    def save(self, folder: Path) -> tuple[str, ...]:
        """Writes the scorer to files in `folder`, and returns their names. Each name begins with the scorer's `name`."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a scorer that `save` wrote. Raises ModelError, naming the file, if a file is missing or damaged."""
        ...


class PartScorer(GoodOnlyScorer, Protocol):
    """A scorer whose method `score_parts` gets the outlines of the parts from the caller. So the scorer need not find the parts again."""

    def score_parts(self, pixels: PixelArray, parts: Sequence[FoundPart], masks: Masks | None = None) -> FloatArray:
        """Returns the scores of `pixels`, shape (n,), without residual maps. `parts` are the outlines of the parts in the pictures.

        `masks` holds a mask for each picture. Only pixels inside the mask count. None instead of a mask means that all pixels count.
        """
        ...


class ResidualScorer(ABC):
    """Base class of the scorers whose score is the largest residual of the part. They implement `PartScorer`."""

    side_px: int
    find: PartFinder

    @abstractmethod
    def compare(self, picture: PixelArray, part: FoundPart) -> FloatArray:
        """Returns an array that says for each place of the part how much it differs from good parts. `part` is the outline of the part.

        Each scorer chooses the shape of the array, for example (rings, angles).
        """

    @abstractmethod
    def place(self, residuals: FloatArray, part: FoundPart) -> FloatArray:
        """Returns `residuals`, which `compare` computed, as a map of the picture, shape (side_px, side_px)."""

    def score(self, pixels: PixelArray) -> AnomalyScores:
        """Scores pictures of shape (n, side_px, side_px), grey levels 0..255. Raises ValueError for another shape.

        If no part is found in a picture, its score is NO_PART_SCORE and its residuals are 0.
        """
        expect_pixels(pixels, self.side_px)
        scores = np.full(len(pixels), NO_PART_SCORE, np.float32)
        maps = np.zeros(pixels.shape, np.float32)
        for index, picture in enumerate(pixels):
            part = self.find(picture)
            if part is not None:
                residuals = self.compare(picture, part)
                scores[index] = residuals.max()
                maps[index] = self.place(residuals, part)
        return AnomalyScores(scores, maps)

    def score_parts(self, pixels: PixelArray, parts: Sequence[FoundPart], masks: Masks | None = None) -> FloatArray:
        """Returns the scores of `pixels`, shape (n,), without residual maps. `parts` are the outlines of the parts in the pictures.

        `masks` holds a mask for each picture. Only pixels inside the mask count. None instead of a mask means that all pixels count.
        """
        scores = [
            self._score_part(picture, part, mask) for picture, part, mask in zip(pixels, parts, masks or [None] * len(pixels), strict=True)
        ]
        return np.array(scores, np.float32)

    def _score_part(self, picture: PixelArray, part: FoundPart, mask: Mask | None) -> float:
        residuals = self.compare(picture, part)
        return float((residuals if mask is None else self.place(residuals, part)[mask]).max(initial=0.0))


LearnScorer = Callable[[PixelArray], GoodOnlyScorer]


class CutOffObjective(Protocol):
    """The goal for which a cut-off is chosen, for example at most one false alarm an hour.

    The goal is converted to a limit: the largest share of the good parts that may go to review.
    """

    def compute_alarm_share(self) -> float:
        """Returns the largest share of the good parts that may go to review: above 0 and at most 0.5.

        Raises ModelError if the goal gives a share outside of this range.
        """
        ...


@dataclass(frozen=True, slots=True)
class AlarmShare:
    """Limits the false alarms to a share of the good parts. With a `share` of 0.01, at most one good part in 100 is sent to review."""

    share: float

    def compute_alarm_share(self) -> float:
        """Returns `share`, the largest share of the good parts that may go to review. Raises ModelError unless 0 < `share` <= 0.5."""
        return _expect_share(self.share, f"a share of false alarms of {self.share:g}")


@dataclass(frozen=True, slots=True)
class AlarmsPerHour:
    """Limits the false alarms to `alarms_per_hour` on a line that makes `parts_per_hour` parts an hour."""

    alarms_per_hour: float
    parts_per_hour: float

    def compute_alarm_share(self) -> float:
        """Returns the largest share of the parts that may be false alarms. Raises ModelError unless it is above 0 and at most 0.5."""
        if not self.parts_per_hour > 0:
            raise ModelError(
                f"The number of parts an hour is {self.parts_per_hour:g}. Give the number of parts that the line makes in an hour."
            )
        text = f"{self.alarms_per_hour:g} false alarms an hour among {self.parts_per_hour:g} parts"
        return _expect_share(self.alarms_per_hour / self.parts_per_hour, text)


@dataclass(frozen=True, slots=True)
class ExpectedCosts:
    """Chooses how many of the good parts go to review, so that misses and reviews together cost least.

    - `miss`: the cost of a missed defect.
    - `false_alarm`: the cost of the review of a good part.
    - `defect_share`: the share of defective parts.

    Example: a miss costs as much as 20 reviews. Then the review of a score pays if, among all parts with this score, there are at most 20
    good parts for each defective part. The class computes the smallest number of good parts for each defective part that is possible:

        (1 - defect_share) / defect_share * (-e p ln p)

    Here p is the share of good parts that have this score or a higher one. Source: Sellke, Bayarri, Berger, 2001. The real number can be
    larger, so the class sends rather too many good parts to review than too few.

    Example: 1 % of the parts are defective. For a score with p = 0.01, the formula gives 12. This is less than 20, so parts with this score
    go to review.
    """

    miss: float
    false_alarm: float
    defect_share: float

    def compute_alarm_share(self) -> float:
        """Returns the share of the good parts that go to review when the costs are lowest.

        Raises ModelError if a cost or the share of defects is out of range, or if reviewing every part is cheapest.
        """
        if not (self.miss > 0 and self.false_alarm > 0):
            raise ModelError(f"The costs are {self.miss:g} for a miss and {self.false_alarm:g} for a false alarm. Give costs above 0.")
        defect_share = _expect_share(self.defect_share, f"a share of defects of {self.defect_share:g}")
        ratio = defect_share * self.miss / ((1 - defect_share) * self.false_alarm)
        if ratio >= 1:
            raise ModelError(
                f"With a cost of {self.miss:g} for a miss, {self.false_alarm:g} for a false alarm and {defect_share:.2%} defects, "
                "reviewing every part is cheapest. Give a lower cost of a miss or a smaller share of defects."
            )
        from scipy.optimize import brentq  # type: ignore[import-untyped]  # no stubs; imported here because an inspector does not need it

        # Exactly one p between 0 and 1/e solves -e p ln p = ratio, because the left side rises from 0 to 1 there.
        return float(brentq(lambda p: -np.e * p * np.log(p) - ratio, 1e-15, 1 / np.e, xtol=1e-15))


def split_alarm_share(objective: CutOffObjective, scorers: int) -> AlarmShare:
    """Divides the allowed false alarms of a version equally among its scorers. Returns the objective of one scorer.

    `objective` is the objective of the whole version, and `scorers` is the number of its scorers. The false alarms are divided, because
    each scorer alone can send a part to review.
    """
    return AlarmShare(objective.compute_alarm_share() / scorers)


@dataclass(frozen=True, slots=True)
class CutOff:
    """The score above which a part is sent to review.

    - `alarm_share`: the wanted share of false alarms.
    - `alarms`: how many of the good pictures have a score above the cut-off.
    - `highest_alarm_share`: the upper limit of the true share of false alarms, with 95 % confidence.
    - `is_beyond_pictures`: whether the cut-off is above the scores of all good pictures.
    """

    score: float
    alarm_share: float
    good_pictures: int
    alarms: int
    highest_alarm_share: float
    is_beyond_pictures: bool

    def scale_scores(self, scores: npt.NDArray[Any]) -> FloatArray:
        """Returns `scores` on the scale that verdicts use: from 0 to 1, with the cut-off at 0.5."""
        return scale_scores(scores, self.score)


def scale_scores(scores: npt.NDArray[Any], cut_off: float) -> FloatArray:
    """Returns `scores` on the scale that verdicts use: from 0 to 1, with `cut_off` at 0.5."""
    scaled: FloatArray = (scores / (scores + cut_off)).astype(np.float32)
    return scaled


def choose_cut_off(good_scores: npt.NDArray[Any], groups: npt.NDArray[np.integer[Any]], objective: CutOffObjective) -> CutOff:
    """Returns the cut-off for `objective`. Raises ModelError if no useful cut-off exists.

    - `good_scores`, shape (n,): the scores of good pictures from which the scorer has not learned.
    - `groups`, shape (n,): near-duplicates have the same number. They probably show the same casting, so a group counts as one part.

    With enough groups, the cut-off lies between two scores (conformal quantile: Vovk, Gammerman, Shafer, 2005). With few groups, the
    cut-off is extrapolated above all scores (Pickands, 1975).

    In the result, the true share of false alarms is below `highest_alarm_share` with a confidence of 95 %.
    """
    from scipy.special import betaincinv  # type: ignore[import-untyped]  # no stubs; imported here because an inspector does not need it

    scores = np.asarray(good_scores, np.float64).ravel()
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    _, group_of, sizes = np.unique(np.asarray(groups)[order], return_inverse=True, return_counts=True)
    _expect_usable_scores(scores, group_of)
    castings = len(sizes)
    if castings < 2:
        raise ModelError(f"The {len(scores)} good pictures all show the same casting. Add pictures of other good castings.")
    weights = 1 / sizes[group_of]
    share = objective.compute_alarm_share()
    # If k of n good parts have a score above the cut-off, the score of the next good part is above it with a probability of at most
    # (k + 1) / (n + 1).
    between = _place_between_scores(scores, weights, int(np.floor(share * (castings + 1))) - 1)
    score = _extend_tail(scores, weights, castings, share) if between is None else between
    alarming_castings = float(weights[scores > score].sum())
    highest = float(betaincinv(alarming_castings + 1, castings - alarming_castings, 0.95))
    return CutOff(score, share, len(scores), int((scores > score).sum()), highest, between is None)


def cross_fit_scores(pixels: PixelArray, groups: npt.NDArray[np.int32], learn: LearnScorer, folds: int = 5) -> FloatArray:
    """Returns a score for each picture, shape (n,), from a scorer that has not learned from this picture.

    - `pixels`: shape (n, side_px, side_px).
    - `groups`, shape (n,): near-duplicates have the same number.
    - `learn`: makes a scorer from pictures.

    Raises ModelError if there is only one group.
    """
    part = assign_groups_to_folds(groups, folds)
    scores = np.zeros(len(pixels), np.float32)
    for fold in np.unique(part):
        scores[part == fold] = learn(pixels[part != fold]).score(pixels[part == fold]).scores
    return scores


def assign_groups_to_folds(groups: npt.NDArray[np.int32], folds: int) -> npt.NDArray[np.int64]:
    """Returns the number of the fold of each picture, shape (n,). The folds have nearly the same size.

    Near-duplicates have the same number in `groups`, shape (n,), and stay together. Raises ModelError if there is only one group.
    """
    sizes = np.bincount(groups)
    present = np.flatnonzero(sizes)
    if len(present) < 2:
        raise ModelError(
            f"The {len(groups)} good pictures all show the same casting in nearly the same way. Add pictures of other good castings."
        )
    filled = np.zeros(min(folds, len(present)), np.int64)
    part_of_group = np.zeros(len(sizes), np.int64)
    for group in present[np.argsort(-sizes[present], kind="stable")]:
        part_of_group[group] = filled.argmin()
        filled[part_of_group[group]] += sizes[group]
    return part_of_group[groups]


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes arrays of numbers to the file `path` (.npz). Equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # mypy takes the arrays for the argument allow_pickle
    write_atomically(path, buffer.getvalue())


def load_arrays(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays with these names from a file that `save_arrays` wrote. Pickled objects are refused.

    An array in `optional` may be missing. Raises ModelError, naming the file, if the file cannot be read or another array is missing.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in (*names, *(name for name in optional if name in file))}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is missing or damaged: {error}. Copy the version again.") from error


def find_good_parts(pixels: PixelArray, find: PartFinder) -> list[tuple[PixelArray, FoundPart]]:
    """Returns the pictures in which a part is found, each with the outline of its part. `pixels` has shape (n, side_px, side_px).

    Raises ModelError if `pixels` is empty, or if no part is found in more than MAX_MISSING_SHARE of the pictures.
    """
    if len(pixels) == 0:
        raise ModelError("There are no good pictures to learn from. Give a folder that holds pictures of good parts.")
    found = [(picture, part) for picture in pixels if (part := find(picture)) is not None]
    missing = len(pixels) - len(found)
    if missing > MAX_MISSING_SHARE * len(pixels):
        raise ModelError(
            f"No part was found in {missing} of {len(pixels)} good pictures. Remove the pictures that do not show the whole part, or move "
            "the camera so that the whole rim is in the picture."
        )
    return found


def expect_pixels(pixels: PixelArray, side_px: int) -> None:
    """Raises ValueError unless `pixels` has shape (n, side_px, side_px) and type uint8."""
    if pixels.ndim != 3 or pixels.shape[1:] != (side_px, side_px) or pixels.dtype != np.uint8:
        raise ValueError(f"expected pixels of shape (n, {side_px}, {side_px}) and type uint8, found {pixels.shape} and {pixels.dtype}")


def _expect_share(share: float, text: str) -> float:
    if not 0 < share <= MAX_ALARM_SHARE:
        calls = "most or all parts" if share > MAX_ALARM_SHARE else "no part"
        raise ModelError(
            f"With {text}, {calls} would be sent to review. Give a value that sends more than 0 % and at most {MAX_ALARM_SHARE:.0%} of "
            "the good parts to review."
        )
    return share


def _expect_usable_scores(all_scores: npt.NDArray[np.float64], group_of: npt.NDArray[np.intp]) -> None:
    # Copies of a file have the same group and the same score. They count as one picture.
    scores = np.sort(np.unique(np.column_stack((group_of, all_scores)), axis=0)[:, 1])
    if len(scores) < MIN_GOOD_PICTURES:
        raise ModelError(
            f"A cut-off needs the scores of at least {MIN_GOOD_PICTURES} different good pictures, but there are {len(scores)}. Add good "
            "pictures."
        )
    if not np.isfinite(scores).all() or scores[0] < 0:
        raise ModelError(
            "A score of a good picture is negative or not a number, so no cut-off can be chosen. Look for unusual pictures among the good "
            "ones, such as overexposed or black ones, and replace them."
        )
    if scores[-1] - scores[0] <= 1e-9 * scores[-1] or scores[-1] == 0:
        raise ModelError(
            f"All {len(scores)} good pictures have the same score, {scores[0]:g}, so no useful cut-off exists. Give pictures of different "
            "good parts."
        )
    ties = int((scores == scores[-1]).sum())
    if ties > max(1.0, TAIL_SHARE * len(scores)):
        raise ModelError(
            f"{ties} of {len(scores)} good pictures have the same largest score, {scores[-1]:g}, so no useful cut-off exists. Remove "
            "pictures that show no good part, or train the scorer again."
        )


def _place_between_scores(scores: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], castings: int) -> float | None:
    """Returns the lowest cut-off with at most `castings` castings above it, or None if there is no such cut-off.

    The cut-off lies halfway between two of the sorted `scores`. `weights` says how much of a casting each score counts. For example, each
    of four pictures of the same casting counts as a quarter of a casting.
    """
    if castings < 1:
        return None
    # above[i] is the total weight of score i and of all higher scores. `_ROUNDING` allows for rounding errors of this sum.
    above = np.cumsum(weights[::-1])[::-1]
    upper = int(np.argmax(above <= castings + _ROUNDING)) if above[-1] <= castings + _ROUNDING else len(scores)
    while upper < len(scores) and scores[upper] == scores[upper - 1]:
        upper += 1
    return float((scores[upper - 1] + scores[upper]) / 2) if upper < len(scores) else None


def _extend_tail(scores: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], castings: int, share: float) -> float:
    """Estimates a cut-off above all `scores` for a small share of false alarms, such as 0.001.

    Assumes that the largest scores follow an exponential distribution. Raises ModelError if there are too few castings for `share`.
    """
    if share * castings * MAX_TAIL_EXTENSION < 1:
        needed = round(1 / (share * MAX_TAIL_EXTENSION))
        raise ModelError(
            f"{len(scores)} good pictures of {castings} different castings are too few to keep the share of false alarms at {share:.2g}. "
            f"Give pictures of at least {needed} good castings, or allow more false alarms."
        )
    wanted = min(max(MIN_TAIL_CASTINGS, int(TAIL_SHARE * castings)), castings - 1)
    above = np.cumsum(weights[::-1])[::-1]
    # The tail is the smallest set of highest scores whose total weight is at least `wanted`.
    first = int(np.flatnonzero(above >= wanted - _ROUNDING)[-1])
    start = scores[first - 1]
    mean_excess = float(np.average(scores[first:] - start, weights=weights[first:]))
    extended = start + mean_excess * np.log(above[first] / (castings * share))
    return float(max(extended, np.nextafter(scores[-1], np.inf)))
