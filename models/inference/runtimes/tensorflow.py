"""TensorFlow as runtime, in float32 or in bfloat16.

bfloat16 is asked for by building the networks with that type, not by `TF_SET_ONEDNN_FPMATH_MODE`: the variable has to be in the
environment before the import and then holds for the whole process, so that no float32 could stand beside it; and it was measured to
bring a tenth where the type brings twice (two cores with avx512_bf16, AlexNet at 224 px, batch 32: 107, 106 and 207 pictures a second).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.runtimes.runtime import filled, total_threads
from models.networks.building import load_networks
from models.networks.framework import tf
from models.registry.versions import Version

log = logging.getLogger(__name__)


class TensorFlow:
    """One traced function for each batch shape: scaling, resampling and all voters in a single graph."""

    def __init__(self, version: Version, name: str, batch_sizes: Sequence[int], threads: int, at_once: int = 1) -> None:
        _share_threads(threads, at_once)
        self.name = name
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        self.max_batch = self.batch_sizes[-1]
        self.side_px = version.manifest.preprocessing.side_px
        dtype = "bfloat16" if name.endswith("-bf16") else "float32"
        networks = load_networks(version, dtype)
        self._graphs = {size: _graph(networks, size, self.side_px) for size in self.batch_sizes}

    def warm_up(self) -> None:
        """Traces and computes every batch shape once."""
        for size in self.batch_sizes:
            self.predict(np.zeros((size, self.side_px, self.side_px), np.uint8))

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities, shape (n, voters, classes), of `pixels`, shape (n, side_px, side_px)."""
        whole = filled(pixels, self.batch_sizes)
        answers: npt.NDArray[np.float32] = self._graphs[len(whole)](tf.constant(whole)).numpy()
        return answers[: len(pixels)]


def _graph(networks: list[Any], size: int, side_px: int) -> Callable[[tf.Tensor], tf.Tensor]:
    def answers(pixels: tf.Tensor) -> tf.Tensor:
        grey = scaled(pixels)
        return tf.stack([network(resampled(grey, network), training=False) for network in networks], axis=1)

    traced = tf.function(answers, autograph=False)
    return traced.get_concrete_function(tf.TensorSpec((size, side_px, side_px), tf.uint8))  # type: ignore[no-any-return]


def scaled(pixels: tf.Tensor) -> tf.Tensor:
    """Grey 0..255 of shape (n, side, side) -> 0..1 of shape (n, side, side, 1), float32; training uses the same."""
    return tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255.0


def resampled(grey: tf.Tensor, network: Any) -> tf.Tensor:
    """`grey` at the side that `network` takes; every pixel counts (antialiased), so that a small hole is not stepped over."""
    side_px = network.input_shape[1]
    if side_px == grey.shape[1]:
        return grey
    return tf.image.resize(grey, (side_px, side_px), "bilinear", antialias=True)


def _share_threads(threads: int, at_once: int) -> None:
    """For the whole process; the first that opens a runtime decides."""
    if threads <= 0 and at_once == 1:
        return  # TensorFlow takes what there is
    wanted = max(1, total_threads(threads) // at_once), at_once
    config = tf.config.threading
    if wanted == (config.get_intra_op_parallelism_threads(), config.get_inter_op_parallelism_threads()):
        return
    try:
        config.set_intra_op_parallelism_threads(wanted[0])
        config.set_inter_op_parallelism_threads(wanted[1])
    except RuntimeError:  # TensorFlow has computed already, and then its threads are what they are
        log.warning("TensorFlow runs already: its threads stay as they are instead of %d for each of %d calls", *wanted)
