"""The golden set: pictures a version carries, with the answers it gave when it was made, that a runtime must give again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.inference.ensemble import Vote
from models.inference.runtimes.runtime import Runtime, pieces
from models.registry.versions import Version
from streams.errors import ModelError

Way = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]  # pixels -> probabilities, shape (n, voters, classes)


@dataclass(frozen=True, slots=True)
class Golden:
    """`pixels`: (n, side, side), uint8. `answers`: (n, voters, classes), float32."""

    pixels: npt.NDArray[np.uint8]
    answers: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a runtime's answers on the golden set stand to the recorded ones."""

    pictures: int
    same_labels: bool
    distance: float  # largest, of a defect probability


def save_golden(path: Path, golden: Golden) -> None:
    """Writes arrays only, compressed."""
    np.savez_compressed(path, pixels=golden.pixels, answers=golden.answers)


def load_golden(version: Version) -> Golden:
    """The golden set of `version`. Raises ModelError when it is none or does not fit the manifest."""
    manifest = version.manifest
    path = version.file(manifest.golden.file)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            golden = Golden(arrays["pixels"], arrays["answers"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: expected a golden set: {error}") from error
    side = manifest.preprocessing.side_px
    count = len(golden.pixels)
    expected = ((count, side, side), (count, len(manifest.voters), len(manifest.classes)))
    if count == 0 or (golden.pixels.shape, golden.answers.shape) != expected or golden.pixels.dtype != np.uint8:
        raise ModelError(f"{path}: expected shapes {expected}, found {golden.pixels.shape} and {golden.answers.shape}")
    return golden


def golden_pixels(version: Version) -> npt.NDArray[np.uint8]:
    """The pictures alone, for a version of which only some voters are wanted."""
    with version.file(version.manifest.golden.file).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        found: npt.NDArray[np.uint8] = arrays["pixels"]
    return found


def compare_golden(version: Version, runtime: Runtime) -> Agreement:
    """Judges the golden set with `runtime` and compares."""
    golden, vote = load_golden(version), Vote.of(version.manifest)
    answers = np.concatenate([runtime.predict(piece) for piece in pieces(golden.pixels, runtime.max_batch)])
    expected, received = vote.defect_probability(golden.answers), vote.defect_probability(answers)
    same = all(vote.label(float(a)) == vote.label(float(b)) for a, b in zip(expected, received, strict=True))
    return Agreement(len(expected), same, float(np.abs(expected - received).max()))


def labels(version: Version, predict: Way, pixels: npt.NDArray[np.uint8], batch: int) -> list[str]:
    """How `version` labels `pixels`, shape (n, side_px, side_px), when `predict` computes its networks, `batch` pictures at a time."""
    vote = Vote.of(version.manifest)
    answers = np.concatenate([predict(piece) for piece in pieces(pixels, batch)])
    return [vote.label(float(probability)) for probability in vote.defect_probability(answers)]


def check_golden(version: Version, runtime: Runtime) -> Agreement:
    """As `compare_golden`. Raises ModelError when a label differs or a probability is further off than the manifest allows."""
    agreement = compare_golden(version, runtime)
    tolerance = version.manifest.golden.tolerance
    if not agreement.same_labels or not agreement.distance <= tolerance:
        raise ModelError(
            f"{version.folder}: {runtime.name} judges the golden set differently: labels {'same' if agreement.same_labels else 'differ'}, "
            f"largest distance {agreement.distance:.4f}, allowed {tolerance}"
        )
    return agreement
