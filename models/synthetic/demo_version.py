"""Trains the model version `demo` on rendered castings (`castline models make-demo`). The version is installed with Castline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from models.registry import Version
from models.synthetic.casting import MASK_FOLDER, OK_CLASS, write_castings
from models.synthetic.defects import DefectKind
from models.training.labelled_pictures import find_pictures
from models.training.marked_pictures import list_masked_files, read_marked_pictures
from models.training.options import TrainingOptions
from models.training.segmentation import SegmentationRecipe
from models.training.segmentation_run import SegmentationRun
from models.training.training_run import TrainingCallback, TrainingResult, TrainingRun

CASTINGS, SEED = 4000, 2026
HEAD_STEPS = 2000
COMMAND = "castline models make-demo"
# With a side of 160 px, even the smallest hole is two pixels wide. The batches are small, because AlexNet learns better from many small
# batches.
OPTIONS = TrainingOptions(
    side_px=160,
    lenet_side_px=160,
    lenet_width=2,
    maps=1.0,
    dense_width=128,
    epochs=10,
    lenet_epochs=14,
    rate=3e-4,
    batch=16,
    cost_miss=2,
    review_share=0.002,
    half=True,
)


def make_demo_version(
    root: Path, version: str, callback: TrainingCallback, on_casting: Callable[[int, int], object] = lambda done, total: None
) -> TrainingResult:
    """Renders castings, trains the networks and the segmentation head on them, and writes the model version.

    On two cores, this takes about half an hour. If the training of the networks is interrupted, the version has no segmentation head.
    """
    with tempfile.TemporaryDirectory(prefix="castings-") as folder:
        castings = Path(folder) / "castings"
        write_castings(castings, CASTINGS, SEED, on_casting=on_casting)
        result = TrainingRun(OPTIONS, (castings,), root, version, COMMAND).run(callback)
        return result if result.was_interrupted else replace(result, version=_add_head(result.version, castings, callback))


def _add_head(version: Version, castings: Path, callback: TrainingCallback) -> Version:
    files = list_masked_files(find_pictures([castings]), castings / MASK_FOLDER, OK_CLASS)
    pictures = read_marked_pictures(files, OPTIONS.side_px, {int(kind): kind.text for kind in DefectKind})
    recipe = SegmentationRecipe(side_px=OPTIONS.side_px, steps=HEAD_STEPS)
    run = SegmentationRun(version, version.folder.parent, version.name, recipe, 0.0, lambda head, validation: {}, COMMAND)
    return run.run(pictures, lambda done, total, loss: callback.on_training_step("segmentation", done, total, None), replace=True)
