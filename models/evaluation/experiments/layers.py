"""Measures how AlexNet's recognition rate depends on the number of its fully connected layers.

AlexNet is trained several times with each number of layers, each time with a different random seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.evaluation.experiments.experiment import CellProgress, ExperimentCallback, ExperimentFolder, ResultTable, format_spread
from models.training.labelled_pictures import LabelledPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.options import TrainingOptions
from models.training.split import split_by_group
from models.training.trainer import SplitPictures, predict


@dataclass(frozen=True)
class LayersExperiment:
    """Trains AlexNet with each number of fully connected layers and each seed. `folder` keeps the results.

    `layers` counts the output layer too, so AlexNet in the paper has 3. Each seed has its own split of the pictures.
    """

    options: TrainingOptions
    layers: tuple[int, ...]
    seeds: tuple[int, ...]
    folder: Path

    def run(self, pictures: LabelledPictures, test_pictures: LabelledPictures | None, callback: ExperimentCallback) -> ResultTable:
        """Trains and tests all networks that have no result yet, and returns the table of results.

        If there are `test_pictures`, every network is tested on them in addition to its validation pictures.
        """
        folder = ExperimentFolder(self.folder)
        folder.claim(
            {"experiment": "layers", "options": self.options.model_dump(), "pictures": pictures.fingerprint()}
            | ({"apart": test_pictures.fingerprint()} if test_pictures else {})
        )
        groups = group_near_duplicates(pictures.pixels, pictures.checksums, self.options.near_bits, self.options.near_rings)
        # Each seed is a column of the table. All networks of one seed are trained first, so a stopped experiment has complete columns.
        cells = [(count, seed) for seed in self.seeds for count in self.layers]
        for number, (count, seed) in enumerate(cells):
            progress = CellProgress(callback, _cell_name(count, seed), number, len(cells))
            if not folder.is_finished(progress.cell):
                self._run_cell(folder, count, seed, pictures, groups, test_pictures, progress)
            callback.on_cell_progress(progress.cell, number + 1, len(cells))
        return self.make_table(pictures.classes, test_pictures is not None)

    def _run_cell(
        self,
        folder: ExperimentFolder,
        count: int,
        seed: int,
        pictures: LabelledPictures,
        groups: npt.NDArray[np.int32],
        test_pictures: LabelledPictures | None,
        progress: CellProgress,
    ) -> None:
        validates = split_by_group(pictures.labels, groups, self.options.validation_share, seed)
        split = SplitPictures(pictures.pixels, pictures.labels, validates)
        options = self.options.model_copy(update={"dense_layers": count - 1})
        (voter,) = (voter for voter in options.voters() if voter.network == "alexnet")
        network = folder.train(voter, self.options, seed, split, len(pictures.classes), progress)
        labels = pictures.labels[validates]
        result: dict[str, npt.NDArray[np.generic]] = {
            "validated": predict(network, pictures.pixels[validates]).argmax(axis=1) == labels,
            "truth": labels,
        }
        if test_pictures:
            result["apart"] = predict(network, test_pictures.pixels).argmax(axis=1) == test_pictures.labels
        folder.save_result(progress.cell, result)

    def make_table(self, classes: Sequence[str], has_test_pictures: bool) -> ResultTable:
        """Returns a table with a row for each number of layers. A cell without a result is shown as "not finished"."""
        folder = ExperimentFolder(self.folder)
        rows = []
        for count in self.layers:
            cells = [_cell_name(count, seed) for seed in self.seeds]
            results = [folder.load_result(cell) for cell in cells if folder.is_finished(cell)]
            rates = [float(result["validated"].mean()) for result in results]
            row = [str(count), *(f"{rate:.4f}" for rate in rates), *("not finished" for _ in range(len(self.seeds) - len(rates)))]
            row.append(format_spread(rates))
            if has_test_pictures:
                row.append(format_spread([float(result["apart"].mean()) for result in results]))
            rows.append((*row, _find_hardest_class(results, classes)))
        test_column = ("kept apart",) if has_test_pictures else ()
        head = ("layers", *(f"seed {seed}" for seed in self.seeds), "mean", *test_column, "hardest class")
        return ResultTable(f"Recognition rate of {len(classes)} categories against fully connected layers", head, tuple(rows))


def _cell_name(count: int, seed: int) -> str:
    return f"layers-{count}-seed-{seed}"


def _find_hardest_class(results: Sequence[dict[str, npt.NDArray[np.generic]]], classes: Sequence[str]) -> str:
    """Returns the class with the lowest recognition rate over all seeds, and that rate."""
    if not results:
        return ""
    is_right, labels = (np.concatenate([result[name] for result in results]) for name in ("validated", "truth"))
    rates = [float(is_right[labels == label].astype(np.float64).mean()) for label in range(len(classes))]
    return f"{classes[int(np.argmin(rates))]} {min(rates):.3f}"
