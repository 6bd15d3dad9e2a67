"""Compares how well scorers recognise defective parts after they have learned from few or many pictures of good parts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from models.anomaly.scorer import AlarmShare, GoodOnlyScorer, LearnScorer, PixelArray, choose_cut_off, cross_fit_scores
from models.evaluation.experiments.experiment import ResultTable, format_spread
from models.training.labelled_pictures import LabelledPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.split import expect_groups_of_each_class

# The share of false alarms for which the cut-offs in the table are chosen.
ALARM_SHARE = 0.05
# Pictures are scored in batches of this size, so that their residual maps do not fill the memory.
BATCH = 64


@dataclass(frozen=True, slots=True)
class LearningCondition:
    """Says from which pictures a scorer learns.

    - `good`: the number of good pictures, or None for all good pictures.
    - `hidden_share`: the share of these pictures that is replaced by pictures of defective parts. The scorer takes them for good ones.
    - `with_cut_off`: if true, a cut-off is chosen from the same pictures, and its errors on the test pictures are counted.
    """

    good: int | None = None
    hidden_share: float = 0.0
    with_cut_off: bool = False

    @property
    def text(self) -> str:
        """The text in the table: the number of pictures and the share of defective pictures among them."""
        pictures = "all" if self.good is None else f"{self.good}"
        return f"{pictures}, {self.hidden_share:.0%} of them defective" if self.hidden_share else pictures


CONDITIONS = (
    LearningCondition(with_cut_off=True),
    LearningCondition(20, with_cut_off=True),
    LearningCondition(16),
    LearningCondition(4),
    LearningCondition(1),
    LearningCondition(hidden_share=0.05),
    LearningCondition(hidden_share=0.1),
    LearningCondition(hidden_share=0.2),
)


@dataclass(frozen=True, slots=True)
class GoodOnlyFigures:
    """The figures of one scorer under one condition, with a value for each fold.

    `auroc` is the area under the receiver operating characteristic of good against defective. The other two figures are shares of the test
    pictures whose score is above the cut-off: `false_alarms` of the good pictures, and `recall` of the defective ones. Both are empty if
    the condition has no cut-off.
    """

    scorer: str
    condition: LearningCondition
    learned: int
    auroc: tuple[float, ...]
    false_alarms: tuple[float, ...]
    recall: tuple[float, ...]


def compare_good_only_scorers(
    pictures: LabelledPictures,
    scorers: Mapping[str, LearnScorer],
    per_group: int,
    folds: int = 5,
    seed: int = 0,
    conditions: Sequence[LearningCondition] = CONDITIONS,
    on_progress: Callable[[str, float, int], object] = lambda cell, done, total: None,
) -> list[GoodOnlyFigures]:
    """Cross-validates `scorers` under each condition. Near-duplicates always stay in the same fold.

    At most `per_group` pictures of a group of near-duplicates are used, so that one casting with hundreds of pictures does not dominate the
    result.
    """
    groups = group_near_duplicates(pictures.pixels, pictures.checksums)
    rng = np.random.default_rng(seed)
    chosen = choose_per_group(groups, per_group, rng)
    pixels, groups = pictures.pixels[chosen], groups[chosen]
    is_defect = pictures.labels[chosen] != pictures.ok_class
    expect_groups_of_each_class(is_defect.astype(np.int32), groups, folds)
    splits = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(pixels, is_defect, groups))
    results, done, total = [], 0, len(scorers) * len(conditions) * folds
    for name, learn in scorers.items():
        for condition in conditions:
            learned, values = 0, []
            for number, (others, test) in enumerate(splits):
                # The seed depends only on the fold, so all scorers learn from the same pictures. If one condition has more good pictures
                # than another, its pictures include those of the other condition.
                seen = _choose_seen(others, is_defect, condition, np.random.default_rng(seed + number))
                values.append(_test_scorer(pixels, groups, is_defect, seen, test, learn, condition.with_cut_off))
                learned += len(seen)
                done += 1
                on_progress(f"{name}, {condition.text}", done, total)
            auroc, false_alarms, recall = zip(*values, strict=True)
            has_cut_off = condition.with_cut_off
            results.append(
                GoodOnlyFigures(
                    name, condition, round(learned / folds), auroc, false_alarms if has_cut_off else (), recall if has_cut_off else ()
                )
            )
    return results


def choose_per_group(groups: npt.NDArray[np.int32], per_group: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Returns the sorted indices of at most `per_group` random pictures of each group. `groups` has shape (n,)."""
    order = rng.permutation(len(groups))
    rank = np.zeros(len(groups), np.int64)
    counts: dict[int, int] = {}
    for index in order:
        rank[index] = counts.get(int(groups[index]), 0)
        counts[int(groups[index])] = int(rank[index]) + 1
    return np.flatnonzero(rank < per_group)


def make_good_only_table(results: Sequence[GoodOnlyFigures], pictures: LabelledPictures) -> ResultTable:
    """Returns a table of `results` with one row for each scorer and condition."""
    rows = []
    for result in results:
        cut_off = [format_spread(values) if values else "" for values in (result.false_alarms, result.recall)]
        rows.append((result.scorer, result.condition.text, str(result.learned), format_spread(result.auroc), *cut_off))
    counts = " and ".join(f"{count} {name}" for name, count in pictures.class_counts.items())
    return ResultTable(
        f"Good against defective from good pictures alone ({counts})",
        ("scorer", "good pictures", "learned from", "AUROC", "false alarms", "defects found"),
        tuple(rows),
        (
            f"False alarms and defects found are shares of the test pictures above a cut-off for {ALARM_SHARE:.0%} false alarms, which was "
            "chosen from the pictures that the scorer learned from.",
        ),
    )


def _choose_seen(
    others: npt.NDArray[np.int64], is_defect: npt.NDArray[np.bool_], condition: LearningCondition, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Returns the indices of the pictures from which a scorer learns, chosen from `others`, the pictures outside of the test fold."""
    good = rng.permutation(others[~is_defect[others]])[: condition.good]
    hidden = rng.permutation(others[is_defect[others]])[: round(condition.hidden_share * len(good))]
    return np.concatenate((hidden, good[len(hidden) :]))


def _test_scorer(
    pixels: PixelArray,
    groups: npt.NDArray[np.int32],
    is_defect: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
    learn: LearnScorer,
    with_cut_off: bool,
) -> tuple[float, float, float]:
    """Lets a scorer learn from the pictures `seen` and score the pictures `test`.

    Returns the AUROC, the share of false alarms and the share of the defects that were found. The shares are NaN if `with_cut_off` is
    False.
    """
    scores = _score_all(learn(pixels[seen]), pixels[test])
    auroc = float(roc_auc_score(is_defect[test], scores))
    if not with_cut_off:
        return auroc, float("nan"), float("nan")
    cut_off = choose_cut_off(cross_fit_scores(pixels[seen], groups[seen], learn), AlarmShare(ALARM_SHARE))
    is_above = scores > cut_off.score
    return auroc, float(is_above[~is_defect[test]].mean()), float(is_above[is_defect[test]].mean())


def _score_all(scorer: GoodOnlyScorer, pixels: PixelArray) -> npt.NDArray[np.float32]:
    return np.concatenate([scorer.score(pixels[start : start + BATCH]).scores for start in range(0, len(pixels), BATCH)])
