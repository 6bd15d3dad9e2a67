"""Finds the training pictures that look most like another picture. Needs no network, and does not read the training pictures again.

    picture -> part -> rings around its centre -> strength of the waves along each ring -> descriptor -> nearest descriptors

Turning or mirroring the part, or changing the light evenly, hardly changes a descriptor.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.anomaly.polar import PolarGrid
from models.pictures.part_finder import FoundPart, find_part
from models.registry.manifest import TrainingIndexEntry
from streams.errors import ModelError

FILE = "training-index.npz"
# Largest number of pictures in an index. Its file then has about 1 MB.
MAX_PICTURES = 1000
THUMBNAIL_SIDE_PX, THUMBNAIL_QUALITY = 64, 50

GRID = PolarGrid(rings=16, angles=128, inner=0.1, outer=0.98)
WAVES = 24
# A descriptor describes the grey levels along each ring as a sum of waves. For each wave, it holds log(strength + NOISE). NOISE is added
# because the noise of the camera would otherwise strongly change the logarithm for a weak wave.
NOISE = 0.01
# The values of a descriptor are stored as integers from -127 to 127. The integer 127 stands for 4 standard deviations above the mean.
STEPS_PER_DEVIATION = 127 / 4

Descriptors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TrainingPicture:
    """One picture in an index. `path` is where its file was during the training, and `thumbnail` is a small JPEG of the picture."""

    number: int
    path: str
    class_name: str
    thumbnail: bytes

    @property
    def file_name(self) -> str:
        """The name of the picture's file, without folders."""
        return re.split(r"[/\\]", self.path)[-1]


@dataclass(frozen=True)
class TrainingIndex:
    """Descriptors of the training pictures of a version, and the paths of the files. Similar pictures have similar descriptors.

    - `mean` and `deviation`, shape (values,): a descriptor is standardised to (descriptor - mean) / deviation.
    - `descriptors`, shape (n, values), int8: the standardised descriptors of the pictures.
    - `usual_distance`: 99 % of the pictures are at most this far from the nearest other picture.
    """

    mean: Descriptors
    deviation: Descriptors
    descriptors: npt.NDArray[np.int8]
    usual_distance: float
    pictures: tuple[TrainingPicture, ...]

    def find_nearest(self, pixels: npt.NDArray[np.uint8], count: int) -> tuple[list[TrainingPicture], bool]:
        """Returns the `count` pictures that look most like `pixels`, the most similar first.

        The second value is True if even the most similar picture looks clearly different. `pixels` has the shape (side_px, side_px), with
        the side of the version's pictures.
        """
        steps = _quantise((_describe(pixels) - self.mean) / self.deviation)
        distances = np.linalg.norm(self.descriptors.astype(np.float32) - steps, axis=1)
        nearest = np.argsort(distances, kind="stable")[:count]
        return [self.pictures[number] for number in nearest], bool(distances[nearest[0]] > self.usual_distance)

    def save(self, folder: Path) -> TrainingIndexEntry:
        """Writes the index into `folder`, the folder of a new version. Returns the entry for the manifest."""
        classes = sorted({picture.class_name for picture in self.pictures})
        thumbnails = [picture.thumbnail for picture in self.pictures]
        np.savez_compressed(
            folder / FILE,
            mean=self.mean,
            deviation=self.deviation,
            descriptors=self.descriptors,
            usual_distance=np.float64(self.usual_distance),
            classes=np.array(classes, np.str_),
            labels=np.array([classes.index(picture.class_name) for picture in self.pictures], np.int32),
            paths=np.array([picture.path for picture in self.pictures], np.str_),
            thumbnails=np.frombuffer(b"".join(thumbnails), np.uint8),
            thumbnail_bytes=np.array([len(thumbnail) for thumbnail in thumbnails], np.int64),
        )
        return TrainingIndexEntry(file=FILE, pictures=len(self.pictures))


