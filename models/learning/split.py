"""Who learns and who examines: a seeded split by group, the classes' shares kept on both sides as well as groups allow."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from models.learning.collection import Collection
from streams.errors import ModelError


def split(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """True for the pictures that validate, about `share` of them; no group stands on both sides.

    Raises ModelError when a side would lack a class: then there are too few pictures, or too few that differ.
    """
    folds = max(2, round(1 / share))
    if len(np.unique(groups)) < folds:
        raise ModelError(f"expected at least {folds} groups of pictures that are not near-duplicates, found {len(np.unique(groups))}")
    chosen = np.zeros(len(labels), np.bool_)
    _, examined = next(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups))
    chosen[examined] = True
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
