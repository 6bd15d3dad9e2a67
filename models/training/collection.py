"""Labelled pictures: folders whose subfolders are the classes, or CSV lists, read into one array of grey levels."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.pictures.decoder import PictureLimits, decode
from streams.errors import ModelError, PictureError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
NO_CLASS = ("masks",)  # the renderer's masks lie beside the class folders
MOST_REPEATS = 16  # of a picture in an epoch
READERS = 4  # Pillow lets go of the interpreter while it decodes


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled file, not yet read. `source` is the root or list that named it."""

    path: Path
    name: str  # of its class
    source: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be judged, and why."""

    path: Path
    reason: str
    message: str


@dataclass(frozen=True)
class Collection:
    """Pictures in the order of their paths; `labels` index into `classes`."""

    pixels: npt.NDArray[np.uint8]  # (n, side_px, side_px)
    labels: npt.NDArray[np.int32]  # (n,)
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    checksums: tuple[str, ...]  # SHA-256 of each file
    unreadable: tuple[Unreadable, ...]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def ok_class(self) -> int:
        """Index of the one class of good parts. Raises ModelError when there is none or more than one."""
        found = [index for index, name in enumerate(self.classes) if name.lower().startswith("ok")]
        if len(found) != 1:
            raise ModelError(f"expected exactly one class whose name begins with 'ok', found classes {', '.join(self.classes)}")
        return found[0]

    @property
    def counts(self) -> dict[str, int]:
        """Pictures of each class."""
        found = Counter(self.classes[label] for label in self.labels)
        return {name: found[name] for name in self.classes}

    def repeats(self, balance: float) -> npt.NDArray[np.int32]:
        """How often an epoch is to learn from each picture, shape (n,): those of the largest root once, those of smaller ones more often.

        A root of a tenth of the pictures comes 10 ** `balance` times: 0 leaves it as small as it is, 1 makes all roots equal; but never
        more than `MOST_REPEATS` times, or twenty corrected pictures beside thousands would be half of every lesson.
        """
        sizes = Counter(entry.source for entry in self.entries)
        largest = max(sizes.values())
        times = {source: min(MOST_REPEATS, round((largest / size) ** balance)) for source, size in sizes.items()}
        return np.array([times[entry.source] for entry in self.entries], np.int32)

    def fingerprint(self) -> str:
        """SHA-256 over class and checksum of all pictures; the same whatever the folders are called and lie."""
        lines = sorted(f"{self.classes[label]} {sha}" for label, sha in zip(self.labels, self.checksums, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def scan(roots: Sequence[Path]) -> list[Entry]:
    """The labelled files below `roots`, in a fixed order: folders of class folders, or CSV lists (columns `path`, `class`).

    Raises ModelError when a root is absent or names no picture.
    """
    entries: list[Entry] = []
    for root in roots:
        found = list(_listed(root) if root.suffix.lower() == ".csv" else _foldered(root))
        if not found:
            raise ModelError(f"expected pictures ({', '.join(SUFFIXES)}) in folders named after their class in {root}, found none")
        entries += sorted(found, key=lambda entry: str(entry.path))
    return entries


def read(
    entries: Sequence[Entry],
    side_px: int,
    classes: Sequence[str] | None = None,
    limits: PictureLimits | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Collection:
    """Reads and decodes `entries`; what cannot be judged is listed, not raised. `advance` is called once for each.

    `classes` fixes the order of the labels (those of a version); without it they are sorted. Raises ModelError when a class is
    not one of them, when there is only one, or when nothing could be read.
    """
    names = tuple(classes) if classes else tuple(sorted({entry.name for entry in entries}))
    unknown = sorted({entry.name for entry in entries} - set(names))
    if unknown:
        raise ModelError(f"expected the classes {', '.join(names)}, found also {', '.join(unknown)}")
    pixels, labels, kept, checksums, bad = [], [], [], [], []
    with ThreadPoolExecutor(READERS) as pool:
        for entry, (checksum, found) in zip(entries, pool.map(lambda e: _one(e, side_px, limits), entries), strict=True):
            advance()
            if isinstance(found, Unreadable):
                bad.append(found)
                continue
            pixels.append(found)
            labels.append(names.index(entry.name))
            kept.append(entry)
            checksums.append(checksum)
    if not kept:
        raise ModelError(f"expected pictures, but none of {len(entries)} files could be read; the first: {bad[0].message}")
    return Collection(np.stack(pixels), np.array(labels, np.int32), names, tuple(kept), tuple(checksums), tuple(bad))


def _one(entry: Entry, side_px: int, limits: PictureLimits | None) -> tuple[str, npt.NDArray[np.uint8] | Unreadable]:
    try:
        value = entry.path.read_bytes()
        return hashlib.sha256(value).hexdigest(), decode(value, side_px, limits).pixels
    except PictureError as error:
        return "", Unreadable(entry.path, error.reason, str(error))
    except OSError as error:
        return "", Unreadable(entry.path, "not-read", str(error))


def _foldered(root: Path) -> Iterator[Entry]:
    if not root.is_dir():
        raise ModelError(f"expected a folder of pictures, found no folder {root}")
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name not in NO_CLASS and not folder.name.startswith("."):
            for path in folder.rglob("*"):
                if path.suffix.lower() in SUFFIXES:
                    yield Entry(path, folder.name, str(root))


def _listed(root: Path) -> Iterator[Entry]:
    if not root.is_file():
        raise ModelError(f"expected a list of pictures, found no file {root}")
    with root.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"path", "class"} <= set(rows.fieldnames or ()):
            raise ModelError(f"{root}: expected the columns path and class, found {', '.join(rows.fieldnames or ())}")
        for row in rows:
            yield Entry(root.parent / row["path"], row["class"], str(root))
