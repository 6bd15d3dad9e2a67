"""What may happen to a turned part and leaves it the same part: any rotation, mirroring, tilt, size, place, light, blur, noise.

Everything is drawn from stateless generators, so that an epoch is the same however often it is run.
"""

from __future__ import annotations

import math

from models.networks.framework import tf

MOST_SCALE = 0.1  # larger or smaller by
MOST_SHIFT = 0.05  # of the side
MOST_TILT = 0.2  # a part that lies aslant looks narrower along one axis, by at most this share
MOST_LIGHT = 0.12  # of full scale, added
MOST_CONTRAST = 0.25  # as factor
MOST_NOISE = 0.02  # standard deviation, of full scale
BLURRED = 0.25  # share of the batches


def augmented(grey: tf.Tensor, seed: tf.Tensor, turned: str = "free") -> tf.Tensor:
    """`grey`, shape (n, side, side, 1), 0..1, each picture changed by chance; `seed` is two integers.

    `turned` "quarter" turns by right angles only and neither moves nor scales: for textures, whose grain resampling would blur.
    """
    count, side = tf.shape(grey)[0], tf.cast(tf.shape(grey)[1], tf.float32)
    drawn = tf.random.stateless_uniform((10, count), seed, -1.0, 1.0)
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
    # Evenly spread for a camera's bell: of the same strength, and drawn in a third of the time.
    even = math.sqrt(3) * tf.random.stateless_uniform(tf.shape(lit), seed + 1, -1.0, 1.0)
    noise = even * (MOST_NOISE * tf.abs(drawn[7]))[:, None, None, None]
    blurred = tf.random.stateless_uniform((), seed + 2) < BLURRED
    soft = tf.cond(blurred, lambda: _blurred(lit), lambda: lit)
    return tf.clip_by_value(soft + noise, 0.0, 1.0)


def _transforms(drawn: tf.Tensor, side: tf.Tensor, turned: str) -> tf.Tensor:
    """Eight numbers for each picture: from places in the result to places in the original."""
    turn, scale, mirror = math.pi * drawn[0], 1 + MOST_SCALE * drawn[1], tf.sign(drawn[2] + 1e-9)
    shift_x, shift_y = MOST_SHIFT * side * drawn[3], MOST_SHIFT * side * drawn[4]
    axis, tilt = math.pi * drawn[8], MOST_TILT * tf.abs(drawn[9])
    if turned == "quarter":
        turn, scale, tilt = tf.floor(2 * drawn[0]) / 2 * math.pi, tf.ones_like(scale), tf.zeros_like(tilt)
        shift_x, shift_y = tf.zeros_like(shift_x), tf.zeros_like(shift_y)
    # The result's tilt is undone along its axis, then its mirroring, its turn and its size.
    wider = 1 / (1 - tilt) - 1
    xx, xy, yy = 1 + wider * tf.cos(axis) ** 2, wider * tf.cos(axis) * tf.sin(axis), 1 + wider * tf.sin(axis) ** 2
    cos, sin = tf.cos(turn) / scale, tf.sin(turn) / scale
    a, b = mirror * cos * xx - sin * xy, mirror * cos * xy - sin * yy
    c, d = mirror * sin * xx + cos * xy, mirror * sin * xy + cos * yy
    middle = (side - 1) / 2
    x = middle - a * middle - b * middle + shift_x
    y = middle - c * middle - d * middle + shift_y
    nothing = tf.zeros_like(a)
    return tf.stack([a, b, x, c, d, y, nothing, nothing], axis=1)


def _blurred(grey: tf.Tensor) -> tf.Tensor:
    """Means of 3 x 3 pixels, by sums: pooling one channel takes thirty times as long on a processor."""
    wide = tf.pad(grey, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
