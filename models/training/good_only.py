"""Makes a model version from pictures of good parts alone: a part reference, a golden template and a cut-off, without any network.

    good pictures -> check that all show the same part -> part reference
                  -> golden template -> scores of pictures that the template has not seen -> cut-off

`add_scorer` gives the same scorer to a version that is trained on labelled pictures.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.anomaly.scorer import (
    MIN_GOOD_PICTURES,
    CutOff,
    CutOffObjective,
    GoodOnlyScorer,
    PixelArray,
    choose_cut_off,
    cross_fit_scores,
    scale_scores,
    split_alarm_share,
)
from models.anomaly.template import learn_golden_template
from models.inference.drift import make_picture_reference
from models.inference.golden_set import GoldenSet, save_golden_set
from models.inference.soft_vote import SCALED_CUT_OFF
from models.inference.training_index import make_training_index
from models.pictures.part_finder import RememberingPartFinder, find_odd_pictures, learn_part_reference
from models.registry import LocalRegistry, Version, write_manifest
from models.registry.manifest import ScorerEntry
from models.training.details import learn_details
from models.training.labelled_pictures import LabelledFile, LabelledPictures, read_pictures
from models.training.near_duplicates import group_near_duplicates
from streams.errors import ModelError
from streams.picture_files import JUDGED_SUFFIXES, is_foreign

log = logging.getLogger(__name__)

CLASSES = ("defect", "ok")
OK_CLASS = CLASSES.index("ok")
MAX_LEFT_OUT_SHARE = 0.2
# If there are fewer good pictures than this, the training warns that the cut-off is uncertain.
ENOUGH_PICTURES = 20
GOLDEN_PICTURES = 24
# Two machines can compute slightly different scores (0..1) for a picture of the golden set. This is the largest allowed difference.
GOLDEN_TOLERANCE = 0.02
_MAX_NAMED = 8


class GoodOnlyCallback(Protocol):
    """Receives the progress of the training. A method may raise KeyboardInterrupt to stop the training, which then writes nothing."""

    def on_picture_read(self, done: int, total: int) -> None:
        """Called after each picture file. `done` of `total` files have been read."""

    def on_pictures_left_out(self, reason: str, names: Sequence[str]) -> None:
        """Called if pictures are not used, once for each reason. `names` are the files that are not used for this reason."""

    def on_scorer_learned(self, done: int, total: int) -> None:
        """Called after each learned scorer. Only the last of the `total` scorers is kept. The others serve to choose its cut-off."""


@dataclass(frozen=True, slots=True)
class GoodOnlyResult:
    """The result of a training with good parts only: the new version and the cut-off of the version's scorer.

    `groups` is the number of groups of near-duplicates. A good picture without a near-duplicate is a group of its own.
    """

    version: Version
    cut_off: CutOff
    groups: int


@dataclass(frozen=True, slots=True)
class LearnedScorer:
    """A scorer that has learned from all good pictures, with its cut-off.

    `scores`, shape (n,), are the scores of the good pictures, from which the cut-off was chosen. A score of `scorer` itself would be too
    low, because `scorer` has learned from these pictures. So each score comes from a scorer that has not learned from the picture.
    """

    scorer: GoodOnlyScorer
    cut_off: CutOff
    scores: npt.NDArray[np.float32]

    def score(self, pixels: PixelArray) -> npt.NDArray[np.float32]:
        """Returns the scores of `pixels`, shape (n, side_px, side_px), scaled to 0..1 as in verdicts. Shape: (n,)."""
        return scale_scores(self.scorer.score(pixels).scores, self.cut_off.score)

    def save(self, folder: Path) -> ScorerEntry:
        """Writes the scorer into `folder`, the folder of a new version. Returns the entry for the manifest."""
        return ScorerEntry(
            name=self.scorer.name,
            files=self.scorer.save(folder),
            side_px=self.scorer.side_px,
            cut_off=self.cut_off.score,
            alarm_share=self.cut_off.alarm_share,
            highest_alarm_share=self.cut_off.highest_alarm_share,
            good_pictures=self.cut_off.good_pictures,
        )


@dataclass(frozen=True)
class GoodOnlyRun:
    """Learns from the good pictures in `folder`, and writes the version `root`/`version`.

    - `objective`: the goal of the cut-off, for example at most one false alarm an hour.
    - `depth_bits`: the number of bits per pixel that the camera really uses, for files with more than 8 bits per pixel.
    - `command`: the command line, for the manifest.
    - `with_details`: if True, the version also searches the original pixels of large pictures for small defects. The golden template and
      the search then each get half of the allowed false alarms.
    """

    folder: Path
    root: Path
    version: str
    objective: CutOffObjective
    side_px: int = 192
    depth_bits: int | None = None
    command: str = ""
    with_details: bool = False

    def run(self, callback: GoodOnlyCallback) -> GoodOnlyResult:
        """Reads the pictures, learns the scorer and writes the version. Takes seconds for a few dozen pictures.

        Pictures that cannot be read, have another size or show another part are left out. Raises ModelError, and writes nothing, if too few
        pictures are left, or if the version exists.
        """
        if (self.root / self.version).exists():
            raise ModelError(f"The version {self.root / self.version} exists, and versions are never changed. Choose another --out.")
        self.objective.compute_alarm_share()
        files = find_good_pictures(self.folder)
        _expect_enough(len(files), self.folder)
        pictures = read_pictures(files, self.side_px, CLASSES, depth_bits=self.depth_bits, on_read=callback.on_picture_read)
        pictures = _leave_out(pictures, _find_unsuitable(pictures), len(files), callback)
        reference = learn_part_reference(pictures.pixels, pictures.areas)
        groups = group_near_duplicates(pictures.pixels, pictures.checksums)
        objective = split_alarm_share(self.objective, 2) if self.with_details else self.objective
        learned = learn_scorer(pictures.pixels, groups, objective, callback)
        details = None
        if self.with_details:
            paths = [file.path for file in pictures.files]
            details = learn_details(paths, groups, self.side_px, objective, self.depth_bits)
        index = make_training_index(pictures.pixels, groups, *pictures.names)
        with LocalRegistry(self.root).write_version(self.version) as folder:
            entry = learned.save(folder)
            golden = choose_golden_scores(learned.scores, learned.cut_off.score)
            pixels, no_answers = pictures.pixels[golden], np.zeros((len(golden), 0, len(CLASSES)), np.float32)
            save_golden_set(folder / "golden.npz", GoldenSet(pixels, no_answers, learned.score(pixels)[:, None]))
            manifest = write_manifest(
                folder,
                {
                    "version": self.version,
                    "created": datetime.now(UTC),
                    "classes": CLASSES,
                    "ok_class": OK_CLASS,
                    "preprocessing": {"side_px": self.side_px, "depth_bits": self.depth_bits},
                    "voters": (),
                    "scorers": (entry,),
                    "details": details.save(folder) if details else None,
                    "threshold": SCALED_CUT_OFF,
                    "band": {"low": SCALED_CUT_OFF, "high": SCALED_CUT_OFF},
                    "costs": {"miss": 1, "false_alarm": 1},
                    "golden": {"file": "golden.npz", "tolerance": GOLDEN_TOLERANCE},
                    "data": {
                        "sha256": pictures.fingerprint(),
                        "pictures": {"ok": len(pictures)},
                        "split": "every picture was scored by a template that had not seen its group of near-duplicates",
                    },
                    "training_index": index.save(folder),
                    "figures": {"good_pictures": float(len(pictures)), "alarms": float(learned.cut_off.alarms)},
                    "command": self.command,
                    "only_rendered": pictures.rendered == len(pictures),
                    "part": reference,
                    "reference": make_picture_reference(pictures.pixels),
                },
            )
        return GoodOnlyResult(Version(self.root / self.version, manifest), learned.cut_off, len(np.unique(groups)))


def learn_scorer(
    pixels: PixelArray, groups: npt.NDArray[np.int32], objective: CutOffObjective, callback: GoodOnlyCallback | None = None, folds: int = 5
) -> LearnedScorer:
    """Learns a golden template from the pictures `pixels` of good parts, shape (n, side_px, side_px), and chooses its cut-off.

    - `groups`, shape (n,): the group of near-duplicates of each picture.
    - `objective`: the goal of the cut-off, for example at most one false alarm an hour.

    To choose the cut-off, each picture is scored by a template that has not learned from this picture. Raises ModelError if no template
    can be learned or no cut-off can be chosen.
    """
    find, done, total = RememberingPartFinder(), 0, min(folds, len(np.unique(groups))) + 1

    def learn(some: PixelArray) -> GoodOnlyScorer:
        nonlocal done
        scorer = learn_golden_template(some, find)
        done += 1
        if callback:
            callback.on_scorer_learned(done, total)
        return scorer

    scores = cross_fit_scores(pixels, groups, learn, folds)
    return LearnedScorer(learn(pixels), choose_cut_off(scores, groups, objective), scores)


def add_scorer(
    folder: Path, pictures: LabelledPictures, groups: npt.NDArray[np.int32], objective: CutOffObjective
) -> tuple[ScorerEntry, LearnedScorer] | None:
    """Learns a scorer from the good parts in `pictures` and writes it into `folder`, the folder of a new version with networks.

    Returns the entry for the manifest and the scorer. If no scorer can be learned, logs the reason and returns None.
    """
    is_good = pictures.labels == pictures.ok_class
    try:
        learned = learn_scorer(pictures.pixels[is_good], groups[is_good], objective)
    except ModelError as error:
        log.warning("No scorer could learn from the good parts, so the version gets no scorer. %s", error)
        return None
    return learned.save(folder), learned


def find_good_pictures(folder: Path) -> list[LabelledFile]:
    """Returns the pictures in `folder` and its subfolders, sorted by path. Each picture gets the class of good parts.

    Raises ModelError if the folder does not exist, or if it has subfolders for several classes of pictures.
    """
    if not folder.is_dir():
        raise ModelError(f"The folder of good pictures {folder} does not exist. Correct the path.")
    subfolders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_foreign(path.name))
    good = [name for name in subfolders if name.lower().startswith("ok")]
    if good and len(subfolders) > 1:
        raise ModelError(
            f"{folder} has a subfolder for each class: {', '.join(subfolders)}. Give only the folder of the good pictures, "
            f"{folder / good[0]}."
        )
    found = []
    for parent, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not is_foreign(name))
        found += [Path(parent) / file for file in files if not is_foreign(file) and Path(file).suffix.lower() in JUDGED_SUFFIXES]
    return [LabelledFile(path, CLASSES[OK_CLASS], str(folder)) for path in sorted(found)]


def choose_golden_scores(scores: npt.NDArray[np.float32], cut_off: float) -> npt.NDArray[np.int64]:
    """Returns the indices of pictures for the golden set, evenly spread over the ranking by score.

    A picture near the cut-off is left out, because rounding could move it to the other side.
    """
    margin = np.abs(scale_scores(scores, cut_off) - SCALED_CUT_OFF)
    candidates = np.flatnonzero(margin > 2 * GOLDEN_TOLERANCE)
    if len(candidates) == 0:
        candidates = np.argsort(margin)[-1:]
    ranked = candidates[np.argsort(scores[candidates], kind="stable")]
    return ranked[np.unique(np.linspace(0, len(ranked) - 1, GOLDEN_PICTURES).astype(np.int64))]


def _expect_enough(count: int, folder: Path) -> None:
    if count < MIN_GOOD_PICTURES:
        found = "no picture" if count == 0 else f"only {count} picture{'' if count == 1 else 's'}"
        raise ModelError(
            f"{folder} holds {found} ({', '.join(JUDGED_SUFFIXES)}). Add pictures of good parts: at least {MIN_GOOD_PICTURES}, better "
            f"{ENOUGH_PICTURES} or more."
        )


def _find_unsuitable(pictures: LabelledPictures) -> dict[str, npt.NDArray[np.int64]]:
    sizes = Counter(pictures.sizes)
    usual, _ = sizes.most_common(1)[0]
    other_size = np.array([size != usual for size in pictures.sizes])
    is_odd = np.zeros(len(pictures), bool)
    is_odd[~other_size] = find_odd_pictures(list(pictures.pixels[~other_size]))
    return {
        f"not {usual[0]} x {usual[1]} px like the others": np.flatnonzero(other_size),
        "not the same whole part as in the other pictures": np.flatnonzero(is_odd),
    }


def _leave_out(
    pictures: LabelledPictures, unsuitable: dict[str, npt.NDArray[np.int64]], files: int, callback: GoodOnlyCallback
) -> LabelledPictures:
    """Returns `pictures` without the unsuitable pictures. Tells `callback` the names of the files that were left out.

    Raises ModelError if too many files would be left out.
    """
    reasons = {reason: [str(pictures.files[index].path) for index in indices] for reason, indices in unsuitable.items()}
    for file in pictures.unreadable:
        reasons.setdefault(file.message, []).append(str(file.path))
    reasons = {reason: names for reason, names in reasons.items() if names}
    is_included = np.ones(len(pictures), bool)
    for indices in unsuitable.values():
        is_included[indices] = False
    included = int(is_included.sum())
    if included < MIN_GOOD_PICTURES or files - included > MAX_LEFT_OUT_SHARE * files:
        details = " ".join(f"{_capitalise(reason)}: {_join_names(names)}." for reason, names in reasons.items())
        raise ModelError(
            f"Only {included} of {files} pictures can be used. At least {MIN_GOOD_PICTURES} pictures and {1 - MAX_LEFT_OUT_SHARE:.0%} of "
            f"all must show the same whole good part, in the same size. Remove or replace the others. {details}"
        )
    for reason, names in reasons.items():
        callback.on_pictures_left_out(reason, names)
    if len(set(pictures.checksums)) == 1:
        raise ModelError(f"All {files} files hold the same picture. Add pictures of other good parts.")
    return pictures.select(is_included)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".")


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
