"""OpenVINO as runtime: in float32, in bfloat16 where the processor computes it, or in 8 bits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from models.inference.runtimes.conversion import Form, converted
from models.inference.runtimes.runtime import filled
from models.registry.versions import Version
from streams.errors import ModelError


class OpenVino:
    """One compiled graph for all voters. Its batch is open, so that the weights are in memory once; it is given fixed sizes only,
    each computed once at the start: OpenVINO keeps what it made for a shape.
    """

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        self.name = name
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        self.max_batch = self.batch_sizes[-1]
        self.side_px = version.manifest.preprocessing.side_px
        form: Form = "static8" if name.endswith("-int8") else "float32"
        wanted: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if name.endswith("-bf16") else "f32"}
        if threads > 0:
            wanted["INFERENCE_NUM_THREADS"] = threads
        if at_once > 1:
            wanted["NUM_STREAMS"] = str(at_once)  # each with its share of the threads
        core = openvino.Core()
        try:
            # Not `openvino.convert_model`: that one tells its makers of its use.
            compiled = core.compile_model(core.read_model(converted(version, form)), "CPU", wanted)
        except RuntimeError as error:
            raise ModelError(f"{version.folder}: {name} cannot compute it: {str(error).strip().splitlines()[-1]}") from error
        self._compiled = compiled
        self._own = threading.local()  # a request takes one call at a time

    def warm_up(self) -> None:
        """Computes every batch shape once."""
        for size in self.batch_sizes:
            self.predict(np.zeros((size, self.side_px, self.side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities, shape (n, voters, classes), of `pixels`, shape (n, side_px, side_px)."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        request = self._own.request
        request.infer([filled(pixels, self.batch_sizes).astype(np.float32)])
        answers: npt.NDArray[np.float32] = request.get_output_tensor(0).data[: len(pixels)].copy()
        return answers