def load_training_index(content: bytes) -> TrainingIndex:
    """Returns the index of the training pictures from the bytes of its file. Raises ModelError if the bytes are not such an index."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            classes, thumbnails = arrays["classes"].tolist(), arrays["thumbnails"].tobytes()
            ends = np.cumsum(arrays["thumbnail_bytes"]).tolist()
            pictures = tuple(
                TrainingPicture(number, path, classes[label], thumbnails[start:end])
                for number, (path, label, start, end) in enumerate(
                    zip(arrays["paths"].tolist(), arrays["labels"].tolist(), [0, *ends[:-1]], ends, strict=True)
                )
            )
            descriptors = arrays["descriptors"]
            if descriptors.shape != (len(pictures), GRID.rings * WAVES) or not pictures:
                raise ValueError(f"expected descriptors of {len(pictures)} pictures, found the shape {descriptors.shape}")
            return TrainingIndex(arrays["mean"], arrays["deviation"], descriptors, float(arrays["usual_distance"]), pictures)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"The index of the training pictures cannot be read: {error}. Copy the version again.") from error


def make_training_index(
    pixels: npt.NDArray[np.uint8],
    groups: npt.NDArray[np.int32],
    class_names: tuple[str, ...],
    paths: tuple[str, ...],
    most: int = MAX_PICTURES,
) -> TrainingIndex:
    """Makes an index of the training pictures `pixels`, shape (n, side_px, side_px).

    `groups`, shape (n,), holds the number of each picture's group of near-duplicates. The index gets one picture of each group and class.
    If these are more than `most` pictures, pictures of the largest classes are left out.
    """
    chosen = _choose_pictures(groups, np.array(class_names), most)
    described = np.stack([_describe(pixels[number]) for number in chosen])
    mean = described.mean(axis=0)
    # The added 0.01 avoids a division by 0 if a value is equal in all pictures.
    deviation = described.std(axis=0) + np.float32(0.01)
    descriptors = _quantise((described - mean) / deviation).astype(np.int8)
    pictures = tuple(
        TrainingPicture(place, paths[number], class_names[number], _encode_thumbnail(pixels[number])) for place, number in enumerate(chosen)
    )
    return TrainingIndex(mean, deviation, descriptors, _find_usual_distance(descriptors), pictures)


def _choose_pictures(groups: npt.NDArray[np.int32], class_names: npt.NDArray[np.str_], most: int) -> list[int]:
    shuffled = np.random.default_rng(1).permutation(len(groups))
    first: dict[tuple[int, str], int] = {}
    for number in sorted(shuffled, key=lambda number: int(groups[number])):
        first.setdefault((int(groups[number]), str(class_names[number])), int(number))
    of_class: dict[str, list[int]] = {}
    for (_, name), number in first.items():
        of_class.setdefault(name, []).append(number)
    chosen: list[int] = []
    # Each class gets the same number of places in the index. The smallest class comes first. If it does not fill its places, the larger
    # classes get its free places.
    for left, numbers in zip(range(len(of_class), 0, -1), sorted(of_class.values(), key=len), strict=True):
        share = (most - len(chosen)) // left
        chosen += np.random.default_rng(1).permutation(numbers)[:share].tolist()
    return sorted(chosen)


def _describe(pixels: npt.NDArray[np.uint8]) -> Descriptors:
    """Returns the descriptor of a picture, shape (values,). If no part is found, describes the whole picture."""
    middle = (len(pixels) - 1) / 2
    part = find_part(pixels) or FoundPart(middle, middle, middle, middle, 0.0)
    rings, _ = GRID.unwrap(pixels, part)
    rings = (rings - rings.mean()) / (rings.std() + 1e-6)
    waves = np.abs(np.fft.rfft(rings, axis=1))[:, :WAVES] / GRID.angles
    return np.log(waves + NOISE).ravel().astype(np.float32)


def _quantise(standardised: Descriptors) -> Descriptors:
    steps: Descriptors = np.clip(np.rint(standardised * np.float32(STEPS_PER_DEVIATION)), -127, 127)
    return steps


def _find_usual_distance(descriptors: npt.NDArray[np.int8]) -> float:
    if len(descriptors) == 1:
        return 0.0
    values = descriptors.astype(np.float32)
    squares = np.square(values).sum(axis=1)
    squared_distances = squares[:, None] + squares[None] - 2 * values @ values.T
    np.fill_diagonal(squared_distances, np.inf)
    return float(np.quantile(np.sqrt(np.maximum(squared_distances.min(axis=1), 0)), 0.99))


def _encode_thumbnail(pixels: npt.NDArray[np.uint8]) -> bytes:
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX))
    image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return buffer.getvalue()
