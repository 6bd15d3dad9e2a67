"""The runtime LiteRT (formerly TensorFlow Lite), which computes in float32 or with 8-bit integers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from models.inference.runtimes.conversion import get_flatbuffer
from models.inference.runtimes.runtime import count_threads, find_batch_size, pad_batch, split_batches
from models.registry import Version
from streams.errors import ModelError

# Batch sizes of the interpreters. A larger size would save no time, and each interpreter copies the weights.
SHAPES = (1, 8)


class LiteRtRuntime:
    """Computes a version's networks from its flatbuffer with two interpreters, each for one batch size. Larger batches are split.

    Concurrent calls are computed one after the other, because parallel calls would need more copies of the weights.
    """

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        self._lock = threading.Lock()
        self.name = name
        self.max_batch = max(batch_sizes)
        self.side_px = version.manifest.preprocessing.side_px
        path = str(get_flatbuffer(version, "weights8" if name.endswith("-int8") else "float32"))
        self._shapes = tuple(size for size in SHAPES if size == 1 or self.max_batch > 1)
        try:
            self._interpreters = {size: _open_interpreter(path, size, self.side_px, threads) for size in self._shapes}
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"The runtime {name} cannot compute the version {version.folder}: {error}. Choose another runtime.") from error

    def warm_up(self) -> None:
        """Computes a batch of each size once, because the first computation of a size takes longer."""
        for size in self._shapes:
            self.predict(np.zeros((size, self.side_px, self.side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns the voters' class probabilities, shape (n, voters, classes), for `pixels`, shape (n, side_px, side_px)."""
        find_batch_size(len(pixels), (self.max_batch,))
        with self._lock:
            return np.concatenate([self._predict_batch(batch) for batch in split_batches(pixels, self._shapes[-1])])

    def _predict_batch(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        grey = pad_batch(pixels, self._shapes).astype(np.float32)
        interpreter = self._interpreters[len(grey)]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], grey)
        interpreter.invoke()
        probabilities: npt.NDArray[np.float32] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return probabilities[: len(pixels)]


def _open_interpreter(path: str, batch_size: int, side_px: int, threads: int) -> Any:
    interpreter = Interpreter(path, num_threads=count_threads(max(0, threads)))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (batch_size, side_px, side_px), strict=True)
    interpreter.allocate_tensors()
    return interpreter
