"""The runtime TensorFlow, in float32 or in bfloat16.

For bfloat16, the networks are built with this number type. Do not use the environment variable `TF_SET_ONEDNN_FPMATH_MODE`: it applies to
the whole process and saves no time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.runtimes.runtime import count_threads, pad_batch
from models.networks.factory import load_networks
from models.networks.framework import tf
from models.networks.preprocessing import resample, scale_pixels
from models.registry import Version

log = logging.getLogger(__name__)


class TensorFlowRuntime:
    """Computes a version's networks with TensorFlow, with one compiled graph for each batch size.

    Each graph scales and resamples the pictures, and computes all networks.
    """

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        _set_threads(threads, at_once)
        self.name = name
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        self.max_batch = self.batch_sizes[-1]
        self.side_px = version.manifest.preprocessing.side_px
        networks = load_networks(version, "bfloat16" if name.endswith("-bf16") else "float32")
        self._graphs = {size: _trace_graph(networks, size, self.side_px) for size in self.batch_sizes}

    def warm_up(self) -> None:
        """Computes a batch of each size once, because the first computation of a size takes longer."""
        for size in self.batch_sizes:
            self.predict(np.zeros((size, self.side_px, self.side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns the class probabilities from each network (voter), shape (n, voters, classes). Input shape: (n, side_px, side_px)."""
        padded = pad_batch(pixels, self.batch_sizes)
        probabilities: npt.NDArray[np.float32] = self._graphs[len(padded)](tf.constant(padded)).numpy()
        return probabilities[: len(pixels)]


def _trace_graph(networks: list[Any], batch_size: int, side_px: int) -> Callable[[tf.Tensor], tf.Tensor]:
    def compute(pixels: tf.Tensor) -> tf.Tensor:
        grey = scale_pixels(pixels)
        return tf.stack([network(resample(grey, network), training=False) for network in networks], axis=1)

    traced = tf.function(compute, autograph=False)
    return traced.get_concrete_function(tf.TensorSpec((batch_size, side_px, side_px), tf.uint8))  # type: ignore[no-any-return]


def _set_threads(threads: int, at_once: int) -> None:
    """Sets TensorFlow's number of threads for the whole process. The number cannot be changed after TensorFlow has computed something."""
    if threads <= 0 and at_once == 1:
        return  # 0 threads means that TensorFlow uses every processor. This is its default.
    intra_op, inter_op = max(1, count_threads(threads) // at_once), at_once
    config = tf.config.threading
    if (intra_op, inter_op) == (config.get_intra_op_parallelism_threads(), config.get_inter_op_parallelism_threads()):
        return
    try:
        config.set_intra_op_parallelism_threads(intra_op)
        config.set_inter_op_parallelism_threads(inter_op)
    except RuntimeError:
        message = "TensorFlow has already started, so its numbers of threads stay. Requested: %d threads for each of %d concurrent calls."
        log.warning(message, intra_op, inter_op)
