"""The runtime LiteRT (formerly TensorFlow Lite), which computes in float32 or with 8-bit integers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from models.inference.runtimes.conversion import get_flatbuffer
from models.inference.runtimes.runtime import count_threads, find_batch_size, pad_batch, split_batches
from models.registry import Version
from streams.errors import ModelError

# The largest batch size of an interpreter. With a larger size, the time for one picture would not be shorter.
LARGEST_SHAPE = 8


class LiteRtNetwork:
    """A network from a flatbuffer file, with one LiteRT interpreter for each batch size.

    A batch that is larger than the largest batch size is split.

    Concurrent calls are computed one after the other, because parallel calls would need more copies of the weights.
    """

    def __init__(self, path: Path, batch_sizes: Sequence[int], side_px: int, threads: int) -> None:
        self._lock = threading.Lock()
        self.batch_sizes = tuple(sorted(batch_sizes))
        try:
            self._interpreters = {size: _open_interpreter(str(path), size, side_px, threads) for size in self.batch_sizes}
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot compute the network {path}: {error}. Choose another runtime.") from error

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with self._lock:
            return np.concatenate([self._predict_batch(batch) for batch in split_batches(pixels, self.batch_sizes[-1])])

    def _predict_batch(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        grey = pad_batch(pixels, self.batch_sizes).astype(np.float32)
        interpreter = self._interpreters[len(grey)]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], grey)
        interpreter.invoke()
        output: npt.NDArray[np.float32] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return output[: len(pixels)]


class LiteRtRuntime:
    """Computes a version's networks from its flatbuffer with LiteRT. One interpreter takes single pictures, another one takes batches."""

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        self.name = name
        self.max_batch = max(batch_sizes)
        self.side_px = version.manifest.preprocessing.side_px
        path = get_flatbuffer(version, "weights8" if name.endswith("-int8") else "float32")
        self._network = LiteRtNetwork(path, sorted({1, min(LARGEST_SHAPE, self.max_batch)}), self.side_px, threads)

    def warm_up(self) -> None:
        """Computes a batch of each size once, because the first computation of a size takes longer."""
        for size in self._network.batch_sizes:
            self.predict(np.zeros((size, self.side_px, self.side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns the class probabilities from each network (voter), shape (n, voters, classes). Input shape: (n, side_px, side_px)."""
        find_batch_size(len(pixels), (self.max_batch,))
        return self._network.predict(pixels)


def open_flatbuffer_network(path: Path, batch_sizes: Sequence[int], side_px: int, threads: int) -> LiteRtNetwork:
    """Returns the network in the flatbuffer `path`. `threads`: 0 means every processor."""
    return LiteRtNetwork(path, batch_sizes, side_px, threads)


def _open_interpreter(path: str, batch_size: int, side_px: int, threads: int) -> Any:
    interpreter = Interpreter(path, num_threads=count_threads(max(0, threads)))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (batch_size, side_px, side_px), strict=True)
    interpreter.allocate_tensors()
    return interpreter
