"""What may happen to a turned part and leaves it the same part: any rotation, mirroring, size, place, light, blur, noise.

Everything is drawn from stateless generators, so that an epoch is the same however often it is run.
"""

from __future__ import annotations

import math

import tensorflow as tf

MOST_SCALE = 0.1  # larger or smaller by
MOST_SHIFT = 0.05  # of the side
MOST_LIGHT = 0.12  # of full scale, added
MOST_CONTRAST = 0.25  # as factor
MOST_NOISE = 0.02  # standard deviation, of full scale
BLURRED = 0.25  # share of the batches


def augmented(grey: tf.Tensor, seed: tf.Tensor, turned: str = "free") -> tf.Tensor:
    """`grey`, shape (n, side, side, 1), 0..1, each picture changed by chance; `seed` is two integers.

    `turned` "quarter" turns by right angles only and neither moves nor scales: for textures, whose grain resampling would blur.
    """
    count, side = tf.shape(grey)[0], tf.cast(tf.shape(grey)[1], tf.float32)
    drawn = tf.random.stateless_uniform((8, count), seed, -1.0, 1.0)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=grey,
        transforms=_transforms(drawn, side, turned),
        output_shape=tf.shape(grey)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    contrast = 1 + MOST_CONTRAST * drawn[5][:, None, None, None]
    lit = (moved - 0.5) * contrast + 0.5 + MOST_LIGHT * drawn[6][:, None, None, None]
    noise = tf.random.stateless_normal(tf.shape(lit), seed + 1) * (MOST_NOISE * tf.abs(drawn[7]))[:, None, None, None]
    blurred = tf.random.stateless_uniform((), seed + 2) < BLURRED
    soft = tf.cond(blurred, lambda: _blurred(lit), lambda: lit)
    return tf.clip_by_value(soft + noise, 0.0, 1.0)


def _transforms(drawn: tf.Tensor, side: tf.Tensor, turned: str) -> tf.Tensor:
    """Eight numbers for each picture: from places in the result to places in the original."""
    if turned == "quarter":
        drawn = tf.stack([tf.floor(2 * drawn[0]) / 2, 0 * drawn[1], drawn[2], 0 * drawn[3], 0 * drawn[4]])
    turn, scale = math.pi * drawn[0], 1 + MOST_SCALE * drawn[1]
    mirror = tf.sign(drawn[2] + 1e-9)
    cos, sin = tf.cos(turn) / scale, tf.sin(turn) / scale
    middle = (side - 1) / 2
    a, b, c, d = cos * mirror, -sin, sin * mirror, cos
    x = middle - a * middle - b * middle + MOST_SHIFT * side * drawn[3]
    y = middle - c * middle - d * middle + MOST_SHIFT * side * drawn[4]
    nothing = tf.zeros_like(a)
    return tf.stack([a, b, x, c, d, y, nothing, nothing], axis=1)


def _blurred(grey: tf.Tensor) -> tf.Tensor:
    return tf.nn.avg_pool2d(tf.pad(grey, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), 3, 1, "VALID")
