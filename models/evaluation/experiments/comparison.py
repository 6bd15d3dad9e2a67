"""Compares the ensemble with its single networks, and with a support vector machine, on several splits of the pictures.

A split divides the pictures into training, validation and test pictures. Near-duplicates stay together.
The voting rule is chosen on the validation pictures.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from models.evaluation.experiments.experiment import CellProgress, ExperimentCallback, ExperimentFolder, ResultTable, format_spread
from models.inference.soft_vote import SoftVote
from models.registry.manifest import Costs
from models.registry.version_report import Proportion
from models.training.combination import choose_combination, compute_log_losses
from models.training.labelled_pictures import LabelledPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.options import TrainingOptions
from models.training.split import class_share_weights, expect_groups_of_each_class, find_dominant_groups, split_by_group
from models.training.trainer import SplitPictures, predict

# The support vector machine is the only classifier that is not a neural network. It gets pictures of 32 x 32 pixels.
SVM, SVM_SIDE_PX = "svm", 32
ENSEMBLE = "ensemble"
# In the comparison, a miss and a false alarm cost the same. The threshold with the lowest cost then also has the highest accuracy.
EQUAL_COSTS = Costs(miss=1, false_alarm=1)

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ComparisonSplit:
    """One split of the pictures, on which all classifiers are trained and tested.

    `is_validation` and `is_test` are masks of shape (n,). All other pictures are training pictures.
    `groups`, shape (n,), are the groups of near-duplicates.
    """

    name: str
    seed: int
    is_validation: Flags
    is_test: Flags
    groups: npt.NDArray[np.int32]

    @property
    def sides(self) -> tuple[tuple[str, Flags], tuple[str, Flags]]:
        """Returns two pairs. Each pair has a key of the result file, and the mask of the pictures that belong to this key.

        - "chooses": the validation pictures, on which the voting rule is chosen.
        - "judges": the test pictures, on which the result is judged.
        """
        return ("chooses", self.is_validation), ("judges", self.is_test)


@dataclass(frozen=True)
class SplitResult:
    """The labels that each classifier gave to the test pictures of one split. Values for each picture have shape (n,).

    - `called_defect`: for each classifier, the pictures that it calls defective.
    - `is_defect`: the pictures that show a defect.
    - `sources`: the folder or list of each picture.
    - `cross_entropy`: for the ensemble and each network, the cross-entropy of each picture in nats.
    - `weights`: the weights of the networks in the ensemble.
    """

    split: ComparisonSplit
    called_defect: dict[str, Flags]
    is_defect: Flags
    sources: npt.NDArray[np.str_]
    cross_entropy: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def accuracy(self, classifier: str) -> float:
        """Returns the share of test pictures that `classifier` labels correctly."""
        return float((self.called_defect[classifier] == self.is_defect).mean())

    def select(self, source: str | None) -> Flags:
        """Returns a mask of the pictures that came from `source`, or of all pictures if `source` is None."""
        mask: Flags = self.sources == source if source else np.ones(len(self.is_defect), np.bool_)
        return mask


@dataclass(frozen=True)
class Comparison:
    """Trains and tests all classifiers on one split after the other. `folder` keeps the results.

    `kind` names the experiment, for example "5 folds". Each experiment needs a folder of its own. If `with_svm` is True, a support vector
    machine is compared too.
    """

    options: TrainingOptions
    folder: Path
    kind: str
    with_svm: bool

    def run(self, pictures: LabelledPictures, splits: Sequence[ComparisonSplit], callback: ExperimentCallback) -> list[SplitResult]:
        """Trains the classifiers that are not trained yet, and returns one result for each split."""
        folder = ExperimentFolder(self.folder)
        folder.claim({"experiment": self.kind, "options": self.options.model_dump(), "pictures": pictures.fingerprint()})
        names = [*([SVM] if self.with_svm else []), *(voter.name for voter in self.options.voters())]
        cells = [(split, name) for split in splits for name in names]
        for number, (split, name) in enumerate(cells):
            progress = CellProgress(callback, f"{split.name}-{name}", number, len(cells))
            if not folder.is_finished(progress.cell):
                if name == SVM:
                    folder.save_result(progress.cell, _train_svm(pictures, split))
                else:
                    self._train_network(folder, name, pictures, split, progress)
            callback.on_cell_progress(progress.cell, number + 1, len(cells))
        return [self._load_split_result(folder, split, pictures) for split in splits]

    def _train_network(
        self, folder: ExperimentFolder, name: str, pictures: LabelledPictures, split: ComparisonSplit, progress: CellProgress
    ) -> None:
        (voter,) = (voter for voter in self.options.voters() if voter.name == name)
        rest = ~split.is_test
        repeats = pictures.repeats(self.options.balance)[rest]
        samples = SplitPictures(pictures.pixels[rest], pictures.labels[rest], split.is_validation[rest], repeats)
        network = folder.train(voter, self.options, split.seed, samples, len(pictures.classes), progress)
        folder.save_result(progress.cell, {side: predict(network, pictures.pixels[mask]) for side, mask in split.sides})

    def _load_split_result(self, folder: ExperimentFolder, split: ComparisonSplit, pictures: LabelledPictures) -> SplitResult:
        ok_class, labels, names = pictures.ok_class, pictures.labels, [voter.name for voter in self.options.voters()]
        results = [folder.load_result(f"{split.name}-{name}") for name in names]
        validation, test = (np.stack([result[side] for result in results], axis=1).astype(np.float32) for side, _ in split.sides)
        weights = class_share_weights(labels, split.is_validation)

        is_defect = labels[split.is_test] != ok_class
        groups = split.groups[split.is_validation]

        def choose_vote(members: slice) -> SoftVote:
            return choose_combination(
                names[members], validation[:, members], labels[split.is_validation], ok_class, EQUAL_COSTS, 0, weights, groups
            ).vote

        members = {ENSEMBLE: slice(None)} | {name: slice(index, index + 1) for index, name in enumerate(names)}
        votes = {name: choose_vote(chosen) for name, chosen in members.items()}
        probability = {name: vote.compute_defect_probability(test[:, members[name]]) for name, vote in votes.items()}
        called_defect = {name: values >= votes[name].threshold for name, values in probability.items()}
        cross_entropy = {name: compute_log_losses(values, is_defect) for name, values in probability.items()}
        if self.with_svm:
            called_defect[SVM] = folder.load_result(f"{split.name}-{SVM}")["judges"].argmax(axis=1) != ok_class
        sources = np.array([Path(file.source).name for file in pictures.files])
        ensemble_weights = dict(zip(names, votes[ENSEMBLE].weights.tolist(), strict=True))
        return SplitResult(split, called_defect, is_defect, sources[split.is_test], cross_entropy, ensemble_weights)


def split_by_seeds(pictures: LabelledPictures, options: TrainingOptions, seeds: Sequence[int]) -> list[ComparisonSplit]:
    """Returns a split for each seed.

    With an `options.validation_share` of 0.2, a fifth of the pictures are test pictures. A fifth of the rest are validation pictures.
    """
    groups = _group(pictures, options)
    splits = []
    for seed in seeds:
        is_test = split_by_group(pictures.labels, groups, options.validation_share, seed)
        splits.append(ComparisonSplit(f"seed-{seed}", seed, _choose_validation(pictures, groups, is_test, options, seed), is_test, groups))
    return splits


def split_into_folds(pictures: LabelledPictures, options: TrainingOptions, folds: int) -> list[ComparisonSplit]:
    """Returns `folds` splits. Each picture is a test picture in exactly one of them.

    Exception: a group of near-duplicates that is too large for one fold is never tested.
    """
    groups = _group(pictures, options)
    candidates = np.flatnonzero(~find_dominant_groups(pictures.labels, groups, 1 / folds))
    labels = pictures.labels[candidates]
    expect_groups_of_each_class(labels, groups[candidates], folds)
    folder = StratifiedGroupKFold(folds, shuffle=True, random_state=options.seed)
    splits = []
    for number, (_, fold) in enumerate(folder.split(candidates, labels, groups[candidates]), 1):
        is_test = np.zeros(len(pictures), np.bool_)
        is_test[candidates[fold]] = True
        is_validation = _choose_validation(pictures, groups, is_test, options, options.seed)
        splits.append(ComparisonSplit(f"fold-{number}", options.seed, is_validation, is_test, groups))
    return splits


def make_classifier_table(results: Sequence[SplitResult]) -> ResultTable:
    """Returns a table with a row for each classifier, and a row with the ensemble's figures for each source of pictures.

    The sentence below the table says whether the ensemble is better than the best of its single networks.
    """
    names = [name for name in results[0].called_defect if name != ENSEMBLE]
    rows = [_classifier_row(results, name) for name in (*sorted(names), ENSEMBLE)]
    rows += [_classifier_row(results, ENSEMBLE, source) for source in find_sources(results)]
    head = ("classifier", *(result.split.name for result in results), "mean", "misses", "false alarms")
    return ResultTable("Accuracy on test pictures, equal costs", head, tuple(rows), (_compare_with_best_member(results, names),))


def make_fold_table(results: Sequence[SplitResult]) -> ResultTable:
    """Returns a table with 95 % confidence intervals. There is a row for each fold, for all folds together, and for each source.

    Sentences below the table compare the ensemble with its best network in each fold, by cross-entropy.
    """
    rows = [(result.split.name, *_fold_row([result])) for result in results]
    rows.append(("pooled", *_fold_row(results)))
    rows += [(f"of {source}", *_fold_row(results, source)) for source in find_sources(results)]
    members = [name for name in results[0].called_defect if name != ENSEMBLE]
    head = ("part", "ensemble", "misses", "false alarms", *members)
    return ResultTable(f"Cross-validation in {len(results)} folds of groups", head, tuple(rows), tuple(_compare_cross_entropy(results)))


def count_correct(results: Sequence[SplitResult], classifier: str, source: str | None = None) -> Proportion:
    """Returns the share of test pictures in all splits that `classifier` labels correctly.

    If `source` is not None, only the pictures from this folder or list are counted.
    """
    correct = sum(int((result.called_defect[classifier] == result.is_defect)[result.select(source)].sum()) for result in results)
    return Proportion.from_counts(correct, sum(int(result.select(source).sum()) for result in results))


def count_mistakes(results: Sequence[SplitResult], classifier: str, source: str | None = None) -> tuple[int, int]:
    """Returns the numbers of misses and of false alarms of `classifier` on the test pictures of all splits.

    If `source` is not None, only the pictures from this folder or list are counted.
    """
    misses = false_alarms = 0
    for result in results:
        called, mask = result.called_defect[classifier], result.select(source)
        misses += int((result.is_defect & ~called & mask).sum())
        false_alarms += int((~result.is_defect & called & mask).sum())
    return misses, false_alarms


def find_sources(results: Sequence[SplitResult]) -> list[str]:
    """Returns the names of the folders and lists from which the pictures came, or an empty list if there is only one."""
    sources = sorted(set(np.concatenate([result.sources for result in results]).tolist()))
    return sources if len(sources) > 1 else []


def _classifier_row(results: Sequence[SplitResult], classifier: str, source: str | None = None) -> tuple[str, ...]:
    rates = [count_correct([result], classifier, source).value for result in results]
    title = f"{classifier}, of {source}" if source else classifier
    mistakes = map(str, count_mistakes(results, classifier, source))
    return (title, *(f"{rate:.4f}" for rate in rates), format_spread(rates), *mistakes)


def _fold_row(results: Sequence[SplitResult], source: str | None = None) -> list[str]:
    members = [f"{count_correct(results, name, source).value:.4f}" for name in results[0].called_defect if name != ENSEMBLE]
    return [str(count_correct(results, ENSEMBLE, source)), *map(str, count_mistakes(results, ENSEMBLE, source)), *members]


def _compare_with_best_member(results: Sequence[SplitResult], members: Sequence[str]) -> str:
    means = {name: statistics.fmean(result.accuracy(name) for result in results) for name in (*members, ENSEMBLE)}
    best = max(members, key=lambda name: means[name])
    wins = sum(result.accuracy(ENSEMBLE) > result.accuracy(best) for result in results)
    losses = sum(result.accuracy(ENSEMBLE) < result.accuracy(best) for result in results)
    relation = "better than" if means[ENSEMBLE] > means[best] else "as good as" if means[ENSEMBLE] == means[best] else "worse than"
    return (
        f"The ensemble ({count_correct(results, ENSEMBLE)}) is on average {relation} its best member, {best} "
        f"({count_correct(results, best)}): better in {wins} of {len(results)}, worse in {losses}."
    )


def measure_difference(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], groups: npt.NDArray[np.int32]
) -> tuple[float, float]:
    """Returns the mean of `first` - `second`, both of shape (n,), and the standard error of this mean.

    Errors of near-duplicates are not independent, so the standard error is computed from sums over the groups (Liang and Zeger, Biometrika
    73, 1986). With a single group, the standard error is infinite.
    """
    difference = first - second
    mean = float(difference.mean())
    _, group_of = np.unique(groups, return_inverse=True)
    sums = np.bincount(group_of, difference - mean)
    if len(sums) < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(difference))


def _compare_cross_entropy(results: Sequence[SplitResult]) -> list[str]:
    """Compares the ensemble with its best network. Returns a text for each split, and a last sentence about all splits."""
    sentences, kept = [], 0
    for result in results:
        means = {name: float(values.mean()) for name, values in result.cross_entropy.items()}
        best = min((name for name in means if name != ENSEMBLE), key=lambda name: means[name])
        groups = result.split.groups[result.split.is_test]
        difference, error = measure_difference(result.cross_entropy[ENSEMBLE], result.cross_entropy[best], groups)
        kept += difference <= error
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in result.weights.items())
        sentences.append(
            f"{result.split.name}: weights {weights}. The cross-entropy of the ensemble is {means[ENSEMBLE]:.4f}, that of its best member, "
            f"{best}, is {means[best]:.4f}. The difference is {difference:+.4f} with a standard error of {error:.4f}."
        )
    return [
        *sentences,
        f"In {kept} of {len(results)} folds, the ensemble is not worse than its best member by more than one standard error.",
    ]


def _group(pictures: LabelledPictures, options: TrainingOptions) -> npt.NDArray[np.int32]:
    # Reading `ok_class` raises ModelError if the good class is unclear. So it is read now, before hours of training.
    _ = pictures.ok_class
    return group_near_duplicates(pictures.pixels, pictures.checksums, options.near_bits, options.near_rings)


def _choose_validation(
    pictures: LabelledPictures, groups: npt.NDArray[np.int32], is_test: Flags, options: TrainingOptions, seed: int
) -> Flags:
    rest = np.flatnonzero(~is_test)
    is_validation = np.zeros(len(is_test), np.bool_)
    is_validation[rest[split_by_group(pictures.labels[rest], groups[rest], options.validation_share, seed)]] = True
    return is_validation


def _train_svm(pictures: LabelledPictures, split: ComparisonSplit) -> dict[str, npt.NDArray[np.generic]]:
    side = (SVM_SIDE_PX, SVM_SIDE_PX)
    small = np.stack([np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.BOX)) for picture in pictures.pixels])
    flat = small.reshape(len(small), -1).astype(np.float32)
    teaches = ~split.is_test & ~split.is_validation
    machine = make_pipeline(StandardScaler(), SVC(C=10, class_weight="balanced"))
    machine.fit(flat[teaches], pictures.labels[teaches])
    one_hot = np.eye(len(pictures.classes), dtype=np.float32)
    return {name: one_hot[machine.predict(flat[mask])] for name, mask in split.sides}
