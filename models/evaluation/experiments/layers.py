"""The recognition rate against the number of fully connected layers: AlexNet, several seeds, each with a split of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.evaluation.experiments.cells import Cells, Progressing, Pupils, Watcher
from models.evaluation.experiments.table import Table, spread
from models.training import near_duplicates as likeness
from models.training.collection import Collection
from models.training.options import Options
from models.training.split import split
from models.training.trainer import answers

PUBLISHED = 0.883  # the rate that was published for six categories with three layers


@dataclass(frozen=True)
class LayersExperiment:
    """`layers` counts all fully connected layers, the answering one included: AlexNet as published has three."""

    options: Options
    layers: tuple[int, ...]
    seeds: tuple[int, ...]
    folder: Path

    def run(self, pictures: Collection, apart: Collection | None, watcher: Watcher) -> Table:
        """Trains what is not finished yet and returns the table. `apart`: pictures that take no part in the training."""
        cells = Cells(self.folder)
        cells.begin(
            {"experiment": "layers", "options": self.options.model_dump(), "pictures": pictures.fingerprint()}
            | ({"apart": apart.fingerprint()} if apart else {})
        )
        groups = likeness.groups(pictures.pixels, pictures.checksums, self.options.near_bits, self.options.near_rings)
        wanted = [(count, seed) for seed in self.seeds for count in self.layers]  # seed by seed: a stopped one has whole rows
        for number, (count, seed) in enumerate(wanted):
            name = f"layers-{count}-seed-{seed}"
            if not cells.done(name):
                self._cell(cells, name, count, seed, pictures, groups, apart, Progressing(watcher, name, number, len(wanted)))
            watcher.cell(name, number + 1, len(wanted))
        return self.table(pictures.classes, apart is not None)

    def _cell(
        self,
        cells: Cells,
        name: str,
        count: int,
        seed: int,
        pictures: Collection,
        groups: npt.NDArray[np.int32],
        apart: Collection | None,
        hear: Progressing,
    ) -> None:
        validates = split(pictures.labels, groups, self.options.validation_share, seed)
        (voter,) = (each for each in self.options.model_copy(update={"dense_layers": count - 1}).voters() if each.network == "alexnet")
        pupils = Pupils(pictures.pixels, pictures.labels, validates, len(pictures.classes))
        network = cells.taught(name, voter, self.options, seed, pupils, hear)
        kept: dict[str, npt.NDArray[np.generic]] = {
            "validated": _right(answers(network, pictures.pixels[validates]), pictures.labels[validates])
        }
        if apart:
            kept["apart"] = _right(answers(network, apart.pixels), apart.labels)
        kept["truth"] = pictures.labels[validates]
        cells.keep(name, kept)

    def table(self, classes: Sequence[str], with_apart: bool) -> Table:
        """What the finished cells come to; a cell that is missing is written as such."""
        cells = Cells(self.folder)
        rows = []
        for count in self.layers:
            found = [cells.kept(name) for seed in self.seeds if cells.done(name := f"layers-{count}-seed-{seed}")]
            rates = [float(each["validated"].mean()) for each in found]
            row = [str(count), *(f"{rate:.4f}" for rate in rates), *("not finished" for _ in range(len(self.seeds) - len(rates)))]
            row.append(spread(rates))
            if with_apart:
                row.append(spread([float(each["apart"].mean()) for each in found]))
            worst = _worst([(each["validated"], each["truth"]) for each in found], classes)
            rows.append((*row, worst))
        head = ("layers", *(f"seed {seed}" for seed in self.seeds), "mean", *(("kept apart",) if with_apart else ()), "hardest class")
        return Table(f"Recognition rate of {len(classes)} categories against fully connected layers", head, tuple(rows))


def _right(found: npt.NDArray[np.float32], truth: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    result: npt.NDArray[np.bool_] = found.argmax(axis=1) == truth
    return result


def _worst(found: Sequence[tuple[npt.NDArray[np.generic], ...]], classes: Sequence[str]) -> str:
    if not found:
        return ""
    right, truth = (np.concatenate([each[index] for each in found]) for index in (0, 1))
    rates = [float(right[truth == label].astype(np.float64).mean()) for label in range(len(classes))]
    return f"{classes[int(np.argmin(rates))]} {min(rates):.3f}"
