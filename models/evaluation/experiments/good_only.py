"""Compares how well scorers recognise defective parts after they have learned from few or many pictures of good parts alone.

Several scorers can be combined. The combined score of a picture is the largest of their scores. To make the scores comparable, each one
is first divided by a score that only few good parts exceed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from models.anomaly.scorer import AlarmShare, FloatArray, GoodOnlyScorer, LearnScorer, PixelArray, choose_cut_off, cross_fit_scores
from models.evaluation.experiments.experiment import ResultTable, format_interval, format_spread
from models.training.labelled_pictures import LabelledPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.split import expect_groups_of_each_class
from streams.errors import ModelError

ALARM_SHARE = 0.05
# Pictures are scored in batches of this size, so that their residual maps do not fill the memory.
BATCH = 64
COMBINATION = "larger of both"
# To make different scorers comparable, the scores of each scorer are divided by its scale. The scale is the score that 5 % of the good
# pictures exceed.
SCALE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class LearningCondition:
    """Says from which pictures a scorer learns.

    - `good`: the number of good pictures; None means all.
    - `hidden_share`: this share of the good pictures is replaced by defective ones. The figures then show how well a scorer learns if
      people have put some defective parts among the good ones by mistake.
    - `with_cut_off`: True if a cut-off is chosen from the same pictures.
    - `draws`: number of random selections of pictures in each fold. The figures are means over these selections.
    """

    good: int | None = None
    hidden_share: float = 0.0
    with_cut_off: bool = False
    draws: int = 1

    @property
    def text(self) -> str:
        """The text for the first column of a table: how many pictures a scorer learns from, and which share of them is defective."""
        pictures = "all" if self.good is None else f"{self.good}"
        return f"{pictures}, {self.hidden_share:.0%} of them defective" if self.hidden_share else pictures


CONDITIONS = (
    LearningCondition(with_cut_off=True),
    LearningCondition(20, with_cut_off=True, draws=3),
    LearningCondition(16),
    LearningCondition(4),
    LearningCondition(1),
    LearningCondition(hidden_share=0.05),
    LearningCondition(hidden_share=0.1),
    LearningCondition(hidden_share=0.2),
)


@dataclass(slots=True)
class GoodOnlyFigures:
    """The figures of one scorer that has learned from the pictures of one `condition`. Each figure has a value for each fold.

    - `auroc`: area under the ROC curve, with defective pictures as the positive class.
    - `false_alarms`: share of the good test pictures above the cut-off.
    - `recall`: share of the defective test pictures above the cut-off.
    - `refusal`: message of a scorer that refused to learn. All figures are then empty.

    `false_alarms` and `recall` are empty if the condition has no cut-off.
    """

    scorer: str
    condition: LearningCondition
    learned: int = 0
    auroc: list[float] = field(default_factory=list)
    false_alarms: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class FoldScores:
    """The scores of a scorer in one fold of the cross-validation.

    - `test`: the scores of the test pictures.
    - `seen`: the scores of the training pictures. Each is the score from a scorer that has not learned from this picture. Empty if the
      training pictures were not scored.
    - `groups`: for each training picture, the number of its group of near-duplicates.
    """

    test: FloatArray
    seen: FloatArray
    groups: npt.NDArray[np.int32]


def compare_good_only_scorers(
    pictures: LabelledPictures,
    scorers: Mapping[str, LearnScorer],
    per_group: int,
    folds: int = 5,
    seed: int = 0,
    conditions: Sequence[LearningCondition] = CONDITIONS,
    on_progress: Callable[[str, float, int], object] = lambda cell, done, total: None,
) -> list[GoodOnlyFigures]:
    """Cross-validates each of `scorers`, and their combination, under each condition. Returns figures in the order of `scorers`.

    Near-duplicates stay in the same fold. At most `per_group` pictures of a group are used, so that no casting dominates.
    """
    groups = group_near_duplicates(pictures.pixels, pictures.checksums)
    chosen = choose_per_group(groups, per_group, np.random.default_rng(seed))
    pixels, groups = pictures.pixels[chosen], groups[chosen]
    is_defect = pictures.labels[chosen] != pictures.ok_class
    expect_groups_of_each_class(is_defect.astype(np.int32), groups, folds)
    splits = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(pixels, is_defect, groups))
    names = [*scorers, *([COMBINATION] if len(scorers) > 1 else [])]
    results = {(name, condition): GoodOnlyFigures(name, condition) for name in names for condition in conditions}
    done, total = 0, len(conditions) * folds
    for condition in conditions:
        for number, (others, test) in enumerate(splits):
            values: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
            for draw in range(condition.draws):
                # All conditions use the same seed. So if one condition takes 4 pictures and another takes 16, the 4 are among the 16.
                seen = _choose_seen(others, is_defect, condition, np.random.default_rng([seed + number, draw]))
                found: dict[str, FoldScores] = {}
                for name in names:
                    try:
                        if name == COMBINATION:
                            found[name] = combine_scores([_expect_scores(found, member) for member in scorers])
                        else:
                            # The training pictures are scored by cross-validation. 5 folds give scores that are exact enough for a
                            # cut-off. 2 folds are enough to make several scorers comparable.
                            cross_folds = 5 if condition.with_cut_off else 2 if len(scorers) > 1 else 0
                            found[name] = _score_fold(pixels, groups, seen, test, scorers[name], cross_folds)
                        values[name].append(_measure(found[name], is_defect[test], condition.with_cut_off))
                    except ModelError as error:
                        results[name, condition].refusal = str(error)
            for name in names:
                _add_fold(results[name, condition], len(seen), values[name])
            done += 1
            on_progress(condition.text, done, total)
    return list(results.values())


def combine_scores(members: Sequence[FoldScores]) -> FoldScores:
    """Combines the scores of several scorers (`members`). The combined score of a picture is the largest scaled score.

    Each scorer has its own scale: the 95 % quantile (1 - SCALE_SHARE) of its scores in `seen`. A scaled score is the score divided by this
    scale.
    """
    scales = [max(float(np.quantile(member.seen, 1 - SCALE_SHARE)), 1e-9) for member in members]
    test = np.max([member.test / scale for member, scale in zip(members, scales, strict=True)], axis=0)
    seen = np.max([member.seen / scale for member, scale in zip(members, scales, strict=True)], axis=0)
    return FoldScores(test, seen, members[0].groups)


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
    """Returns a table of `results`. It has a row for each scorer and each set of pictures from which the scorer has learned."""
    rows = []
    for result in results:
        cut_off = [format_spread(values) if values else "" for values in (result.false_alarms, result.recall)]
        auroc = "refused" if result.refusal else format_interval(result.auroc)
        rows.append((result.scorer, result.condition.text, str(result.learned), auroc, *cut_off))
    counts = " and ".join(f"{count} {name}" for name, count in pictures.class_counts.items())
    refusals = dict.fromkeys(f"Refused ({result.scorer}): {result.refusal}" for result in results if result.refusal)
    return ResultTable(
        f"Good against defective from good pictures alone ({counts})",
        ("scorer", "good pictures", "learned from", "AUROC", "false alarms", "defects found"),
        tuple(rows),
        (
            "AUROC: mean over the folds, with the 95 % interval of Student's t distribution.",
            f"False alarms and defects found are shares of the test pictures above a cut-off for {ALARM_SHARE:.0%} false alarms, which was "
            "chosen from the pictures that the scorer learned from.",
            *refusals,
        ),
    )


def _choose_seen(
    others: npt.NDArray[np.int64], is_defect: npt.NDArray[np.bool_], condition: LearningCondition, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Returns the indices of the pictures from which a scorer learns. `others` are the pictures outside of the test fold."""
    good = rng.permutation(others[~is_defect[others]])[: condition.good]
    hidden = rng.permutation(others[is_defect[others]])[: round(condition.hidden_share * len(good))]
    return np.concatenate((hidden, good[len(hidden) :]))


