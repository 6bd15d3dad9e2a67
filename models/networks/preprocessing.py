"""Scales and resamples decoded pictures for the networks. Training and inference use the same functions."""

from __future__ import annotations

from typing import Any

from models.networks.framework import tf


def scale_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """Converts grey levels to the input of a network.

    Input shape: (n, side, side), 0..255. Output shape: (n, side, side, 1), float32, 0..1.
    """
    return tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255.0


def resample(grey: tf.Tensor, network: Any) -> tf.Tensor:
    """Resamples `grey`, shape (n, side, side, 1), to the side of the input of `network`.

    The resampling is bilinear with antialiasing, so every pixel counts and small holes are not lost.
    """
    side_px = network.input_shape[1]
    if side_px == grey.shape[1]:
        return grey
    return tf.image.resize(grey, (side_px, side_px), "bilinear", antialias=True)
