"""The segmentation head: a small network that gives the probability of each kind of defect for each pixel of a picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.networks.framework import keras, tf
from models.networks.preprocessing import resample, scale_pixels
from models.registry import Version
from models.registry.manifest import SegmentationMember
from streams.errors import ModelError

layers = keras.layers

# The network halves the side of its input four times, so the side must be a multiple of 16.
SIDE_STEP_PX = 16
# With this initial bias, an untrained network calls only about 2 % of all pixels a defect.
BACKGROUND_BIAS = 4.0


def segmentation_head(kinds: int, side_px: int, width: int = 16, dtype: str = "float32") -> keras.Model:
    """Builds the segmentation head, which gives the probability of each kind of defect for each pixel.

    Source: Ronneberger, Fischer, Brox, U-Net, MICCAI 2015. Differences:

    - The first layer has `width` feature maps instead of 64.
    - The side is halved by convolutions with a step of 2 instead of pooling.
    - Feature maps of the same size are added instead of concatenated.

    Input shape: (batch, side_px, side_px, 1), float32, grey level 0..1. Output shape: (batch, side_px, side_px, 1 + kinds), float32.
    Channel 0 is "no defect".
    Raises ValueError if there is no kind, or if `side_px` is not a multiple of 16.
    """
    if kinds < 1:
        raise ValueError(f"expected at least one kind of defect, found {kinds}")
    if side_px < SIDE_STEP_PX or side_px % SIDE_STEP_PX:
        raise ValueError(f"expected a side that is a multiple of {SIDE_STEP_PX} px, found {side_px}")
    pixels = keras.Input((side_px, side_px, 1), name="pixels")
    features = layers.Rescaling(2.0, -1.0, name="centre", dtype=dtype)(pixels)
    features = _convolve(features, width, "stem", dtype, stride=2)
    skips = []
    for number, times in enumerate((2, 4, 6), 1):
        features = _convolve(features, times * width // 2, f"fine{number}", dtype)
        skips.append(features)
        features = _convolve(features, times * width, f"down{number}", dtype, stride=2)
    features = _convolve(features, 6 * width, "deep", dtype)
    summary = layers.GlobalAveragePooling2D(keepdims=True, name="mean", dtype=dtype)(features)
    summary = layers.Conv2D(6 * width, 1, activation="relu", kernel_initializer="he_normal", name="summary", dtype=dtype)(summary)
    features = layers.Add(name="summarised", dtype=dtype)([features, summary])
    for number, skip in reversed(list(enumerate(skips, 1))):
        features = layers.Conv2D(skip.shape[-1], 1, kernel_initializer="he_normal", name=f"narrow{number}", dtype=dtype)(features)
        features = layers.UpSampling2D(2, interpolation="bilinear", name=f"up{number}", dtype=dtype)(features)
        features = layers.Add(name=f"join{number}", dtype=dtype)([features, skip])
        features = _convolve(features, skip.shape[-1], f"merge{number}", dtype)
    bias = keras.initializers.Constant([BACKGROUND_BIAS, *[0.0] * kinds])
    logits = layers.Conv2D(1 + kinds, 1, bias_initializer=bias, name="logits", dtype="float32")(features)
    logits = layers.UpSampling2D(2, interpolation="bilinear", name="full_side", dtype="float32")(logits)
    return keras.Model(pixels, layers.Softmax(name="probabilities", dtype="float32")(logits), name="segmentation")


def _convolve(features: keras.KerasTensor, maps: int, name: str, dtype: str, stride: int = 1) -> keras.KerasTensor:
    features = layers.Conv2D(maps, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name, dtype=dtype)(features)
    features = layers.BatchNormalization(momentum=0.95, name=f"{name}_norm", dtype=dtype)(features)
    return layers.ReLU(name=f"{name}_active", dtype=dtype)(features)


def trace_head(
    network: keras.Model, member: SegmentationMember, side_px: int
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Returns a function that computes the segmentation head `network` as one TensorFlow graph, which is faster.

    Input shape: (n, side_px, side_px), uint8, grey levels 0..255. Output shape: (n, side_px, side_px, 1 + kinds), float32, probabilities.
    """

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
            # If the file lacks the weights of some layers, Keras only warns, and leaves these layers untrained. So warnings are turned into
            # errors here.
            warnings.simplefilter("error", UserWarning)
            with version.copy_files(member.weights_file) as folder:
                network.load_weights(folder / member.weights_file)
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
