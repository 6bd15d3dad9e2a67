"""Where AlexNet looks: Grad-CAM of its last convolution (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from models.runtimes.tensorflow import resampled, scaled

LAST_CONVOLUTION = "conv5"


class Heat:
    """Heat maps of what speaks for a defect. Holds a second look at the network it is made for."""

    def __init__(self, alexnet: keras.Model, ok_class: int) -> None:
        self._network = alexnet
        self._ok_class = ok_class
        self._both = keras.Model(alexnet.inputs, [alexnet.get_layer(LAST_CONVOLUTION).output, alexnet.output])

    def map(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Heat 0..1 of one picture, shape (side, side), of the same shape; all 0 where nothing speaks for a defect."""
        grey = resampled(scaled(tf.constant(pixels[np.newaxis])), self._network)
        with tf.GradientTape() as tape:
            features, answers = self._both(grey, training=False)
            tape.watch(features)
            answers = self._tail(features)
            ok = tf.clip_by_value(answers[:, self._ok_class], 1e-7, 1 - 1e-7)
            score = tf.math.log(1 - ok) - tf.math.log(ok)  # log odds: does not fade where the network is sure
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))[0].numpy().astype(np.float32)
        heat /= max(float(heat.max()), 1e-9)
        side = pixels.shape[0]
        return np.asarray(Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR)).clip(0, 1)

    def _tail(self, features: tf.Tensor) -> tf.Tensor:
        """The layers after the last convolution, one after the other."""
        layers = self._network.layers
        at = [layer.name for layer in layers].index(LAST_CONVOLUTION)
        for layer in layers[at + 1 :]:
            features = layer(features, training=False) if "drop" in layer.name else layer(features)
        return features


def overlaid(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> Image.Image:
    """The grey picture with its heat in red over it."""
    share = 0.6 * heat[..., np.newaxis]
    red = np.array([255, 40, 0], np.float32)
    return Image.fromarray((pixels[..., np.newaxis] * (1 - share) + red * share + 0.5).astype(np.uint8))
