"""Splits pictures into training and validation pictures. All pictures of a group of near-duplicates go to the same side."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from models.training.labelled_pictures import LabelledPictures
from streams.atomic_file import write_atomically
from streams.errors import ModelError

# A group of near-duplicates that is too large for validation is called dominant. Groups of at most this many pictures are never dominant.
MIN_DOMINANT_GROUP = 20
# A group of near-duplicates is dominant if it would make up more than this share of the validation pictures of its class.
MAX_GROUP_SHARE = 0.2


def find_dominant_groups(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], share: float) -> npt.NDArray[np.bool_]:
    """Returns a mask of the pictures in dominant groups. These pictures must be used only for training.

    A group of near-duplicates is dominant if it would make up more than a fifth of the validation pictures of its class. If too few other
    groups would be left, no group is dominant. A `share` of 0.2 means that a fifth of all pictures are used for validation.

    Dominant groups are bad for the validation, because they have many pictures of few castings. In a trial, the threshold was chosen on the
    pictures of two dominant groups, and then rejected every fifth good casting of the other groups.
    """
    is_dominant = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        sizes = np.bincount(groups, labels == label)
        is_dominant |= (sizes > max(MIN_DOMINANT_GROUP, MAX_GROUP_SHARE * share * (labels == label).sum()))[groups]
    remaining = min(len(np.unique(groups[~is_dominant & (labels == label)])) for label in np.unique(labels))
    return is_dominant if remaining >= max(2, round(1 / share)) else np.zeros(len(labels), np.bool_)


def class_share_weights(labels: npt.NDArray[np.int32], validates: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Returns a weight for each validation picture, so that each class counts as much as it does among all pictures.

    Example: 20 % of all pictures are defective, but only 10 % of the validation pictures are. So each defective validation picture gets the
    weight 2.
    """
    all_shares = np.bincount(labels, minlength=labels.max() + 1) / len(labels)
    validation_shares = np.bincount(labels[validates], minlength=labels.max() + 1) / validates.sum()
    weights: npt.NDArray[np.float64] = (all_shares / np.maximum(validation_shares, 1e-12))[labels[validates]]
    return weights


def count_folds(share: float) -> int:
    """Returns how many equal folds are needed so that one fold holds about `share` of the pictures. Example: 5 folds for 0.2."""
    return max(2, round(1 / share))


def split_by_group(
    labels: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int32],
    share: float,
    seed: int,
    is_learned: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.bool_]:
    """Returns a mask of the validation pictures. A `share` of 0.2 means about a fifth of the pictures.

    Some pictures are used only for training:

    - Pictures in very large groups of near-duplicates (dominant groups).
    - Pictures in groups that the start version has learned. For these pictures, `is_learned` is True.

    Of the pictures that the start version has not learned, about half at most are used for validation. Raises ModelError if a class would
    have no training or no validation pictures.
    """
    folds, others = count_folds(share), np.arange(len(labels))
    if is_learned is not None and is_learned.any():
        others = np.flatnonzero(~is_learned)
        _expect_unlearned_pictures(labels, groups, is_learned)
        folds = min(max(2, round(len(others) / (share * len(labels)))), folds)
        share = 1 / folds
    expect_groups(groups[others], folds)
    validates = np.zeros(len(labels), np.bool_)
    candidates = others[~find_dominant_groups(labels[others], groups[others], share)]
    expect_members(labels[candidates], folds)
    for _, fold in _divide(labels[candidates], groups[candidates], folds, seed):
        validates[:] = False
        validates[candidates[fold]] = True
        # If there are few pictures, a fold may contain no picture of a class. Such a fold is not used for validation.
        if all(len(np.unique(labels[side])) == len(np.unique(labels)) for side in (validates, ~validates)):
            return validates
    raise ModelError(
        "The pictures cannot be split so that each class has both training and validation pictures, because all near-duplicates must go to "
        "the same side. Add pictures of each class that are not near-duplicates."
    )


