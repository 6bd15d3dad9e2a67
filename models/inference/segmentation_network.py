"""Loads, stores and computes the segmentation head of a version with TensorFlow."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.segmentation import ComputeProbabilities, Segmentation
from models.networks.framework import keras, tf
from models.networks.preprocessing import resample, scale_pixels
from models.networks.segmentation import segmentation_head
from models.registry import Version
from models.registry.manifest import SegmentationMember
from streams.errors import ModelError


def make_segmentation(network: keras.Model, member: SegmentationMember, side_px: int) -> Segmentation:
    """Returns the head `network`, ready to segment pictures with the side `side_px`."""
    return Segmentation(trace_head(network, member, side_px), member, side_px)


def trace_head(network: keras.Model, member: SegmentationMember, side_px: int) -> ComputeProbabilities:
    """Returns a function that computes the head `network` in one traced graph."""

    def compute(pixels: tf.Tensor) -> tf.Tensor:
        probabilities = network(resample(scale_pixels(pixels), network), training=False)
        return tf.image.resize(probabilities, (side_px, side_px)) if side_px != member.side_px else probabilities

    traced = tf.function(compute, autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec((None, side_px, side_px), tf.uint8))

    def compute_arrays(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        probabilities: npt.NDArray[np.float32] = graph(tf.constant(pixels)).numpy()
        return probabilities

    return compute_arrays


def load_segmentation_network(version: Version, member: SegmentationMember, dtype: str = "float32") -> keras.Model:
    """Returns the trained segmentation head of `version`. Raises ModelError if the weights do not fit the manifest."""
    path = version.file(member.weights_file)
    try:
        network = segmentation_head(len(member.kinds), member.side_px, member.width, dtype)
        with warnings.catch_warnings():
            # Keras only warns if the file lacks the weights of some layers, and would leave these layers untrained.
            warnings.simplefilter("error", UserWarning)
            network.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, UserWarning) as error:
        raise ModelError(f"{path} does not contain the weights of a segmentation head of {len(member.kinds)} kinds: {error}") from error
    return network


def save_segmentation_weights(path: Any, network: keras.Model, member: SegmentationMember, half: bool = True) -> None:
    """Writes the weights of `network` to `path`, as float16 if `half` is True. `network` then has the rounded weights, too."""
    if half:
        small = segmentation_head(len(member.kinds), member.side_px, member.width, "float16")
        small.set_weights([weights.astype("float16") for weights in network.get_weights()])
        network.set_weights([weights.astype("float32") for weights in small.get_weights()])
        network = small
    network.save_weights(path)
