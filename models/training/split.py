"""Who learns and who examines: a seeded split by group, the classes' shares kept on both sides as well as groups allow."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from models.training.collection import Collection
from streams.errors import ModelError

SMALLEST_LARGE = 20  # pictures; a smaller group is never too large
LARGEST_PART = 0.2  # of a class's pictures on the side that validates


def too_large(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], share: float) -> npt.NDArray[np.bool_]:
    """True for pictures of groups that would be most of their class among a `share` that validates; such groups only teach.

    Of real impellers nine groups hold most of the good pictures: two of them took a fold's whole share of good ones, none of the others
    was left to raise a false alarm, and the threshold chosen on that fold called every fifth good casting of the next one a defect.
    Nothing is too large where fewer groups than folds of a class would remain.
    """
    large = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        sizes = np.bincount(groups, labels == label)
        large |= (sizes > max(SMALLEST_LARGE, LARGEST_PART * share * (labels == label).sum()))[groups]
    left = min(len(np.unique(groups[~large & (labels == label)])) for label in np.unique(labels))
    return large if left >= max(2, round(1 / share)) else np.zeros(len(labels), np.bool_)


def class_shares(labels: npt.NDArray[np.int32], validates: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """What each validating picture counts, so that the classes have the shares that they have among all pictures; shape (validating,)."""
    counts = np.bincount(labels, minlength=labels.max() + 1) / len(labels)
    found = np.bincount(labels[validates], minlength=labels.max() + 1) / validates.sum()
    weights: npt.NDArray[np.float64] = (counts / np.maximum(found, 1e-12))[labels[validates]]
    return weights


def split(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """True for the pictures that validate, about `share` of those in groups that are not `too_large`; no group stands on both sides.

    Raises ModelError when a side would lack a class: then there are too few pictures, or too few that differ.
    """
    folds = max(2, round(1 / share))
    if len(np.unique(groups)) < folds:
        raise ModelError(f"expected at least {folds} groups of pictures that are not near-duplicates, found {len(np.unique(groups))}")
    chosen = np.zeros(len(labels), np.bool_)
    able = np.flatnonzero(~too_large(labels, groups, share))
    _, examined = next(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(able, labels[able], groups[able]))
    chosen[able[examined]] = True
    for side, name in ((chosen, "validation"), (~chosen, "training")):
        missing = set(np.unique(labels)) - set(np.unique(labels[side]))
        if missing or not side.any():
            raise ModelError(f"expected every class among the {name} pictures; too few pictures that are not near-duplicates")
    return chosen


def write_split(path: Path, collection: Collection, groups: npt.NDArray[np.int32], validates: npt.NDArray[np.bool_]) -> None:
    """A CSV list of who stood where."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "class", "group", "side", "sha256"])
        for entry, group, side, sha in zip(collection.entries, groups, validates, collection.checksums, strict=True):
            rows.writerow([entry.path, entry.name, group, "validation" if side else "training", sha])


def read_split(path: Path, collection: Collection) -> npt.NDArray[np.bool_]:
    """True for the pictures that validate, as `write_split` wrote it: a training that goes on keeps the sides that it began with.

    Raises ModelError when the pictures are others than those that were written down.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if [row["sha256"] for row in rows] != list(collection.checksums):
        found = f"found {len(collection)}, or others"
        raise ModelError(f"expected the {len(rows)} pictures of {path}, {found}; choose another name to begin anew")
    return np.array([row["side"] == "validation" for row in rows])
