"""LiteRT (formerly TensorFlow Lite) as runtime: in float32, or with weights of 8 bits."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from models.inference.runtimes.conversion import Form, converted
from models.inference.runtimes.runtime import filled, padded_size, pieces
from models.registry.versions import Version
from streams.errors import ModelError

# An interpreter has a shape and a copy of the weights of its own, and is as fast with 8 pictures as with 32: two are enough.
SHAPES = (1, 8)


class LiteRT:
    """Interpreters of two shapes; larger batches are computed in pieces."""

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        # Interpreters for several calls would each hold the weights: calls take turns, each with all threads.
        self._turn = threading.Lock()
        self.name = name
        self.max_batch = max(batch_sizes)
        self.side_px = version.manifest.preprocessing.side_px
        form: Form = "weights8" if name.endswith("-int8") else "float32"
        path = str(converted(version, form))
        self._shapes = tuple(size for size in SHAPES if size == 1 or self.max_batch > 1)
        try:
            self._interpreters = {size: _interpreter(path, size, self.side_px, threads) for size in self._shapes}
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{version.folder}: {name} cannot compute it: {error}") from error

    def warm_up(self) -> None:
        """Computes both shapes once."""
        for size in self._shapes:
            self.predict(np.zeros((size, self.side_px, self.side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities, shape (n, voters, classes), of `pixels`, shape (n, side_px, side_px)."""
        padded_size(len(pixels), (self.max_batch,))
        with self._turn:
            return np.concatenate([self._piece(piece) for piece in pieces(pixels, self._shapes[-1])])

    def _piece(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        grey = filled(pixels, self._shapes).astype(np.float32)
        interpreter = self._interpreters[len(grey)]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], grey)
        interpreter.invoke()
        answers: npt.NDArray[np.float32] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return answers[: len(pixels)]


def _interpreter(path: str, size: int, side_px: int, threads: int) -> Any:
    made = Interpreter(path, num_threads=threads if threads > 0 else len(os.sched_getaffinity(0)))
    made.resize_tensor_input(made.get_input_details()[0]["index"], (size, side_px, side_px), strict=True)
    made.allocate_tensors()
    return made
