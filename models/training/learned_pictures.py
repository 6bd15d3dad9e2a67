"""Remembers in a version which pictures its weights have learned, so that a later training never validates with these pictures.

A picture is recognised by the checksum of its file. A copy that another program has saved again is not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.anomaly.scorer import load_arrays, save_arrays
from models.registry import Version
from models.registry.manifest import LearnedPicturesEntry

# A file holds at most this many pictures, so it has at most 8 MB. Pictures of the start version are left out first.
MAX_PICTURES = 1_000_000
# Of each SHA-256, the first 64 bits are stored. Among a million pictures, two have equal bits with a probability of 3e-8.
_HEX_DIGITS = 16

Checksums = npt.NDArray[np.uint64]


def shorten_checksums(checksums: Sequence[str]) -> Checksums:
    """Returns the first 64 bits of each SHA-256 in `checksums`, shape (n,)."""
    return np.array([int(checksum[:_HEX_DIGITS], 16) for checksum in checksums], np.uint64)


def merge_learned_pictures(checksums: Sequence[str], earlier: Checksums) -> Checksums:
    """Returns the pictures that the weights of a new version have learned, at most MAX_PICTURES.

    - `checksums`: SHA-256 of each picture that the training used.
    - `earlier`: the pictures that the start version had learned.
    """
    new = np.unique(shorten_checksums(checksums))[:MAX_PICTURES]
    old = np.setdiff1d(earlier, new)[: MAX_PICTURES - len(new)]
    return np.sort(np.concatenate((new, old)))


def save_learned_pictures(folder: Path, file: str, learned: Checksums, is_complete: bool) -> LearnedPicturesEntry:
    """Writes `learned` to `file` in `folder`, the folder of a new version. Returns the entry for the manifest.

    `is_complete` is False if it is not known which pictures the start version had learned.
    """
    save_arrays(folder / file, {"sha256": learned})
    return LearnedPicturesEntry(file=file, pictures=len(learned), is_complete=is_complete)


def load_learned_pictures(version: Version, entry: LearnedPicturesEntry | None) -> Checksums:
    """Returns the pictures that `entry` of `version` names. The array is empty if `entry` is None.

    Raises ModelError if the file is missing or damaged.
    """
    if entry is None:
        return np.zeros(0, np.uint64)
    with version.copy_files(entry.file) as folder:
        return load_arrays(folder / entry.file, ("sha256",))["sha256"].astype(np.uint64)


def find_learned_groups(checksums: Sequence[str], groups: npt.NDArray[np.int32], learned: Checksums) -> npt.NDArray[np.bool_]:
    """Returns a mask of the pictures that are in `learned`, or whose group of near-duplicates has a picture that is in `learned`."""
    is_learned = np.isin(shorten_checksums(checksums), learned)
    return np.isin(groups, groups[is_learned])


def warn_of_unknown_pictures(name: str) -> str:
    """Returns a warning about the start version `name`: it is not known which pictures its weights have learned."""
    return (
        f"It is not known which pictures version {name} has learned, because an older release made {name} or the version from which {name} "
        "was trained. Some validation pictures may be among them. Then the figures are too good, and the threshold is not reliable. "
        "Evaluate the new version with pictures of castings that were never used for a training."
    )
