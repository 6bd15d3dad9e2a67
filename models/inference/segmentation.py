"""Computes where the defects of a picture are and of which kind, with the segmentation head of a version."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.heat_map import DefectMap, name_largest_kind
from models.networks.framework import keras, tf
from models.networks.preprocessing import resample, scale_pixels
from models.networks.segmentation import segmentation_head
from models.registry import Version
from models.registry.manifest import SegmentationMember
from streams.errors import ModelError

METHOD = "segmentation"


class Segmentation:
    """Computes defect maps and names kinds of defect, for pictures with the side `side_px`.

    Several threads may call the methods at the same time. The event loop's thread must not call them, because a call takes long.
    """

    method = METHOD

    def __init__(self, network: keras.Model, member: SegmentationMember, side_px: int) -> None:
        self.member = member
        self.side_px = side_px
        self._network = network
        traced = tf.function(self._trace, autograph=False)
        self._graph = traced.get_concrete_function(tf.TensorSpec((None, side_px, side_px), tf.uint8))

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture, shape (side_px, side_px), grey levels 0..255.

        The heat of a pixel is its defect probability, so the heat maps of two pictures can be compared.
        """
        return self._make_map(self.predict(pixels[np.newaxis])[0])

    def name_kinds(self, pixels: npt.NDArray[np.uint8]) -> list[str]:
        """Returns the kind of the largest defect of each picture, in order. Input shape: (n, side_px, side_px), grey levels 0..255.

        The kind is `unknown` if the head sees no defect or is not sure.
        """
        return [name_largest_kind(self._make_map(probabilities)) for probabilities in self.predict(pixels)]

    def _make_map(self, probabilities: npt.NDArray[np.float32]) -> DefectMap:
        member = self.member
        kinds = np.moveaxis(probabilities[..., 1:], -1, 0)
        return DefectMap(1 - probabilities[..., 0], self.method, member.box_level, member.kinds, kinds, member.least_certainty)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns for each pixel the probability of no defect (channel 0) and of each kind, shape (n, side_px, side_px, 1 + kinds).

        Input shape: (n, side_px, side_px), grey levels 0..255. Raises ValueError for pictures of another side.
        """
        if pixels.shape[1:] != (self.side_px, self.side_px):
            raise ValueError(f"expected pictures of {self.side_px} x {self.side_px} px, found {pixels.shape[1:]}")
        result: npt.NDArray[np.float32] = self._graph(tf.constant(pixels)).numpy()
        return result

    def _trace(self, pixels: tf.Tensor) -> tf.Tensor:
        probabilities = self._network(resample(scale_pixels(pixels), self._network), training=False)
        return tf.image.resize(probabilities, (self.side_px, self.side_px)) if self.side_px != self.member.side_px else probabilities


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


def open_segmentation(version: Version) -> Segmentation | None:
    """Returns the warmed-up segmentation head of `version`, or None if the version has none. Takes a second.

    Raises ModelError if the weights cannot be read.
    """
    member = version.manifest.segmentation
    if member is None:
        return None
    side_px = version.manifest.preprocessing.side_px
    segmentation = Segmentation(load_segmentation_network(version, member), member, side_px)
    segmentation.predict(np.zeros((1, side_px, side_px), np.uint8))
    return segmentation


def save_segmentation_weights(path: Any, network: keras.Model, member: SegmentationMember, half: bool = True) -> None:
    """Writes the weights of `network` to `path`, as float16 if `half` is True. `network` then has the rounded weights, too."""
    if half:
        small = segmentation_head(len(member.kinds), member.side_px, member.width, "float16")
        small.set_weights([weights.astype("float16") for weights in network.get_weights()])
        network.set_weights([weights.astype("float32") for weights in small.get_weights()])
        network = small
    network.save_weights(path)
