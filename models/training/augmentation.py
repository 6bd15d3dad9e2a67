"""Changes training pictures at random, but never so much that a good casting looks defective or a defect disappears.

The changes are rotation, mirroring, tilt, size, position, brightness, contrast, blur and noise. TensorFlow's stateless generators are used,
so a resumed training gets the same changes.
"""

from __future__ import annotations

import math

from models.networks.framework import tf

# A casting becomes larger or smaller by at most this share: 100 px become 90 to 110 px.
MAX_SCALE = 0.1
# A casting is moved in each direction by at most this share of the picture's side.
MAX_SHIFT = 0.05
# A casting becomes narrower along one axis by at most this share, as if the camera were tilted: 100 px become 80 to 100 px.
MAX_TILT = 0.2
# A picture becomes brighter or darker by at most this share of the difference between black and white.
MAX_BRIGHTNESS = 0.12
MAX_CONTRAST = 0.25
# Largest standard deviation of the added noise, as a share of the difference between black and white.
MAX_NOISE = 0.02
BLUR_SHARE = 0.25


def augment(grey: tf.Tensor, seed: tf.Tensor, turned: str = "free", handed: bool = False) -> tf.Tensor:
    """Returns `grey`, shape (n, side, side, 1), 0..1, with random changes in each picture.

    - `seed` is two integers. The same seed gives the same changes.
    - If `turned` is "quarter", pictures are only rotated by right angles, and not moved, scaled or tilted. This suits textures, because
      resampling would blur their grain.
    - If `handed` is True, pictures are not mirrored. This suits parts whose mirror image is another part, such as a left-hand impeller.
    """
    chance = _draw_chance(grey, seed)
    moved = _move(grey, chance, turned, handed, "BILINEAR")
    contrast = 1 + MAX_CONTRAST * chance[5][:, None, None, None]
    lit = (moved - 0.5) * contrast + 0.5 + MAX_BRIGHTNESS * chance[6][:, None, None, None]
    # The noise is uniform, because normal noise takes three times as long to compute.
    uniform = math.sqrt(3) * tf.random.stateless_uniform(tf.shape(lit), seed + 1, -1.0, 1.0)
    noise = uniform * (MAX_NOISE * tf.abs(chance[7]))[:, None, None, None]
    is_blurred = tf.random.stateless_uniform((), seed + 2) < BLUR_SHARE
    soft = tf.cond(is_blurred, lambda: _blur(lit), lambda: lit)
    return tf.clip_by_value(soft + noise, 0.0, 1.0)


def move_marks(marks: tf.Tensor, seed: tf.Tensor, turned: str = "free", handed: bool = False) -> tf.Tensor:
    """Changes the masks of pictures as `augment` changes the pictures, so that the masks still show where the defects are.

    `marks`, shape (n, side, side, 1), gives for each pixel the number of a kind of defect. The other arguments must be those of `augment`.

    Each pixel gets the number of the nearest original pixel. Numbers are not averaged, because the result would stand for another kind.
    """
    return _move(marks, _draw_chance(marks, seed), turned, handed, "NEAREST")


def _draw_chance(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns ten random numbers, -1..1, for each picture, shape (10, n). The numbers decide how the picture is changed."""
    return tf.random.stateless_uniform((10, tf.shape(images)[0]), seed, -1.0, 1.0)


def _move(images: tf.Tensor, chance: tf.Tensor, turned: str, handed: bool, interpolation: str) -> tf.Tensor:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(chance, tf.cast(tf.shape(images)[1], tf.float32), turned, handed),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="NEAREST",
    )


def _transforms(chance: tf.Tensor, side: tf.Tensor, turned: str, handed: bool) -> tf.Tensor:
    """Returns a random projective transform for each picture: eight numbers that map positions in the changed picture to the original."""
    turn, scale, mirror = math.pi * chance[0], 1 + MAX_SCALE * chance[1], tf.sign(chance[2] + 1e-9)
    shift_x, shift_y = MAX_SHIFT * side * chance[3], MAX_SHIFT * side * chance[4]
    axis, tilt = math.pi * chance[8], MAX_TILT * tf.abs(chance[9])
    if handed:
        mirror = tf.ones_like(mirror)
    if turned == "quarter":
        turn, scale, tilt = tf.floor(2 * chance[0]) / 2 * math.pi, tf.ones_like(scale), tf.zeros_like(tilt)
        shift_x, shift_y = tf.zeros_like(shift_x), tf.zeros_like(shift_y)
    # TensorFlow needs the transform from the changed picture back to the original picture. The tilt is the last change, so the transform
    # undoes the tilt first.
    wider = 1 / (1 - tilt) - 1
    xx, xy, yy = 1 + wider * tf.cos(axis) ** 2, wider * tf.cos(axis) * tf.sin(axis), 1 + wider * tf.sin(axis) ** 2
    cos, sin = tf.cos(turn) / scale, tf.sin(turn) / scale
    a, b = mirror * cos * xx - sin * xy, mirror * cos * xy - sin * yy
    c, d = mirror * sin * xx + cos * xy, mirror * sin * xy + cos * yy
    middle = (side - 1) / 2
    x = middle - a * middle - b * middle + shift_x
    y = middle - c * middle - d * middle + shift_y
    zero = tf.zeros_like(a)
    return tf.stack([a, b, x, c, d, y, zero, zero], axis=1)


def _blur(grey: tf.Tensor) -> tf.Tensor:
    """Returns the mean of 3 x 3 pixels. Adding shifted copies is thirty times as fast as average pooling."""
    wide = tf.pad(grey, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
