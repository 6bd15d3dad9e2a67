"""The runtime OpenVINO, which computes in float32, in bfloat16 (if the processor supports it) or with 8-bit integers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from models.inference.runtimes.conversion import get_flatbuffer
from models.inference.runtimes.runtime import find_batch_size, pad_batch, split_batches
from models.registry import Version
from streams.errors import ModelError


class OpenVinoNetwork:
    """A network from a flatbuffer file, compiled by OpenVINO.

    Batches are padded to a few fixed sizes, because OpenVINO compiles kernels for each new size and keeps them in memory.
    """

    def __init__(self, path: Path, batch_sizes: Sequence[int], side_px: int, options: dict[str, Any]) -> None:
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        self.side_px = side_px
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", {"PERFORMANCE_HINT": "LATENCY", **options})
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f"OpenVINO cannot compute the network {path}: {reason}. Choose another runtime.") from error
        # Each thread has an OpenVINO inference request of its own, because a request can compute only one call at a time.
        self._thread_local = threading.local()

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        batches = split_batches(pixels, self.batch_sizes[-1])
        return np.concatenate([self._predict_batch(batch) for batch in batches])

    def _predict_batch(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if not hasattr(self._thread_local, "request"):
            self._thread_local.request = self._compiled.create_infer_request()
        request = self._thread_local.request
        request.infer([pad_batch(pixels, self.batch_sizes).astype(np.float32)])
        output: npt.NDArray[np.float32] = request.get_output_tensor(0).data[: len(pixels)].copy()
        return output


class OpenVinoRuntime:
    """Computes all networks of a version in one compiled graph."""

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        self.name = name
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if name.endswith("-bf16") else "f32"} | _limit_threads(threads)
        if at_once > 1:
            # OpenVINO divides its threads into groups, which are called streams. Each stream computes one call of `predict` at a time.
            options["NUM_STREAMS"] = str(at_once)
        path = get_flatbuffer(version, "static8" if name.endswith("-int8") else "float32")
        self._network = OpenVinoNetwork(path, batch_sizes, version.manifest.preprocessing.side_px, options)
        self.batch_sizes = self._network.batch_sizes
        self.max_batch = self.batch_sizes[-1]

    def warm_up(self) -> None:
        """Computes a batch of each size once, because OpenVINO compiles kernels at the first use of a size."""
        side_px = self._network.side_px
        for size in self.batch_sizes:
            self.predict(np.zeros((size, side_px, side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns the class probabilities from each network (voter), shape (n, voters, classes). Input shape: (n, side_px, side_px)."""
        find_batch_size(len(pixels), self.batch_sizes)
        return self._network.predict(pixels)


def open_flatbuffer_network(path: Path, batch_sizes: Sequence[int], side_px: int, threads: int) -> OpenVinoNetwork:
    """Returns the network in the flatbuffer `path`, computed in float32. `threads`: 0 lets OpenVINO choose."""
    return OpenVinoNetwork(path, batch_sizes, side_px, {"INFERENCE_PRECISION_HINT": "f32"} | _limit_threads(threads))


def _limit_threads(threads: int) -> dict[str, Any]:
    return {"INFERENCE_NUM_THREADS": threads} if threads > 0 else {}
