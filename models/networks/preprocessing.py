"""Scales and resamples decoded pictures for the networks, in the same way in training and in inference."""

from __future__ import annotations

from typing import Any

from models.networks.framework import tf


def scale_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """Returns grey levels as network input.

    Input shape: (n, side, side), 0..255. Output shape: (n, side, side, 1), float32, 0..1.
    """
    return tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255.0


def resample(grey: tf.Tensor, network: Any) -> tf.Tensor:
    """Returns `grey`, shape (n, side, side, 1), at the side that `network` takes.

    The resampling is bilinear and antialiased, so that every pixel counts and a small hole is not skipped.
    """
    side_px = network.input_shape[1]
    if side_px == grey.shape[1]:
        return grey
    return tf.image.resize(grey, (side_px, side_px), "bilinear", antialias=True)
