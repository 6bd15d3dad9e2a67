"""Compares the memory-augmented adversarial autoencoder with variants that lack its memory, its adversary, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from models.anomaly.memory_autoencoder import (
    MAX_DESCRIBED_PICTURES,
    AutoencoderRecipe,
    MemoryAutoencoder,
    PixelArray,
    compute_residuals,
    describe_good_residuals,
    register_part,
    train_autoencoder,
)
from models.anomaly.scorer import PartFinder
from models.evaluation.experiments.experiment import CellProgress, ExperimentCallback, ExperimentFolder, ResultTable, format_interval
from models.pictures.part_finder import find_part
from models.training.labelled_pictures import LabelledPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.split import expect_groups_of_each_class, find_dominant_groups
from streams.errors import ModelError

FOLDS = 5
# Seed of the random folds. The trainings have different seeds, but they all use the same folds.
FOLD_SEED = 17
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "MAA": {},
    "without adversary": {"adversary_weight": 0.0},
    "without memory": {"prototypes": 0},
    "plain": {"prototypes": 0, "adversary_weight": 0.0},
}
PLAIN = "plain"


@dataclass(frozen=True)
class RegisteredPictures:
    """Pictures of parts, each resampled by `register_part` so that the rim is a circle around the middle.

    - `pixels`: shape (n, side_px, side_px).
    - `is_defect`: which pictures show a defect.
    - `folds`: the number of the fold in which a picture is tested. Pictures with -1 are never tested.
    """

    pixels: PixelArray
    is_defect: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int32]


@dataclass(frozen=True)
class AutoencoderExperiment:
    """Trains each variant of the autoencoder once for each of `seeds`, and tests it.

    The pictures are divided into folds. The seed says which fold is tested: seed 1 tests fold 1, seed 2 tests fold 2, and so on. After the
    last fold, fold 1 follows again.

    A variant learns from the good pictures of the other folds. If `good` is set, it learns from only this many of these pictures, drawn at
    random. With the same seed, all variants learn from the same pictures.
    """

    recipe: AutoencoderRecipe
    seeds: tuple[int, ...]
    folder: ExperimentFolder
    good: int | None = None
    find: PartFinder = find_part

    def run(self, pictures: LabelledPictures, callback: ExperimentCallback) -> ResultTable:
        """Runs the trainings that have no result in `folder` yet, and returns the table of all results.

        Raises ModelError if there are too few pictures, or if no part is found in any of them.
        """
        description: dict[str, Any] = {"experiment": "autoencoder", "recipe": asdict(self.recipe), "pictures": pictures.fingerprint()}
        description["side_px"] = pictures.pixels.shape[1]
        # Folders of earlier experiments do not contain the option `good`. To accept such folders, the option is left out if it is None.
        if self.good is not None:
            description["good"] = self.good
        registered, missing = self._register(pictures)
        self._expect_enough_good(registered)
        self.folder.claim(description)
        cells = [(name, seed) for seed in self.seeds for name in VARIANTS]
        results: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
        for number, (name, seed) in enumerate(cells):
            cell = f"{name.replace(' ', '-')}.{seed}"
            if not self.folder.is_finished(cell):
                callback.on_cell_progress(cell, number, len(cells))
                progress = CellProgress(callback, cell, number, len(cells))
                self.folder.save_result(cell, self._run_cell(registered, VARIANTS[name], seed, progress))
            scores = self.folder.load_result(cell)
            results[name].append({rule: float(roc_auc_score(scores["is_defect"], scores[rule])) for rule in ("frechet", "error")})
            callback.on_cell_progress(cell, number + 1, len(cells))
        return make_autoencoder_table(results, missing)

    def _run_cell(
        self, pictures: RegisteredPictures, variant: Mapping[str, Any], seed: int, progress: CellProgress
    ) -> dict[str, npt.NDArray[Any]]:
        """Trains and tests one autoencoder. Returns the scores of the test pictures, and whether they show a defect."""
        fold = (seed - 1) % FOLDS
        recipe = replace(self.recipe, seed=seed, **variant)
        good = pictures.pixels[choose_good(pictures, fold, self.good, seed)]
        is_test = pictures.folds == fold

        def report(done: int, epochs: int, losses: dict[str, float]) -> None:
            # The end of the last epoch is not reported, because the progress would then seem complete although the test still follows.
            if done < epochs:
                progress.on_progress(done, epochs, (), False)

        network = train_autoencoder(good, recipe, report)
        statistics = describe_good_residuals(compute_residuals(network, good[:MAX_DESCRIBED_PICTURES]))
        scores, _ = MemoryAutoencoder(network, statistics, recipe, recipe.side_px).score_registered(pictures.pixels[is_test])
        return {"frechet": scores["frechet"], "error": scores["error"], "is_defect": pictures.is_defect[is_test]}

    def _expect_enough_good(self, pictures: RegisteredPictures) -> None:
        least = min(len(choose_good(pictures, (seed - 1) % FOLDS, None, seed)) for seed in self.seeds)
        if self.good is not None and self.good > least:
            raise ModelError(
                f"Only {least} good pictures are left to learn from, because the others are tested. Give a --good of at most {least}, or "
                "add good pictures."
            )

    def _register(self, pictures: LabelledPictures) -> tuple[RegisteredPictures, int]:
        parts = [self.find(picture) for picture in pictures.pixels]
        is_found = np.array([part is not None for part in parts])
        if not is_found.any():
            raise ModelError("No part was found in any of the pictures. Give pictures that show a whole part.")
        pixels = np.stack(
            [register_part(picture, part, self.recipe.side_px) for picture, part in zip(pictures.pixels, parts, strict=True) if part]
        )
        is_defect = pictures.labels[is_found] != pictures.ok_class
        checksums = tuple(checksum for checksum, found in zip(pictures.checksums, is_found, strict=True) if found)
        groups = group_near_duplicates(pictures.pixels[is_found], checksums)
        return RegisteredPictures(pixels, is_defect, assign_folds(is_defect, groups)), int((~is_found).sum())


def choose_good(pictures: RegisteredPictures, fold: int, count: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Returns the indices of `count` random good pictures outside fold number `fold`, or of all such pictures if `count` is None."""
    good = np.flatnonzero(~pictures.is_defect & (pictures.folds != fold))
    return good if count is None else np.random.default_rng(seed).choice(good, count, replace=False)