def _score_fold(
    pixels: PixelArray,
    groups: npt.NDArray[np.int32],
    seen: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
    learn: LearnScorer,
    cross_folds: int,
) -> FoldScores:
    """Makes a scorer from the pictures `seen`, and scores the pictures `test`. Raises ModelError if the scorer refuses to learn.

    If `cross_folds` is not 0, the pictures `seen` get scores, too. Each picture is then scored by a scorer that has not learned from it.
    """
    scores = _score_all(learn(pixels[seen]), pixels[test])
    if not cross_folds or len(np.unique(groups[seen])) < 2:
        return FoldScores(scores, np.zeros(0, np.float32), groups[seen])
    return FoldScores(scores, cross_fit_scores(pixels[seen], groups[seen], learn, cross_folds), groups[seen])


def _expect_scores(found: Mapping[str, FoldScores], member: str) -> FoldScores:
    if member not in found or not len(found[member].seen):
        raise ModelError(f"The combination of scorers needs scores of {member} for good pictures, but there are none. Add good pictures.")
    return found[member]


def _measure(scores: FoldScores, is_defect: npt.NDArray[np.bool_], with_cut_off: bool) -> tuple[float, float, float]:
    """Returns the AUROC, the share of false alarms and the share of found defects. Without a cut-off, both shares are NaN."""
    auroc = float(roc_auc_score(is_defect, scores.test))
    if not with_cut_off:
        return auroc, float("nan"), float("nan")
    is_above = scores.test > choose_cut_off(scores.seen, scores.groups, AlarmShare(ALARM_SHARE)).score
    return auroc, float(is_above[~is_defect].mean()), float(is_above[is_defect].mean())


def _add_fold(result: GoodOnlyFigures, learned: int, values: Sequence[tuple[float, float, float]]) -> None:
    result.learned = learned
    if values:
        auroc, false_alarms, recall = np.mean(values, axis=0).tolist()
        result.auroc.append(auroc)
        if result.condition.with_cut_off:
            result.false_alarms.append(false_alarms)
            result.recall.append(recall)


def _score_all(scorer: GoodOnlyScorer, pixels: PixelArray) -> npt.NDArray[np.float32]:
    return np.concatenate([scorer.score(pixels[start : start + BATCH]).scores for start in range(0, len(pixels), BATCH)])
