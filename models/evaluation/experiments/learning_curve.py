"""Answers two questions about training pictures: are there enough of them, and which of them probably have a wrong label?

LeNet is trained on growing shares of the pictures. Each picture is then judged by networks that have not seen it or a near-duplicate.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from models.evaluation.experiments.experiment import CellProgress, ExperimentCallback, ExperimentFolder
from models.evaluation.line_simulation import draw_totals
from models.registry.version_report import (
    CONTRADICTED_FILE,
    LEARNING_CURVE_FILE,
    LEARNING_CURVE_PICTURE,
    ContradictedPicture,
    ErrorShare,
    LearningCurve,
    LearningCurvePoint,
)
from models.training.labelled_pictures import LabelledPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.options import TrainingOptions
from models.training.split import list_folds
from models.training.trainer import SplitPictures, predict
from streams.atomic_file import write_atomically
from streams.errors import ModelError

SHARES = (0.125, 0.25, 0.5, 1.0)
FOLDS = 3
NETWORK = "lenet"
# A label counts as contradicted if its probability is at most 0.1. The probability comes from networks that have not seen the picture.
CONTRADICTED = 0.1
_MAX_NAMED, _MAX_DRAWN = 100, 24
_DRAWS = 2000

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOutResult:
    """The result of networks that judged only pictures from which they had not learned.

    The pictures are divided into folds, and each fold is judged by a network that has learned from pictures outside of the fold.

    - `share`: which share of the pictures outside of the fold each network has used.
    - `training_pictures`: the mean number of pictures that a network has used.
    - `probability`, shape (n,): the defect probability of each picture.
    """

    share: float
    training_pictures: int
    probability: npt.NDArray[np.float64]


def compute_learning_curve(
    pictures: LabelledPictures, options: TrainingOptions, folder: Path, callback: ExperimentCallback
) -> LearningCurve:
    """Trains the networks that are not trained yet, and writes the learning curve and its pictures into `folder`.

    After an interruption, the next call continues. Raises ModelError if the pictures cannot be divided into folds, or if `folder` holds a
    learning curve with other options or pictures.
    """
    pictures.expect_two_classes()
    groups = group_near_duplicates(pictures.pixels, pictures.checksums, options.near_bits, options.near_rings)
    folds = list_folds(pictures.labels, groups, FOLDS, options.seed)
    if not folds:
        raise ModelError(
            "The pictures cannot be divided into folds, because all pictures of a class are near-duplicates of each other. Add different "
            "pictures of each class."
        )
    trainings = ExperimentFolder(folder / "learning-curve")
    trainings.claim({"experiment": "learning curve", "options": options.model_dump(), "pictures": pictures.fingerprint()})
    results = [_hold_out(pictures, groups, folds, share, options, trainings, callback) for share in SHARES]
    curve = make_learning_curve(pictures, groups, results)
    write_atomically(folder / LEARNING_CURVE_FILE, curve.model_dump_json(indent=2) + "\n")
    write_atomically(folder / LEARNING_CURVE_PICTURE, draw_learning_curve(curve))
    if curve.contradicted:
        write_atomically(folder / CONTRADICTED_FILE, _draw_contradicted(pictures, curve))
    else:
        (folder / CONTRADICTED_FILE).unlink(missing_ok=True)
    return curve


def _hold_out(
    pictures: LabelledPictures,
    groups: npt.NDArray[np.int32],
    folds: Sequence[Flags],
    share: float,
    options: TrainingOptions,
    trainings: ExperimentFolder,
    callback: ExperimentCallback,
) -> HeldOutResult:
    (voter,) = (one for one in options.voters() if one.name == NETWORK)
    probability, counts = np.zeros(len(pictures)), []
    for number, fold in enumerate(folds):
        trained_on = select_share(pictures.labels, groups, ~fold, share, options.seed + number)
        counts.append(int(trained_on.sum()))
        place = SHARES.index(share) * len(folds) + number
        progress = CellProgress(callback, f"{share:g}-{number}", place, len(SHARES) * len(folds))
        if not trainings.is_finished(progress.cell):
            used = trained_on | fold
            samples = SplitPictures(pictures.pixels[used], pictures.labels[used], fold[used])
            network = trainings.train(voter, options, options.seed, samples, len(pictures.classes), progress)
            trainings.save_result(progress.cell, {"held_out": predict(network, pictures.pixels[fold])})
        probability[fold] = 1 - trainings.load_result(progress.cell)["held_out"][:, pictures.ok_class].astype(np.float64)
        callback.on_cell_progress(progress.cell, place + 1, len(SHARES) * len(folds))
    return HeldOutResult(share, round(float(np.mean(counts))), probability)


def select_share(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], available: Flags, share: float, seed: int) -> Flags:
    """Returns a mask of randomly selected pictures. A `share` of 0.25 selects about a quarter of the `available` pictures of each class.

    A group of near-duplicates is selected as a whole, and each class gets at least one group. With the same seed, the pictures for a
    `share` of 0.25 are also among the pictures for 0.5.
    """
    selected = np.zeros(len(labels), np.bool_)
    order = np.random.default_rng(seed).permutation(np.unique(groups[available]))
    for label in np.unique(labels[available]):
        wanted = share * (available & (labels == label)).sum()
        for group in order:
            of_class = available & (labels == label)
            if (selected & of_class).sum() >= wanted and (selected & of_class).any():
                break
            members = available & (groups == group)
            if (members & of_class).any():
                selected |= members
    return selected


def make_learning_curve(pictures: LabelledPictures, groups: npt.NDArray[np.int32], results: Sequence[HeldOutResult]) -> LearningCurve:
    """Returns the error rate for each size of the training set, and the pictures whose labels are probably wrong.

    Each error rate has a 95 % interval. Errors within a group of near-duplicates are not independent, so the interval comes from random
    weights of whole groups.

    Even if no error was seen, the true error rate can be above 0. So the function adds one imaginary group for each possible outcome,
    for example a group of wrong and a group of right pictures. An imaginary group has half the weight of a real group (Jeffreys' prior).
    In simulations, the interval then contained the true error rate in at least 93 % of the cases.
    """
    is_defect = pictures.labels != pictures.ok_class
    _, index = np.unique(groups, return_inverse=True)
    sizes = np.bincount(index)

    def estimate(values: npt.NDArray[np.float64], outcomes: tuple[int, ...]) -> ErrorShare:
        counts = np.stack([np.bincount(index, values), sizes.astype(np.float64)], axis=1)
        imaginary = np.array([[outcome, 1.0] for outcome in outcomes]) * sizes.mean()
        totals = draw_totals(counts, imaginary, _DRAWS, np.random.default_rng(1))
        low, high = np.percentile(totals[:, 0] / totals[:, 1], (2.5, 97.5))
        value = float(values.mean())
        return ErrorShare(value=value, low=min(float(low), value), high=max(float(high), value))

    errors = [((result.probability >= 0.5) != is_defect).astype(np.float64) for result in results]
    points = [
        LearningCurvePoint(share=result.share, training_pictures=result.training_pictures, errors=estimate(wrong, (0, 1)))
        for result, wrong in zip(results, errors, strict=True)
    ]
    own = np.where(is_defect, results[-1].probability, 1 - results[-1].probability)
    suspicious = [int(number) for number in np.argsort(own, kind="stable") if own[number] <= CONTRADICTED]
    return LearningCurve(
        fingerprint=pictures.fingerprint(),
        network=NETWORK,
        pictures=len(pictures),
        groups=len(sizes),
        points=tuple(points),
        gain=estimate(errors[-2] - errors[-1], (-1, 0, 1)),
        contradicted_count=len(suspicious),
        contradicted=tuple(
            ContradictedPicture(
                path=str(pictures.files[number].path),
                class_name=pictures.files[number].class_name,
                defect_probability=round(float(results[-1].probability[number]), 4),
            )
            for number in suspicious[:_MAX_NAMED]
        ),
    )


def draw_learning_curve(curve: LearningCurve) -> bytes:
    """Returns a PNG diagram that shows how the share of errors depends on the number of training pictures."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    numbers = [point.training_pictures for point in curve.points]
    values = [100 * point.errors.value for point in curve.points]
    below = [100 * (point.errors.value - point.errors.low) for point in curve.points]
    above = [100 * (point.errors.high - point.errors.value) for point in curve.points]
    axes.errorbar(numbers, values, yerr=[below, above], fmt="o-", capsize=4)
    axes.set(xlabel="training pictures", ylabel="errors on held-out pictures, %", xscale="log", ylim=(0, None))
    axes.set_xticks(numbers, [str(number) for number in numbers], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    return _save_png(figure)


def _draw_contradicted(pictures: LabelledPictures, curve: LearningCurve) -> bytes:
    numbers = {str(file.path): number for number, file in enumerate(pictures.files)}
    shown = curve.contradicted[:_MAX_DRAWN]
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2 * columns, 2.3 * rows), layout="constrained")
    for place, one in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(pictures.pixels[numbers[one.path]], cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{place}: {one.class_name}, {one.defect_probability:.2f}", fontsize=8)
        axes.axis("off")
    return _save_png(figure)


def _save_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def describe_as_json(curve: LearningCurve) -> str:
    """Returns the learning curve as JSON, and a sentence that says whether there are enough pictures."""
    return json.dumps({**curve.model_dump(), "sentence": curve.describe_gain()}, indent=2)