def assign_folds(is_defect: npt.NDArray[np.bool_], groups: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Returns the fold of each picture, shape (n,), 0 to FOLDS - 1. Near-duplicates are in the same fold.

    `groups`, shape (n,), are the groups of near-duplicates. If a group is too large for one fold, its pictures get -1.
    Raises ModelError if there are too few pictures or groups.
    """
    labels = is_defect.astype(np.int32)
    candidates = np.flatnonzero(~find_dominant_groups(labels, groups, 1 / FOLDS))
    expect_groups_of_each_class(labels[candidates], groups[candidates], FOLDS)
    folds = np.full(len(labels), -1, np.int32)
    folder = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=FOLD_SEED)
    for number, (_, tested) in enumerate(folder.split(candidates, labels[candidates], groups[candidates])):
        folds[candidates[tested]] = number
    return folds


def make_autoencoder_table(results: Mapping[str, Sequence[Mapping[str, float]]], missing: int) -> ResultTable:
    """Returns the table of the experiment. `missing` is the number of pictures in which no part was found.

    `results` holds a list for each variant of the autoencoder. For each seed, the list contains the AUROC of the score "frechet" and the
    AUROC of the score "error".
    """
    rows = []
    for name, values in results.items():
        frechet, error = ([value[rule] for value in values] for rule in ("frechet", "error"))
        differences = [value["frechet"] - plain["frechet"] for value, plain in zip(values, results[PLAIN], strict=True)]
        rows.append((name, format_interval(frechet), format_interval(error), "" if name == PLAIN else format_interval(differences)))
    sentences = ["AUROC of good against defective pictures, mean over the seeds, with 95 % intervals of Student's t distribution."]
    if missing:
        sentences.append(f"{missing} pictures were left out, because no part was found in them.")
    head = ("autoencoder", "AUROC by Fréchet distance", "AUROC by reconstruction error", "difference from plain by Fréchet distance")
    return ResultTable(
        f"Autoencoders that learned from good pictures alone, {len(results[PLAIN])} seeds", head, tuple(rows), tuple(sentences)
    )
