"""Compares methods that make heat maps, on pictures whose masks show where the defects are.

Test pictures and their near-duplicates are never used for training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from models.anomaly.scorer import LearnScorer, scale_scores
from models.evaluation.experiments.experiment import ExperimentCallback, ExperimentFolder, ResultTable
from models.evaluation.localisation import GRID_SIDE_PX, measure_localisation
from models.evaluation.segmentation_figures import KindFigures, measure_kinds, resize_heat
from models.inference.defect_locator import combine_heat
from models.inference.heat_map import HeatMap
from models.inference.segmentation import Segmentation
from models.inference.soft_vote import SCALED_CUT_OFF
from models.networks.framework import keras
from models.networks.segmentation import trace_head
from models.registry.version_report import LocalisationFigures
from models.training.labelled_pictures import find_pictures
from models.training.marked_pictures import (
    MarkedPictures,
    list_boxed_files,
    list_good_files,
    list_masked_files,
    read_marked_pictures,
)
from models.training.near_duplicates import group_near_duplicates
from models.training.segmentation import SegmentationRecipe, describe_member, train_segmentation
from models.training.split import expect_groups
from streams.errors import ModelError

FOLD_SEED = 17
SEGMENTATION = "segmentation"
_COMMAND = "castline experiment heat-maps"

ComputeHeat = Callable[[npt.NDArray[np.uint8]], HeatMap]


@dataclass(frozen=True)
class HeatMapExperiment:
    """Compares how well different methods show where the defects are. The pictures are divided into folds, and each fold is tested once.

    - The segmentation head is trained on the pictures of the other folds. If `start` is given, the training starts from its weights.
    - Each of `scorers` learns from the good pictures of the other folds. Its residuals are the heat map.
    - The map of the segmentation head is also combined with the residuals of each scorer, as `CombinedMapper` does.
    - The methods in `fixed`, such as Grad-CAM, are not trained. They must not have seen the pictures that have masks.
    - `inputs` names everything else on which the results depend, such as the versions of `start` and of Grad-CAM. If `folder` holds results
      of other inputs, they are refused.
    """

    recipe: SegmentationRecipe
    folds: int
    folder: ExperimentFolder
    scorers: Mapping[str, LearnScorer]
    fixed: Mapping[str, ComputeHeat]
    inputs: Mapping[str, str]
    start: keras.Model | None = None

    def run(
        self, pictures: MarkedPictures, masks: npt.NDArray[np.bool_], is_tested: npt.NDArray[np.bool_], callback: ExperimentCallback
    ) -> ResultTable:
        """Runs the folds that have no result in `folder` yet, and returns the table of all results.

        - `masks`: for each of the n pictures, the pixels that show a defect, shape (n, grid, grid).
        - `is_tested`: True for each picture that is to be tested, shape (n,). These pictures are divided into folds. For the test of a
          fold, the networks learn from all pictures except the fold and its near-duplicates.

        Raises ModelError if there are fewer groups of near-duplicates than folds, or if `folder` holds results of other inputs.
        """
        self.folder.claim(
            {
                "experiment": "heat-maps",
                "recipe": asdict(self.recipe),
                "folds": self.folds,
                "pictures": pictures.fingerprint(),
                "masks": hashlib.sha256(np.packbits(masks).tobytes() + np.packbits(is_tested).tobytes()).hexdigest(),
                "scorers": sorted(self.scorers),
                "fixed": sorted(self.fixed),
                "inputs": dict(self.inputs),
            }
        )
        groups = group_near_duplicates(pictures.pixels, pictures.checksums)
        tested = np.flatnonzero(is_tested)
        expect_groups(groups[tested], self.folds)
        splitter = StratifiedGroupKFold(self.folds, shuffle=True, random_state=FOLD_SEED)
        heats: dict[str, list[HeatMap]] = {}
        kinds: list[str] = []
        order: list[int] = []
        for fold, (_, test) in enumerate(splitter.split(tested, ~pictures.is_good[tested], groups[tested])):
            cell, chosen = f"fold-{fold + 1}", tested[test]
            if not self.folder.is_finished(cell):
                is_seen = ~np.isin(groups, groups[chosen])

                def report(done: int, total: int, loss: float, cell: str = cell, fold: int = fold) -> None:
                    callback.on_cell_progress(cell, fold + done / (total + 1), self.folds)

                self.folder.save_result(cell, self._run_fold(pictures.select(is_seen), pictures.pixels[chosen], masks.shape[1], report))
            result = self.folder.load_result(cell)
            order += chosen.tolist()
            kinds += [str(kind) for kind in result.pop("kinds")]
            for name, found in result.items():
                heats.setdefault(name, []).extend(found.astype(np.float32))
            callback.on_cell_progress(cell, fold + 1, self.folds)
        # A box is drawn around pixels whose heat is above a level. For a method without an entry in `box_levels`, such as Grad-CAM, the
        # level is half of the highest heat.
        box_levels = {SEGMENTATION: describe_member(pictures, self.recipe, _COMMAND).box_level}
        for name in self.scorers:
            # A residual of 1 is the limit for good parts, so the cut-off is 1.
            pairs = zip(heats[SEGMENTATION], heats[name], strict=True)
            combined = f"{SEGMENTATION}+{name}"
            box_levels[combined] = SCALED_CUT_OFF
            heats[combined] = [combine_heat(head, scale_scores(residuals, 1.0), box_levels[SEGMENTATION]) for head, residuals in pairs]
        figures = {name: measure_localisation(found, list(masks[order]), box_levels.get(name)) for name, found in heats.items()}
        return make_heat_map_table(figures, measure_kinds(kinds, pictures.select(np.array(order))))

    def _run_fold(
        self, seen: MarkedPictures, pixels: npt.NDArray[np.uint8], grid_px: int, report: Callable[[int, int, float], object]
    ) -> dict[str, npt.NDArray[Any]]:
        """Trains a segmentation head and the scorers on `seen`. Returns a dictionary with the heat maps of `pixels`.

        The keys are the names of the segmentation head, of each scorer, and of each method in `fixed`, such as Grad-CAM.
        The key "kinds" holds the kind of defect that the segmentation head sees in each picture.
        """
        member = describe_member(seen, self.recipe, _COMMAND)
        side_px = self.recipe.side_px
        head = Segmentation(trace_head(train_segmentation(seen, self.recipe, self.start, report), member, side_px), member, side_px)
        maps = [head.compute_defect_map(picture) for picture in pixels]
        sources: dict[str, list[HeatMap]] = {SEGMENTATION: [found.heat for found in maps]}
        for name, learn in self.scorers.items():
            scorer = learn(seen.pixels[seen.is_good])
            sources[name] = [scorer.score(picture[np.newaxis]).residuals[0] for picture in pixels]
        for name, compute in self.fixed.items():
            sources[name] = [compute(picture) for picture in pixels]
        heats = {name: np.stack([resize_heat(heat, grid_px) for heat in found]).astype(np.float16) for name, found in sources.items()}
        return {**heats, "kinds": np.array(head.name_kinds(pixels))}


def read_heat_map_pictures(
    data: Path,
    masks_folder: Path,
    boxes: Sequence[Path],
    good: Sequence[Path],
    side_px: int,
    kinds: Mapping[int, str],
    part_values: Sequence[int],
    depth_bits: int | None,
    on_read: Callable[[int, int], object],
) -> tuple[MarkedPictures, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Reads the input of `HeatMapExperiment.run`: the pictures, their masks (reduced to a grid), and which pictures have a mask file.

    The name of the good class begins with "ok". Raises ModelError if the pictures cannot be used.
    """
    labelled = find_pictures([data])
    names = sorted({file.class_name for file in labelled if file.class_name.lower().startswith("ok")})
    if len(names) != 1:
        raise ModelError(
            f"The class of good parts is not clear in {data}. Exactly one class folder must have a name that begins with 'ok'."
        )
    masked = list_masked_files(labelled, masks_folder, names[0])
    files = [*masked, *(file for path in boxes for file in list_boxed_files(path, names[0]))]
    files += list_good_files(find_pictures(good), names[0]) if good else []
    pictures = read_marked_pictures(files, side_px, kinds, part_values, depth_bits, on_read)
    on_grid = read_marked_pictures(files, GRID_SIDE_PX, kinds, part_values, depth_bits)
    with_mask = {file.path for file in masked if file.mask_path is not None}
    return pictures, on_grid.marks > 0, np.array([path in with_mask for path in pictures.paths])


def make_heat_map_table(figures: Mapping[str, LocalisationFigures], kinds: KindFigures) -> ResultTable:
    """Returns a table with a row for each method. Sentences below it say how often the segmentation head named the right kind of defect."""
    rows = []
    for name, found in figures.items():
        shares = (found.pixel_auroc, found.aupro, found.aupimo, found.box_iou)
        auroc, aupro, aupimo, box_iou = ("none" if share is None else f"{share:.3f}" for share in shares)
        rows.append((name, auroc, aupro, aupimo, str(found.pointing), box_iou))
    some = next(iter(figures.values()))
    answers = ", ".join(f"{truth} as {answer}: {count}" for (truth, answer), count in sorted(kinds.pairs.items()))
    return ResultTable(
        f"Heat maps of {some.defective} defective and {some.good} good pictures with masks",
        ("source", "pixel AUROC", "AUPRO 0.3", "AUPIMO", "hottest point within 8 px", "box IoU"),
        tuple(rows),
        (
            f"Kind of the largest defect: right in {kinds.right}, named in {kinds.named}, right if named in {kinds.right_if_named}.",
            f"{answers}.",
        ),
    )
