"""The list of the pictures that a model version has learned. A later training never validates with these pictures.

A picture is recognised by the checksum of its file. If a program saves the picture again, the checksum changes, and the picture is not
recognised.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from models.anomaly.scorer import load_arrays, save_arrays
from models.registry import Version
from models.registry.manifest import LearnedPicturesEntry

log = logging.getLogger(__name__)

# A list holds at most this many pictures, so its file has at most 8 MB. If there are more pictures, those of the start version are left
# out first.
MAX_PICTURES = 1_000_000
# Of each SHA-256, the first 64 bits are stored. Among a million pictures, two have equal bits with a probability of 3e-8.
_HEX_DIGITS = 16

Checksums = npt.NDArray[np.uint64]


def shorten_checksums(checksums: Sequence[str]) -> Checksums:
    """Returns the first 64 bits of each SHA-256 in `checksums`, shape (n,)."""
    return np.array([int(checksum[:_HEX_DIGITS], 16) for checksum in checksums], np.uint64)


class Missing(Enum):
    """Says which pictures can be missing from a list of learned pictures: none, only rendered pictures, or any pictures."""

    NONE = 0
    RENDERED = 1
    ANY = 2


@dataclass(frozen=True, slots=True)
class LearnedPictures:
    """The list of the pictures that a version has learned.

    The training of a version can begin with the weights of another version, its start version. The list also contains the pictures that the
    start version has learned.
    """

    checksums: Checksums = field(default_factory=lambda: np.zeros(0, np.uint64))
    missing: Missing = Missing.NONE

    @classmethod
    def load(cls, version: Version, entry: LearnedPicturesEntry | None, is_only_rendered: bool = False) -> Self:
        """Reads the list from a file of `version`. `entry` is the entry for this file in the manifest.

        Returns an empty list if `entry` is None, as in versions of older releases. `is_only_rendered` says whether the version has learned
        only rendered pictures. Raises ModelError if the file is missing or damaged.
        """
        if entry is not None and entry.is_complete:
            missing = Missing.NONE
        else:
            missing = Missing.RENDERED if is_only_rendered or (entry is not None and entry.misses_only_rendered) else Missing.ANY
        if entry is None:
            return cls(missing=missing)
        with version.copy_files(entry.file) as folder:
            return cls(load_arrays(folder / entry.file, ("sha256",))["sha256"].astype(np.uint64), missing)

    def extend(self, checksums: Sequence[str]) -> LearnedPictures:
        """Returns a list that also holds the pictures with the given `checksums` (SHA-256).

        If there would be more than MAX_PICTURES pictures, leaves some of them out and logs how many.
        """
        new = np.unique(shorten_checksums(checksums))
        old = np.setdiff1d(self.checksums, new)
        left_out = len(new) + len(old) - MAX_PICTURES
        if left_out <= 0:
            return LearnedPictures(np.sort(np.concatenate((new, old))), self.missing)
        log.warning(
            "The list of learned pictures holds at most %d pictures, so %d pictures are left out. A later training that begins with this "
            "version may validate with them.",
            MAX_PICTURES,
            left_out,
        )
        return LearnedPictures(np.sort(np.concatenate((new, old))[:MAX_PICTURES]), Missing.ANY)

    def find_groups(self, checksums: Sequence[str], groups: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Returns a mask of pictures. The mask is True for a picture if the list contains this picture or a near-duplicate of it.

        `groups` gives the group of near-duplicates of each picture.
        """
        is_learned = np.isin(shorten_checksums(checksums), self.checksums)
        return np.isin(groups, groups[is_learned])

    def may_miss(self, rendered: int) -> bool:
        """Returns whether the version may have learned pictures of a new training although this list does not contain them.

        `rendered` says how many of the pictures of the new training were rendered by Castline.
        """
        return self.missing is Missing.ANY or (self.missing is Missing.RENDERED and rendered > 0)

    def save(self, folder: Path, file: str) -> LearnedPicturesEntry:
        """Writes the list to `file` in `folder`, the folder of a new version. Returns the entry for the manifest."""
        save_arrays(folder / file, {"sha256": self.checksums})
        return LearnedPicturesEntry(
            file=file,
            pictures=len(self.checksums),
            is_complete=self.missing is Missing.NONE,
            misses_only_rendered=self.missing is Missing.RENDERED,
        )


def warn_of_unknown_pictures(weights: str, harm: str) -> str:
    """Returns a warning that Castline does not know all the pictures with which `weights` were trained.

    Both arguments become parts of the sentence. `weights` is, for example, "version line-3". `harm` says what may be wrong, for example
    "the figures are too good".
    """
    return (
        f"It is not known which pictures {weights} has learned, because an older release made it or one of its start versions, or because "
        f"it has learned more than {MAX_PICTURES:,} pictures. Some validation pictures may be among them. Then {harm}. Evaluate the new "
        "version with pictures of castings that were never used for a training."
    )
