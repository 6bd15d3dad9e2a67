"""Where AlexNet looks: its last convolution says in which region, its first one at what there.

Grad-CAM of `conv5` (Selvaraju et al., ICCV 2017, equations 1 and 2) has a cell for every 16 pixels of a side and more: on the
renderer's masks its hottest point lay on a defect in 4 of 100 pictures, since most defects are smaller than a cell. As the paper
multiplies it by a fine map (section 3.2, there guided backpropagation), it is multiplied here by LayerCAM of `norm1` (Jiang et al.,
IEEE TIP 30, 2021, equation 3), a cell for every 4 pixels: then in 73 of 100, and in 96 within 8 pixels of 300.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.inference.runtimes.choice import has_bfloat16
from models.inference.runtimes.tensorflow import resampled, scaled
from models.networks.building import load_network
from models.networks.framework import keras, tf
from models.registry.versions import Version

REGION, DETAIL = "conv5", "norm1"
SOFT = 1 / 80  # of a side: what is hot over some pixels counts more than one pixel of noise
FAINTEST = 1e-9  # a map below is called empty


class Heat:
    """Heat maps of what speaks for a defect; one traced graph of one picture. One call at a time, off the event loop."""

    def __init__(self, alexnet: keras.Model, ok_class: int, side_px: int) -> None:
        self._ok_class = ok_class
        self._answer = alexnet.get_layer("answer")
        detail, region = alexnet.get_layer(DETAIL).output, alexnet.get_layer(REGION).output
        self._to_detail = keras.Model(alexnet.inputs, detail)
        self._to_region = keras.Model(detail, region)
        self._to_answer = keras.Model(region, self._answer.input)
        self._network = alexnet
        traced = tf.function(self._maps, autograph=False)
        self._graph = traced.get_concrete_function(tf.TensorSpec((1, side_px, side_px), tf.uint8))

    def map(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Heat 0..1 of one picture, shape (side_px, side_px), of the same shape; all 0 where nothing speaks for a defect."""
        region, detail = (_at(found.numpy()[0], pixels.shape[0]) for found in self._graph(tf.constant(pixels[np.newaxis])))
        heat = ndimage.gaussian_filter(region * detail, SOFT * pixels.shape[0])
        return _to_one(heat)

    def _maps(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Grad-CAM of `REGION` and LayerCAM of `DETAIL`, each of shape (1, rows, columns)."""
        detail = self._to_detail(resampled(scaled(pixels), self._network), training=False)
        with tf.GradientTape() as tape:
            tape.watch(detail)
            region = self._to_region(detail, training=False)
            score = self._log_odds(self._to_answer(region, training=False))
        to_region, to_detail = tape.gradient(score, [region, detail])
        weights = tf.reduce_mean(to_region, axis=(1, 2), keepdims=True)
        return (
            tf.cast(tf.nn.relu(tf.reduce_sum(weights * region, axis=-1)), tf.float32),
            tf.cast(tf.nn.relu(tf.reduce_sum(tf.nn.relu(to_detail) * detail, axis=-1)), tf.float32),
        )

    def _log_odds(self, features: tf.Tensor) -> tf.Tensor:
        """Of a defect, before the softmax: computed from probabilities they have no gradient any more where the network is sure."""
        logits = tf.cast(features, tf.float32) @ self._answer.kernel + self._answer.bias
        if logits.shape[-1] == 1:  # of the second class
            return logits[:, 0] * (-1.0 if self._ok_class == 1 else 1.0)
        others = [index for index in range(logits.shape[-1]) if index != self._ok_class]
        return tf.reduce_logsumexp(tf.gather(logits, others, axis=1), axis=1) - logits[:, self._ok_class]


def heat_of(version: Version) -> Heat | None:
    """Heat maps by the version's AlexNet, warm, in bfloat16 where the processor computes it; None when the version has none.

    Takes seconds. Raises ModelError: when its weights cannot be read.
    """
    manifest = version.manifest
    for voter in manifest.voters:
        if voter.network == "alexnet":
            side_px = manifest.preprocessing.side_px
            heat = Heat(load_network(version, voter, "bfloat16" if has_bfloat16() else "float32"), manifest.ok_class, side_px)
            heat.map(np.zeros((side_px, side_px), np.uint8))
            return heat
    return None


def overlaid(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> Image.Image:
    """The grey picture with its heat in red over it."""
    share = 0.6 * heat[..., np.newaxis]
    red = np.array([255, 40, 0], np.float32)
    return Image.fromarray((pixels[..., np.newaxis] * (1 - share) + red * share + 0.5).astype(np.uint8))


def _to_one(heat: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    top = float(heat.max())
    return (heat / top if top > FAINTEST else np.zeros_like(heat)).astype(np.float32)


def _at(heat: npt.NDArray[np.float32], side_px: int) -> npt.NDArray[np.float32]:
    """A map at the picture's side, 0..1."""
    return np.asarray(Image.fromarray(_to_one(heat)).resize((side_px, side_px), Image.Resampling.BILINEAR))
