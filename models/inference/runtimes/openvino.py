"""The runtime OpenVINO, which computes in float32, in bfloat16 (if the processor supports it) or with 8-bit integers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from models.inference.runtimes.conversion import get_flatbuffer
from models.inference.runtimes.runtime import pad_batch
from models.registry import Version
from streams.errors import ModelError


class OpenVinoRuntime:
    """Computes all networks of a version in one compiled graph.

    Batches are padded to a few fixed sizes, because OpenVINO compiles kernels for each new size and keeps them in memory.
    """

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        self.name = name
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        self.max_batch = self.batch_sizes[-1]
        self.side_px = version.manifest.preprocessing.side_px
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if name.endswith("-bf16") else "f32",
        }
        if threads > 0:
            options["INFERENCE_NUM_THREADS"] = threads
        if at_once > 1:
            # OpenVINO divides its threads between the streams. Each stream computes one call of `predict` at a time.
            options["NUM_STREAMS"] = str(at_once)
        path = get_flatbuffer(version, "static8" if name.endswith("-int8") else "float32")
        core = openvino.Core()
        try:
            # `read_model` is used, because `openvino.convert_model` would report its use to the makers of OpenVINO.
            self._compiled = core.compile_model(core.read_model(path), "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            message = f"The runtime {name} cannot compute the version {version.folder}: {reason}. Choose another runtime."
            raise ModelError(message) from error
        # Each thread has an OpenVINO inference request of its own, because a request can compute only one call at a time.
        self._thread_local = threading.local()

    def warm_up(self) -> None:
        """Computes a batch of each size once, because OpenVINO compiles kernels at the first use of a size."""
        for size in self.batch_sizes:
            self.predict(np.zeros((size, self.side_px, self.side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns the voters' class probabilities, shape (n, voters, classes), for `pixels`, shape (n, side_px, side_px)."""
        if not hasattr(self._thread_local, "request"):
            self._thread_local.request = self._compiled.create_infer_request()
        request = self._thread_local.request
        request.infer([pad_batch(pixels, self.batch_sizes).astype(np.float32)])
        probabilities: npt.NDArray[np.float32] = request.get_output_tensor(0).data[: len(pixels)].copy()
        return probabilities
