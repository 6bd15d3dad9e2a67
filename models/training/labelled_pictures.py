"""Reads labelled pictures from folders or CSV lists into one array of grey levels. A folder has a subfolder for each class."""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.anomaly.version_scorers import DetailInspection, VersionDetails
from models.pictures.decoder import DecodedPicture, PictureArea, PictureLimits, decode_picture, find_picture_area
from models.pictures.rendered_mark import is_rendered
from models.registry.model_card import FEW_DEFECTIVE, FEW_GOOD
from streams.errors import ModelError, PictureError
from streams.picture_files import JUDGED_SUFFIXES, OTHER_PICTURE_SUFFIXES, is_foreign

log = logging.getLogger(__name__)

# Subfolders that are not read as classes. The renderer writes its defect masks into such a folder beside the class folders.
FOLDERS_WITHOUT_CLASS = ("masks",)
_FOREIGN_FOLDERS = "folders of the system or the NAS device"
MAX_REPEATS = 16
# Grey levels go from 0 to 255. If no pixel of any picture is brighter than this, `depth_bits` is probably at least two bits too large.
DARK_LEVEL = 64
# Number of threads that decode pictures. Threads are faster here, because Pillow releases the interpreter's lock (GIL) while it decodes.
DECODER_THREADS = 4


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """The path and class of a picture file that has not been read yet. `source` is the folder or list in which it was found."""

    path: Path
    class_name: str
    source: str


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that is left out, because it cannot be read as a picture. `reason` is a short code, `message` explains it in a sentence."""

    path: Path
    reason: str
    message: str


@dataclass(frozen=True)
class LabelledPictures:
    """Holds decoded pictures with their labels. Fields with a value for each picture have the order of `pixels`.

    - `pixels`: shape (n, side_px, side_px).
    - `labels`: shape (n,), indices into `classes`.
    - `checksums`: SHA-256 of each file.
    - `sizes`: width and height of each picture before it was resampled. Empty if all pictures were square.
    - `unreadable`: files that could not be read.
    - `rendered`: number of pictures that Castline has rendered.
    - `inspections`: results of the search for small defects. Empty if the pictures were not searched.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...]
    files: tuple[LabelledFile, ...]
    checksums: tuple[str, ...]
    unreadable: tuple[UnreadableFile, ...]
    rendered: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    inspections: tuple[DetailInspection, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def ok_class(self) -> int:
        """Index of the class of good parts, the only class with a name that begins with "ok".

        Raises ModelError if there is no such class, or if there are several.
        """
        found = [index for index, name in enumerate(self.classes) if name.lower().startswith("ok")]
        if len(found) != 1:
            raise ModelError(
                f"The class of good parts is not clear among {', '.join(self.classes)}. Rename the folders so that exactly one class "
                "name begins with 'ok'."
            )
        return found[0]

    @property
    def areas(self) -> tuple[PictureArea, ...]:
        """For each picture in `pixels`, the rows and columns that show the picture of the file.

        If the picture of the file was not square, the other rows or columns are a margin.
        """
        side_px = self.pixels.shape[1]
        sizes = self.sizes or ((side_px, side_px),) * len(self)
        return tuple(find_picture_area(side_px, width_px, height_px) for width_px, height_px in sizes)

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of pictures of each class."""
        found = Counter(self.classes[label] for label in self.labels)
        return {name: found[name] for name in self.classes}

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The class name and the path of each picture."""
        return tuple(file.class_name for file in self.files), tuple(str(file.path) for file in self.files)

    def select(self, is_included: npt.NDArray[np.bool_]) -> LabelledPictures:
        """Returns only the pictures for which `is_included`, shape (n,), is True. The list of unreadable files stays the same.

        The number of rendered pictures in the selection is not known, because `rendered` only counts them among all pictures. The result
        has the largest possible number. Example: of 100 pictures, 5 are rendered. A selection of 20 pictures can contain all 5, so its
        `rendered` is 5.
        """
        indices = np.flatnonzero(is_included)
        files, checksums = tuple(self.files[index] for index in indices), tuple(self.checksums[index] for index in indices)
        sizes = tuple(self.sizes[index] for index in indices) if self.sizes else ()
        rendered = min(self.rendered, len(files))
        inspections = tuple(self.inspections[index] for index in indices) if self.inspections else ()
        return LabelledPictures(
            self.pixels[indices], self.labels[indices], self.classes, files, checksums, self.unreadable, rendered, sizes, inspections
        )

    def expect_two_classes(self) -> None:
        """Raises ModelError if all pictures have the same class, because nothing can be learned from them."""
        found = sorted({file.class_name for file in self.files})
        if len(found) < 2:
            raise ModelError(
                f"All pictures have the class {', '.join(found)}, but training needs at least two classes. Add pictures of another class."
            )

    def expect_enough(self, folds: int) -> None:
        """Raises ModelError if a class has fewer than `folds` pictures.

        With fewer pictures, the class would be missing among the training pictures or among the validation pictures.
        """
        counts = {name: count for name, count in self.class_counts.items() if count}
        if min(counts.values()) < folds:
            found = " and ".join(f"{count} pictures of {name}" for name, count in counts.items())
            unread = f" {len(self.unreadable)} more files could not be read." if self.unreadable else ""
            raise ModelError(f"Each class needs at least {folds} pictures, but there are only {found}.{unread} Add pictures.")

    def describe_shortage(self) -> list[str]:
        """Returns warnings if there are fewer than FEW_GOOD good or FEW_DEFECTIVE defective pictures, otherwise an empty list."""
        good = int((self.labels == self.ok_class).sum())
        kinds = (("good", good, FEW_GOOD), ("defective", len(self) - good, FEW_DEFECTIVE))
        return [
            f"There are only {count} pictures of {kind} castings. With fewer than {few}, a version may make many errors on other castings, "
            f"and its figures are rough. Add pictures of other {kind} castings."
            for kind, count, few in kinds
            if count < few
        ]

    def repeats(self, balance: float) -> npt.NDArray[np.int32]:
        """Returns how often each picture is used in one epoch, shape (n,). Pictures of small folders and lists are used more often.

        For example, the largest folder has 1000 pictures, and another folder has 100. With `balance` 1, each of the 100 pictures is used
        10 times. With `balance` 0.5, each is used 3 times (the square root of 10). With `balance` 0, each is used once.

        No picture is used more than MAX_REPEATS times, so that a folder with a few pictures does not make up half of an epoch.
        """
        sizes = Counter(file.source for file in self.files)
        largest = max(sizes.values())
        times = {source: min(MAX_REPEATS, round((largest / size) ** balance)) for source, size in sizes.items()}
        return np.array([times[file.source] for file in self.files], np.int32)

    def fingerprint(self) -> str:
        """Returns a SHA-256 over the classes and checksums of all pictures. It does not depend on the names and folders of the files."""
        lines = sorted(f"{self.classes[label]} {sha}" for label, sha in zip(self.labels, self.checksums, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_pictures(sources: Sequence[Path]) -> list[LabelledFile]:
    """Returns the labelled files of `sources`, in a fixed order.

    A source is a folder with a subfolder for each class, or a CSV list with the columns `path` (relative to the list) and `class`. Hidden
    files and system folders are left out, and a log line counts them.

    Raises ModelError if a source does not exist or has no picture.
    """
    files: list[LabelledFile] = []
    for source in sources:
        left_out: Counter[str] = Counter()
        found = list(_files_of_list(source) if source.suffix.lower() == ".csv" else _files_of_folder(source, left_out))
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        if not found:
            others = f", but left out {text}" if text else ""
            raise ModelError(
                f"Found no pictures in {source}{others}. Put pictures ({', '.join(JUDGED_SUFFIXES)}) into subfolders that are named after "
                "their class."
            )
        if text:
            log.warning("Not everything in %s is read. Left out: %s. To use pictures of other formats, convert them to PNG.", source, text)
        files += sorted(found, key=lambda file: str(file.path))
    return files


def read_pictures(
    files: Sequence[LabelledFile],
    side_px: int,
    classes: Sequence[str] | None = None,
    limits: PictureLimits | None = None,
    depth_bits: int | None = None,
    on_read: Callable[[int, int], object] = lambda done, total: None,
    details: VersionDetails | None = None,
) -> LabelledPictures:
    """Reads `files` and resamples the pictures to `side_px`. Files that cannot be decoded are listed in the result.

    - `depth_bits`: the number of bits per pixel that the camera really uses, for files with more than 8 bits per pixel, or None.
    - `classes`: the order of the classes. None means sorted by name.
    - `on_read`: called after each file with the number of files read so far and the number of all files.
    - `details`: the detail template that searches the original pixels for small defects, or None. Pass `Ensemble.details`.

    Raises ModelError if a class is not among `classes`, or if no file could be read.
    """
    names = tuple(classes) if classes else tuple(sorted({file.class_name for file in files}))
    unknown = sorted({file.class_name for file in files} - set(names))
    if unknown:
        raise ModelError(
            f"The pictures have the classes {', '.join(unknown)}, which the model version does not know. Use its classes: "
            f"{', '.join(names)}."
        )
    pixels, labels, readable, checksums, unreadable, sizes, inspections, rendered = [], [], [], [], [], [], [], 0
    with ThreadPoolExecutor(DECODER_THREADS) as pool:
        decoded = pool.map(lambda file: _decode_file(file, side_px, limits, depth_bits, details), files)
        for done, (file, result) in enumerate(zip(files, decoded, strict=True), 1):
            on_read(done, len(files))
            if isinstance(result, UnreadableFile):
                unreadable.append(result)
                continue
            pixels.append(result.picture.pixels)
            sizes.append((result.picture.width_px, result.picture.height_px))
            labels.append(names.index(file.class_name))
            readable.append(file)
            checksums.append(result.checksum)
            if result.inspection is not None:
                inspections.append(result.inspection)
            rendered += result.is_rendered
    if not readable:
        raise ModelError(f"None of the {len(files)} files could be read as a picture. The first error: {unreadable[0].message}")
    stacked = np.stack(pixels)
    if depth_bits is not None:
        _warn_of_darkness(int(stacked.max()), depth_bits)
    return LabelledPictures(
        stacked,
        np.array(labels, np.int32),
        names,
        tuple(readable),
        tuple(checksums),
        tuple(unreadable),
        rendered,
        tuple(sizes),
        tuple(inspections),
    )


def _warn_of_darkness(brightest: int, depth_bits: int) -> None:
    """Warns if `depth_bits` is probably too large for the pictures. Raises no error, because the pictures of a line can be this dark."""
    level = brightest * (2**depth_bits - 1) / 255
    # The smallest allowed depth is 8 bits, so the warning never names fewer than 8 bits.
    fitting_bits = max(8, math.ceil(math.log2(level + 1)))
    if brightest <= DARK_LEVEL and fitting_bits < depth_bits:
        log.warning(
            "All pictures are dark: with a depth of %d bits, their brightest grey level is %d of 255. They would also fit into %d bits. If "
            "the camera delivers fewer than %d bits, correct --depth-bits, and set the same depth_bits for the line.",
            depth_bits,
            brightest,
            fitting_bits,
            depth_bits,
        )


@dataclass(frozen=True, slots=True)
class _DecodedFile:
    picture: DecodedPicture
    checksum: str
    is_rendered: bool
    inspection: DetailInspection | None


def _decode_file(
    file: LabelledFile, side_px: int, limits: PictureLimits | None, depth_bits: int | None, details: VersionDetails | None
) -> _DecodedFile | UnreadableFile:
    try:
        content = file.path.read_bytes()
        picture = decode_picture(content, side_px, limits, depth_bits, keep_original=details is not None)
        inspection = None if details is None else details.inspect_decoded(picture)
        # Keep only the reduced picture, because the original pixels of all pictures would not fit into memory.
        return _DecodedFile(replace(picture, original=None), hashlib.sha256(content).hexdigest(), is_rendered(content), inspection)
    except PictureError as error:
        return UnreadableFile(file.path, error.reason, str(error))
    except OSError as error:
        return UnreadableFile(file.path, "not-read", str(error))


def _files_of_folder(root: Path, left_out: Counter[str]) -> Iterator[LabelledFile]:
    """Yields the picture files in the class folders of `root`. Counts other files and folders by their kind in `left_out`."""
    if not root.is_dir():
        raise ModelError(f"The folder of pictures {root} does not exist. Correct the path.")
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name in FOLDERS_WITHOUT_CLASS:
            continue
        if is_foreign(folder.name):
            left_out[_FOREIGN_FOLDERS] += 1
            continue
        for parent, subfolders, names in os.walk(folder):
            left_out.update(_FOREIGN_FOLDERS for name in subfolders if is_foreign(name))
            subfolders[:] = sorted(name for name in subfolders if not is_foreign(name))
            for name in names:
                suffix = Path(name).suffix.lower()
                if is_foreign(name):
                    left_out["hidden files"] += 1
                elif suffix in JUDGED_SUFFIXES:
                    yield LabelledFile(Path(parent) / name, folder.name, str(root))
                elif suffix in OTHER_PICTURE_SUFFIXES:
                    left_out[f"{suffix} pictures"] += 1
                else:
                    left_out["files that are no pictures"] += 1


def _files_of_list(path: Path) -> Iterator[LabelledFile]:
    if not path.is_file():
        raise ModelError(f"The list of pictures {path} does not exist. Correct the path.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        if not {"path", "class"} <= set(columns):
            raise ModelError(f"The list of pictures {path} needs the columns path and class, but has {', '.join(columns)}. Add them.")
        for row in rows:
            yield LabelledFile(path.parent / row["path"], row["class"], str(path))
