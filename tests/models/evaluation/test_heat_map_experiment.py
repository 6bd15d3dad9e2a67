"""The experiment that compares heat maps: its table, its boxes, and the inputs that belong to its results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.evaluation.experiments.experiment import ExperimentFolder
from models.evaluation.experiments.heat_maps import SEGMENTATION, HeatMapExperiment, make_heat_map_table
from models.evaluation.localisation import measure_localisation
from models.evaluation.segmentation_figures import measure_kinds
from models.inference.heat_map import UNKNOWN_KIND
from models.training.marked_pictures import MarkedPictures
from models.training.segmentation import SegmentationRecipe
from streams.errors import ModelError
from tests.models.evaluation.test_segmentation_figures import SIDE_PX, make_marks

pytestmark = pytest.mark.real


def test_the_table_shows_the_figures_of_each_map_and_the_confused_kinds() -> None:
    marks = np.stack([make_marks((slice(1, 4), 1)), make_marks((slice(1, 4), 2)), make_marks()])
    kinds = measure_kinds(["hole", UNKNOWN_KIND, "flash"], MarkedPictures(marks, marks, ("hole", "flash"), (Path("a"),) * 3, ("", "", "")))
    heat = [(marks[0] > 0).astype(np.float32), np.zeros((SIDE_PX, SIDE_PX), np.float32)]
    table = make_heat_map_table({"segmentation": measure_localisation(heat, [marks[0] > 0, marks[2] > 0])}, kinds)
    assert table.rows[0][:2] == ("segmentation", "1.000")
    assert "flash as unknown: 1" in table.sentences[1]


class Silent:
    def on_cell_progress(self, cell: str, done: float, total: int) -> None: ...

    def on_training_step(self, network: str, done: int, total: int, epoch: object) -> None: ...


GRID_PX = 32
MASKS = np.zeros((8, GRID_PX, GRID_PX), np.bool_)
MASKS[::2, 8:16, 8:16] = True


def make_pictures() -> MarkedPictures:
    """Eight different pictures. Every second one has a defect."""
    pixels = np.random.default_rng(2).integers(0, 255, (8, 64, 64)).astype(np.uint8)
    marks = np.zeros_like(pixels)
    marks[::2, 16:32, 16:32] = 1
    return MarkedPictures(pixels, marks, ("hole",), tuple(Path(f"{number}.png") for number in range(8)), tuple(map(str, range(8))))


def make_experiment(folder: Path, hottest: float, **given: Any) -> HeatMapExperiment:
    """An experiment whose folds are finished. Their maps are hot at the defects, but no hotter than `hottest`."""
    experiment = HeatMapExperiment(SegmentationRecipe(side_px=64, steps=1), 2, ExperimentFolder(folder), {}, {}, {"start": "demo 1"})
    heat = np.where(MASKS[0], hottest, 0.0).astype(np.float16)
    for cell in ("fold-1", "fold-2"):
        experiment.folder.save_result(cell, {SEGMENTATION: np.stack([heat] * 4), "kinds": np.array(["hole"] * 4)})
    return replace(experiment, **given)


@pytest.mark.parametrize(("hottest", "box_iou"), [(0.4, "0.000"), (0.6, "1.000")])
def test_boxes_have_the_level_of_the_localiser(tmp_path: Path, hottest: float, box_iou: str) -> None:
    """The localiser draws no box where no defect is probable. Half of the highest heat would always give a box."""
    table = make_experiment(tmp_path, hottest).run(make_pictures(), MASKS, np.ones(8, np.bool_), Silent())
    assert (table.rows[0][0], table.rows[0][-1]) == (SEGMENTATION, box_iou)


def test_results_of_other_inputs_are_refused(tmp_path: Path) -> None:
    pictures, everything = make_pictures(), np.ones(8, np.bool_)
    experiment = make_experiment(tmp_path, 0.6)
    experiment.run(pictures, MASKS, everything, Silent())
    experiment.run(replace(pictures, paths=tuple(Path("moved") / path for path in pictures.paths)), MASKS, everything, Silent())
    other_pixels, other_marks = pictures.pixels.copy(), pictures.marks.copy()
    other_pixels[0, 0, 0] ^= 1
    other_marks[0, 0, 0] = 1
    for other, masks in (
        (replace(pictures, pixels=other_pixels), MASKS),
        (replace(pictures, marks=other_marks), MASKS),
        (replace(pictures, kinds=("crack",)), MASKS),
        (pictures, np.roll(MASKS, 1, axis=1)),
    ):
        with pytest.raises(ModelError, match="an experiment with other options"):
            experiment.run(other, masks, everything, Silent())
    for changed in ({"inputs": {"start": "demo 2"}}, {"scorers": {"golden-template": None}}, {"fixed": {"grad-cam": None}}):
        with pytest.raises(ModelError, match="an experiment with other options"):
            replace(experiment, **changed).run(pictures, MASKS, everything, Silent())
