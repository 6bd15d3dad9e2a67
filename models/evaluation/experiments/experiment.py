"""Common parts of all experiments: the folder of results, the training of a network, the progress and the table of results.

An experiment consists of cells. A cell is the training and the test of one network. An interrupted cell continues from a checkpoint.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.networks.factory import build_network
from models.networks.framework import keras
from models.registry.manifest import Voter
from models.training.options import NetworkRecipe, TrainingOptions
from models.training.trainer import EpochResult, SplitPictures, Trainer, save_arrays
from streams.atomic_file import write_atomically
from streams.errors import ModelError


class ExperimentCallback(Protocol):
    """Receives the progress of an experiment. A method may raise KeyboardInterrupt to stop the experiment."""

    def on_cell_progress(self, cell: str, done: float, total: int) -> None:
        """Reports that `done` of the `total` trainings (cells) are finished. `cell` is the running training.

        `done` is 2.5 if two trainings are finished and the third is half finished.
        """

    def on_training_step(self, network: str, done: int, total: int, epoch: EpochResult | None) -> None:
        """Reports that `done` of the `total` batches in the training of `network` are finished.

        `epoch` is the result of an epoch that has just ended. It is None in the middle of an epoch.
        """


@dataclass(frozen=True)
class CellProgress:
    """Reports the progress of one cell to `callback`. A cell is the training and the test of one network.

    `cell` is the name of the cell, `number` its number from 0, and `total` the number of all cells.
    """

    callback: ExperimentCallback
    cell: str
    number: int
    total: int

    def on_progress(self, done: int, total: int, history: Sequence[EpochResult], is_epoch_end: bool) -> None:
        """Reports that `done` of the `total` batches are finished. At the end of an epoch, also reports the epoch's result."""
        self.callback.on_training_step(self.cell, done, total, history[-1] if is_epoch_end else None)
        self.callback.on_cell_progress(self.cell, self.number + done / total, self.total)


@dataclass(frozen=True)
class ExperimentFolder:
    """The folder of an experiment. A cell is the training and the test of one network.

    `<cell>.npz` is the result of a finished cell. `<cell>.state.npz` is the checkpoint from which an unfinished training continues.
    """

    path: Path

    def claim(self, description: Mapping[str, Any]) -> None:
        """Writes `description` into the folder, so that the folder belongs to one experiment. Accepts a folder with the same description.

        Raises ModelError if the folder has another description.
        """
        path = self.path / "experiment.json"
        new = json.loads(json.dumps(dict(description)))
        if not path.exists():
            write_atomically(path, json.dumps(new, indent=2) + "\n")
            return
        previous = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in previous.keys() | new.keys() if previous.get(name) != new.get(name))
        if changed:
            values = ", ".join(f"{name} {previous.get(name)}" for name in changed)
            raise ModelError(
                f"{self.path} contains an experiment with other options ({values}). Use these options, or choose another --out."
            )

    def is_finished(self, cell: str) -> bool:
        """Returns whether the result of `cell` is saved."""
        return self._result_path(cell).exists()

    def load_result(self, cell: str) -> dict[str, npt.NDArray[np.generic]]:
        """Returns the arrays that `save_result` wrote for the cell. Raises ModelError if the file is damaged."""
        path = self._result_path(cell)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"Cannot read {path}, the result of a finished training: {error}. Delete the file to train this network again."
            ) from error

    def save_result(self, cell: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Writes the result of `cell`, and removes its checkpoint. A cell is the training and the test of one network."""
        save_arrays(self._result_path(cell), dict(arrays))
        self._checkpoint_path(cell).unlink(missing_ok=True)

    def train(
        self, voter: Voter, options: TrainingOptions, seed: int, pictures: SplitPictures, classes: int, progress: CellProgress
    ) -> keras.Model:
        """Trains one network of the experiment and returns it.

        The training never stops early, because an early stop would be chosen by the validation pictures. Some experiments measure the
        accuracy on the same pictures, so the measured accuracy would be too high.
        """
        keras.utils.set_random_seed(seed)
        network = build_network(voter, classes)
        self.train_network(network, options.recipe_of(voter.network), seed, pictures, progress)
        return network

    def train_network(
        self, network: keras.Model, recipe: NetworkRecipe, seed: int, pictures: SplitPictures, progress: CellProgress
    ) -> None:
        """Trains `network` with `recipe`, but never stops early. An interrupted training continues from its checkpoint."""
        recipe = replace(recipe, patience=0, seed=seed)
        Trainer(network, pictures, recipe).fit(self._checkpoint_path(progress.cell), progress.on_progress)

    def _result_path(self, cell: str) -> Path:
        return self.path / f"{cell}.npz"

    def _checkpoint_path(self, cell: str) -> Path:
        return self.path / f"{cell}.state.npz"


@dataclass(frozen=True)
class ResultTable:
    """The results of an experiment as a table of texts. Its title stands above it, and its `sentences` stand below it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """Returns the table as Markdown, with the title as a heading."""
        lines = [f"## {self.title}", "", *(f"| {' | '.join(row)} |" for row in (self.head, ["---"] * len(self.head), *self.rows))]
        return "\n".join([*lines, *([""] if self.sentences else []), *self.sentences]) + "\n"

    def save(self, folder: Path) -> None:
        """Writes `table.csv` and `table.md` into `folder`."""
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([self.head, *self.rows])
        write_atomically(folder / "table.csv", buffer.getvalue())
        write_atomically(folder / "table.md", self.to_markdown())


def format_spread(values: Sequence[float]) -> str:
    """Returns the mean as text, with the standard deviation if there are several values. Returns "not finished" if there are none."""
    if not values:
        return "not finished"
    mean = statistics.fmean(values)
    return f"{mean:.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{mean:.4f}"


def format_interval(values: Sequence[float]) -> str:
    """Returns the mean of `values` as text. If there are at least two values, the text also has the 95 % interval of the mean."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    half = float(student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"
