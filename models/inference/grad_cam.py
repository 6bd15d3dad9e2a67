"""Computes heat maps that show where AlexNet sees a defect: Grad-CAM times LayerCAM. Grad-CAM alone is too coarse.

Sources: Selvaraju et al., ICCV 2017, equations 1 and 2; Jiang et al., IEEE TIP 30, 2021, equation 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.inference.heat_map import DefectMap, HeatMap
from models.inference.runtimes.runtime import has_bfloat16
from models.networks.factory import load_network
from models.networks.framework import keras, tf
from models.networks.preprocessing import resample, scale_pixels
from models.registry import Version

METHOD = "grad-cam"
REGION_LAYER, DETAIL_LAYER = "conv5", "norm1"
# Heat maps are smoothed with a Gaussian, so that the hottest point is not a single noisy pixel. Its standard deviation is this share of the
# picture's side.
SMOOTHING_SHARE = 1 / 80
# If no value of a heat map is above this limit, nothing indicates a defect, and the heat map is set to 0 everywhere.
MIN_HEAT = 1e-9


class GradCam:
    """Computes heat maps, one picture at a time. It is not thread-safe, and the thread of the event loop must not call it."""

    def __init__(self, alexnet: keras.Model, ok_class: int, side_px: int) -> None:
        self._ok_class = ok_class
        self._output = alexnet.get_layer("output")
        detail, region = alexnet.get_layer(DETAIL_LAYER).output, alexnet.get_layer(REGION_LAYER).output
        self._to_detail = keras.Model(alexnet.inputs, detail)
        self._to_region = keras.Model(detail, region)
        self._to_features = keras.Model(region, self._output.input)
        self._network = alexnet
        traced = tf.function(self._trace, autograph=False)
        self._graph = traced.get_concrete_function(tf.TensorSpec((1, side_px, side_px), tf.uint8))

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the heat map of `compute_heat_map` as a defect map. Grad-CAM knows no kinds of defect."""
        return DefectMap(self.compute_heat_map(pixels), METHOD)

    def compute_heat_map(self, pixels: npt.NDArray[np.uint8]) -> HeatMap:
        """Returns the heat of each pixel, 0..1, shape (side_px, side_px). The heat is 0 everywhere if nothing indicates a defect."""
        side_px = pixels.shape[0]
        region, detail = (_resize(cells.numpy()[0], side_px) for cells in self._graph(tf.constant(pixels[np.newaxis])))
        return _normalise(ndimage.gaussian_filter(region * detail, SMOOTHING_SHARE * side_px))

    def _trace(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a coarse Grad-CAM from AlexNet's layer `conv5` and a fine LayerCAM from `norm1`, both of shape (1, rows, columns)."""
        detail = self._to_detail(resample(scale_pixels(pixels), self._network), training=False)
        with tf.GradientTape() as tape:
            tape.watch(detail)
            region = self._to_region(detail, training=False)
            score = self._compute_log_odds(self._to_features(region, training=False))
        region_gradient, detail_gradient = tape.gradient(score, [region, detail])
        weights = tf.reduce_mean(region_gradient, axis=(1, 2), keepdims=True)
        return (
            tf.cast(tf.nn.relu(tf.reduce_sum(weights * region, axis=-1)), tf.float32),
            tf.cast(tf.nn.relu(tf.reduce_sum(tf.nn.relu(detail_gradient) * detail, axis=-1)), tf.float32),
        )

    def _compute_log_odds(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the log odds of a defect. Log odds have a clear gradient even if the probability is near 0 or 1."""
        logits = tf.cast(features, tf.float32) @ self._output.kernel + self._output.bias
        if logits.shape[-1] == 1:  # A logistic head has only one output, the log odds of the second class.
            return logits[:, 0] * (-1.0 if self._ok_class == 1 else 1.0)
        others = [index for index in range(logits.shape[-1]) if index != self._ok_class]
        return tf.reduce_logsumexp(tf.gather(logits, others, axis=1), axis=1) - logits[:, self._ok_class]


def open_grad_cam(version: Version, side_px: int | None = None) -> GradCam | None:
    """Returns a warmed-up GradCam for the version's AlexNet, or None if the version has no AlexNet. Takes seconds.

    The pictures have the side `side_px`; None means the side of the version. Raises ModelError if the weights cannot be read.
    """
    manifest = version.manifest
    for voter in manifest.voters:
        if voter.network == "alexnet":
            side_px = side_px or manifest.preprocessing.side_px
            alexnet = load_network(version, voter, "bfloat16" if has_bfloat16() else "float32")
            grad_cam = GradCam(alexnet, manifest.ok_class, side_px)
            grad_cam.compute_heat_map(np.zeros((side_px, side_px), np.uint8))
            return grad_cam
    return None


def _normalise(heat: npt.NDArray[Any]) -> HeatMap:
    hottest = float(heat.max())
    return (heat / hottest if hottest > MIN_HEAT else np.zeros_like(heat)).astype(np.float32)


def _resize(cells: npt.NDArray[np.float32], side_px: int) -> HeatMap:
    """Returns the coarse heat map `cells`, scaled to 0..1 and resampled to `side_px` rows and columns."""
    return np.asarray(Image.fromarray(_normalise(cells)).resize((side_px, side_px), Image.Resampling.BILINEAR))
