"""The cells of an experiment on disk: what is finished is not computed again, what was interrupted goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.networks.building import build
from models.networks.framework import keras
from models.registry.manifest import Voter
from models.training import checkpoint
from models.training.checkpoint import Epoch
from models.training.options import Options
from models.training.trainer import Lesson
from streams.errors import ModelError

ASKED = "experiment.json"


class Watcher(Protocol):
    """Is told how an experiment goes; may raise KeyboardInterrupt."""

    def cell(self, name: str, done: float, total: int) -> None:
        """Cells done so far, with a part of the one called `name`."""

    def learning(self, voter: str, done: int, total: int, epoch: Epoch | None) -> None:
        """Batches of the cell done; at an epoch's end what it came to."""


@dataclass(frozen=True)
class Pupils:
    """Pictures of one cell, and who of them validates. `pixels`: (n, side, side), `labels`: (n,)."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    validates: npt.NDArray[np.bool_]
    classes: int
    repeats: npt.NDArray[np.int32] | None = None  # (n,), as a Lesson's


@dataclass(frozen=True)
class Cells:
    """The folder of an experiment: `<name>.npz` holds what a finished cell came to, `<name>.state.npz` one under way."""

    folder: Path

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Notes what the experiment is. Raises ModelError when the folder holds another one."""
        path = self.folder / ASKED
        wanted = json.loads(json.dumps(dict(asked)))
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = sorted(name for name in before.keys() | wanted.keys() if before.get(name) != wanted.get(name))
            if changed:
                told = ", ".join(f"{name} {before.get(name)}" for name in changed)
                raise ModelError(f"{self.folder} holds another experiment ({told}); choose another folder, or ask for the same")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")

    def done(self, name: str) -> bool:
        """Whether the cell is finished."""
        return self._path(name).exists()

    def kept(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """What a finished cell came to."""
        try:
            with self._path(name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError) as error:
            raise ModelError(f"{self._path(name)}: expected a finished cell: {error}; delete it to compute it anew") from error

    def keep(self, name: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Finishes a cell: whole or not at all."""
        checkpoint.write_whole(self._path(name), arrays)
        self._state(name).unlink(missing_ok=True)

    def taught(
        self, name: str, voter: Voter, options: Options, seed: int, pupils: Pupils, hear: Callable[[int, int, Epoch | None], None]
    ) -> keras.Model:
        """The network of a cell after all its epochs: never stopped early, so that no picture that judges it has chosen it."""
        keras.utils.set_random_seed(seed)
        network = build(voter, pupils.classes)
        lesson = Lesson(
            network,
            pupils.pixels,
            pupils.labels,
            pupils.validates,
            options.batch,
            options.epochs_of(voter.network),
            0,
            options.rate_of(voter.network),
            options.weight_decay,
            seed,
            options.turned,
            pupils.repeats,
        )
        lesson.learn(self._state(name), hear, [])
        return network

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _state(self, name: str) -> Path:
        return self.folder / f"{name}.state.npz"


@dataclass
class Progressing:
    """Tells a watcher of one cell: its own batches, and the experiment's cells by its share."""

    watcher: Watcher
    name: str
    number: int  # from 0
    cells: int

    def __call__(self, done: int, total: int, epoch: Epoch | None) -> None:
        """Hears a lesson."""
        self.watcher.learning(self.name, done, total, epoch)
        self.watcher.cell(self.name, self.number + done / total, self.cells)
