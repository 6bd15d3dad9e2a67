"""The golden set of a version: a few pictures, with the probabilities that the version gave them when it was made.

A runtime must give these pictures the same labels and nearly the same probabilities.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.anomaly.version_scorers import VersionScorer
from models.inference.runtimes.runtime import Runtime, split_batches
from models.inference.soft_vote import SCALED_CUT_OFF, SoftVote
from models.registry import Version
from streams.errors import ModelError

# A function that takes pixels, shape (n, side, side), and returns the class probabilities from each network (voter), shape
# (n, voters, classes).
PredictFunction = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Golden pictures, and how the version judged them when it was made.

    - `pixels`: the pictures, shape (n, side, side), uint8.
    - `probabilities`: the class probabilities of each network that votes, shape (n, voters, classes), float32.
    - `scores`: the anomaly scores of each scorer, shape (n, scorers), 0..1. None if the version has no scorer.
    """

    pixels: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class GoldenSetComparison:
    """The difference between a runtime's predictions for the golden set and the recorded ones.

    `distance` is the largest difference, over all pictures, between the computed and the recorded defect probability.
    """

    pictures: int
    same_labels: bool
    distance: float


def save_golden_set(path: Path, golden_set: GoldenSet) -> None:
    """Writes `golden_set` to `path` as a compressed NumPy archive of two arrays, or three if there are scores."""
    # The arrays keep the names that they have in files of release 0.1.0, so that old versions stay readable.
    arrays = {"pixels": golden_set.pixels, "answers": golden_set.probabilities}
    if golden_set.scores is not None:
        arrays["scores"] = golden_set.scores
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # mypy takes the arrays for the argument allow_pickle


def load_golden_set(version: Version) -> GoldenSet:
    """Returns the golden set of `version`. Raises ModelError if the file is not a golden set or does not fit the manifest."""
    manifest = version.manifest
    path = version.file(manifest.golden.file)
    try:
        with version.copy_files(manifest.golden.file) as folder, np.load(folder / manifest.golden.file, allow_pickle=False) as arrays:
            scores = arrays["scores"] if manifest.scorers else None
            golden_set = GoldenSet(arrays["pixels"], arrays["answers"], scores)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read as a golden set: {error}. Copy the version again.") from error
    side_px = manifest.preprocessing.side_px
    count = len(golden_set.pixels)
    expected: tuple[tuple[int, ...], ...] = ((count, side_px, side_px), (count, len(manifest.voters), len(manifest.classes)))
    found: tuple[tuple[int, ...], ...] = (golden_set.pixels.shape, golden_set.probabilities.shape)
    if scores is not None:
        expected, found = (*expected, (count, len(manifest.scorers))), (*found, scores.shape)
    if count == 0 or found != expected or golden_set.pixels.dtype != np.uint8:
        raise ModelError(
            f"The golden set {path} does not fit the manifest: expected shapes {expected}, found {found}. Copy the version again."
        )
    return golden_set


def load_golden_pixels(version: Version) -> npt.NDArray[np.uint8]:
    """Returns the pictures of the golden set without their probabilities.

    Unlike `load_golden_set`, this also works if `version` has only some of the networks of the golden set. Example: each stage of a
    cascade has only some networks.
    """
    file = version.manifest.golden.file
    with version.copy_files(file) as folder, np.load(folder / file, allow_pickle=False) as arrays:
        pixels: npt.NDArray[np.uint8] = arrays["pixels"]
    return pixels


def compare_golden_set(version: Version, runtime: Runtime) -> GoldenSetComparison:
    """Judges the golden set of `version` with `runtime`, and compares the result with the recorded probabilities."""
    golden_set, vote = load_golden_set(version), SoftVote.from_manifest(version.manifest)
    probabilities = np.concatenate([runtime.predict(batch) for batch in split_batches(golden_set.pixels, runtime.max_batch)])
    expected, found = (vote.compute_defect_probability(some) for some in (golden_set.probabilities, probabilities))
    same_labels = all(vote.choose_label(float(a)) == vote.choose_label(float(b)) for a, b in zip(expected, found, strict=True))
    return GoldenSetComparison(len(expected), same_labels, float(np.abs(expected - found).max()))


def check_golden_set(version: Version, runtime: Runtime) -> GoldenSetComparison:
    """Judges the golden set of a version and returns the comparison, as `compare_golden_set` does.

    Raises ModelError if a label differs, or if a defect probability differs by more than the tolerance in the manifest.
    """
    comparison = compare_golden_set(version, runtime)
    tolerance = version.manifest.golden.tolerance
    if not comparison.same_labels or not comparison.distance <= tolerance:
        raise ModelError(
            f"The runtime {runtime.name} judges the golden set differently from the record in {version.folder}. The labels are "
            f"{'equal' if comparison.same_labels else 'not equal'}. The probabilities differ by up to {comparison.distance:.4f} "
            f"(allowed: {tolerance}). Choose another runtime."
        )
    return comparison


def compare_golden_scores(version: Version, scorers: Sequence[VersionScorer]) -> GoldenSetComparison:
    """Scores the golden set of `version` with its `scorers`, and compares the result with the recorded scores.

    `same_labels` of the result is True if each score is on the same side of its cut-off as the recorded score.
    """
    golden_set = load_golden_set(version)
    count = len(golden_set.pixels)
    if golden_set.scores is None or not scorers:
        return GoldenSetComparison(count, True, 0.0)
    found = np.stack([scorer.score(golden_set.pixels, [None] * count) for scorer in scorers], axis=1)
    same_labels = bool(((found > SCALED_CUT_OFF) == (golden_set.scores > SCALED_CUT_OFF)).all())
    return GoldenSetComparison(count, same_labels, float(np.abs(found - golden_set.scores).max()))


def check_golden_scores(version: Version, scorers: Sequence[VersionScorer]) -> None:
    """Raises ModelError if a score of the golden set differs from the recorded score by more than the tolerance in the manifest."""
    comparison = compare_golden_scores(version, scorers)
    tolerance = version.manifest.golden.tolerance
    if not comparison.same_labels or not comparison.distance <= tolerance:
        raise ModelError(
            f"The scorers of {version.folder} give the golden set other scores than the recorded ones. They differ by up to "
            f"{comparison.distance:.4f} (allowed: {tolerance}). Another release of Castline probably made the version. "
            "Make the version again."
        )


def label_pictures(version: Version, predict: PredictFunction, pixels: npt.NDArray[np.uint8], max_batch: int) -> list[str]:
    """Returns the label that `version` gives to each of `pixels`, shape (n, side_px, side_px).

    `predict` returns the class probabilities from each network. It is called with at most `max_batch` pictures at a time.
    """
    vote = SoftVote.from_manifest(version.manifest)
    probabilities = np.concatenate([predict(batch) for batch in split_batches(pixels, max_batch)])
    return [vote.choose_label(float(probability)) for probability in vote.compute_defect_probability(probabilities)]
