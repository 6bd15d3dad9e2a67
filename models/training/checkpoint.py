"""The state of a training on disk: arrays only, whole or not at all, so that a resumed training goes on exactly."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streams.errors import ModelError

Arrays = list[npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to. `cross_entropy` in nats, `accuracy` 0..1."""

    number: int  # from 1
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class State:
    """All that a training needs to go on: variables of network and optimiser, history, the best weights so far."""

    variables: Arrays
    optimiser: Arrays
    best: Arrays
    history: list[Epoch]


def save(path: Path, state: State) -> None:
    """Writes beside `path`, flushes, and renames: a full disk leaves the file that was there."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name in ("variables", "optimiser", "best"):
        arrays |= {f"{name}.{index}": array for index, array in enumerate(getattr(state, name))}
    history = json.dumps([asdict(epoch) for epoch in state.history])
    arrays["history"] = np.frombuffer(history.encode(), np.uint8)
    write_whole(path, arrays)


def load(path: Path) -> State:
    """Raises ModelError when the file is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            history = [Epoch(**fields) for fields in json.loads(arrays["history"].tobytes())]
            return State(_list(arrays, "variables"), _list(arrays, "optimiser"), _list(arrays, "best"), history)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: expected the state of a training: {error}; delete it to begin anew") from error


def write_whole(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """An `.npz` file, there completely or not at all."""
    staged = path.with_name(path.name + ".part")
    try:
        with staged.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def _list(arrays: Mapping[str, npt.NDArray[np.generic]], name: str) -> Arrays:
    found: Arrays = []
    while f"{name}.{len(found)}" in arrays:
        found.append(arrays[f"{name}.{len(found)}"])
    return found