def _expect_unlearned_pictures(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], is_learned: npt.NDArray[np.bool_]) -> None:
    """Raises ModelError unless each class has at least two groups that the start version has not learned."""
    fewest = min(len(np.unique(groups[~is_learned & (labels == label)])) for label in np.unique(labels))
    if fewest < 2:
        raise ModelError(
            f"The start version has learned {is_learned.sum()} of the {len(labels)} pictures or near-duplicates of them. For the "
            f"validation, each class needs at least 2 groups of other pictures, but one class has only {fewest}. Add pictures that the "
            "start version has not learned, or train without --from."
        )


def list_folds(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], folds: int, seed: int = 0) -> list[npt.NDArray[np.bool_]]:
    """Divides pictures into at most `folds` folds, each with pictures of every class. Returns a mask of shape (n,) for each fold.

    Groups of near-duplicates are never divided. The list is empty if two folds are not possible.
    """
    classes = np.unique(labels)
    groups_of_class = [len(np.unique(groups[labels == label])) for label in classes]
    for count in range(min(folds, *groups_of_class, len(labels)), 1, -1):
        masks = []
        for _, fold in _divide(labels, groups, count, seed):
            mask = np.zeros(len(labels), np.bool_)
            mask[fold] = True
            masks.append(mask)
        if all(len(np.unique(labels[mask])) == len(classes) for mask in masks):
            return masks
    return []


def _divide(
    labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], folds: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yields for each fold the indices outside and inside the fold. Groups stay together, and classes are spread evenly."""
    with warnings.catch_warnings():
        # scikit-learn warns if a class has fewer pictures than there are folds. Hide the warning, because the callers handle this case.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield from StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups)


def expect_groups(groups: npt.NDArray[np.int32], folds: int) -> None:
    """Raises ModelError if there are fewer than `folds` groups of near-duplicates."""
    count = len(np.unique(groups))
    if count < folds:
        raise ModelError(
            f"The pictures form only {count} groups of near-duplicates, and at least {folds} are needed. Add pictures of other castings."
        )


def expect_groups_of_each_class(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32], folds: int) -> None:
    """Raises ModelError if a class has fewer than `folds` groups of near-duplicates, because a fold would then lack the class."""
    fewest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    if fewest < folds:
        raise ModelError(
            f"The pictures of one class form only {fewest} groups of near-duplicates, but at least {folds} are needed. Add "
            "pictures of other castings of each class."
        )


def expect_members(labels: npt.NDArray[np.int32], folds: int) -> None:
    """Raises ModelError if no class has at least `folds` pictures. `labels` gives the class of each picture.

    Pictures that cannot be used for validation must be left out of `labels`.
    """
    counts = np.bincount(labels) if len(labels) else np.zeros(1, np.int64)
    if counts.max() < folds:
        raise ModelError(
            f"At least {folds} pictures of each class are needed for training and validation, but no class has more than {counts.max()}. "
            "Pictures in very large groups of near-duplicates do not count. Add pictures that are not near-duplicates."
        )


def save_split(path: Path, pictures: LabelledPictures, groups: npt.NDArray[np.int32], validates: npt.NDArray[np.bool_]) -> None:
    """Writes a CSV list with absolute path, class, group, side (training or validation) and checksum of each picture."""
    buffer = io.StringIO(newline="")
    rows = csv.writer(buffer)
    rows.writerow(["path", "class", "group", "side", "sha256"])
    for file, group, is_validation, sha in zip(pictures.files, groups, validates, pictures.checksums, strict=True):
        rows.writerow([file.path.absolute(), file.class_name, group, "validation" if is_validation else "training", sha])
    write_atomically(path, buffer.getvalue())


def load_split(path: Path, pictures: LabelledPictures) -> npt.NDArray[np.bool_]:
    """Returns the mask of the validation pictures from a file of `save_split`, so that a resumed training run keeps its split.

    Raises ModelError if `pictures` are not the pictures that the file lists.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if [row["sha256"] for row in rows] != list(pictures.checksums):
        raise ModelError(
            f"The given pictures are not the pictures of the interrupted training run. {path} lists the {len(rows)} pictures of that run. "
            "Give the same pictures, or choose another --out to begin a new training."
        )
    return np.array([row["side"] == "validation" for row in rows])
