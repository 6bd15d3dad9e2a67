"""Draws casting defects into the picture of a good casting, and returns which pixels the defects cover.

Sizes are given as shares of the radius of the plate, the round disc of the impeller. The smallest defects can just be seen in a picture
with a side of 300 px.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from models.synthetic.impeller import CameraView, Field, Generator, angle_between, as_float32, as_turns, clouds, noise_along

# A pixel belongs to the mask of a defect if the defect covers more than 30 % of the pixel.
MIN_COVER = 0.3


class DefectKind(IntEnum):
    """Kinds of casting defects. In the mask of a picture, each pixel of a defect has the number of its kind, and all other pixels are 0."""

    # A gas bubble that broke through the surface.
    BLOW_HOLE = 1
    # A cavity with ragged edges, which opened when the cooling metal shrank.
    SHRINKAGE = 2
    # A seam in the surface. Two streams of metal met there and were too cold to join.
    COLD_SHUT = 3
    # A piece broken out of the rim.
    CHIPPING = 4
    # Thin fins at the rim, where metal flowed between the two halves of the mould.
    FLASH = 5
    # A nearly straight line in the surface. It appears when people or machines move the casting.
    SCRATCH = 6

    @property
    def text(self) -> str:
        """The kind of defect in words, for example "blow hole"."""
        return self.name.lower().replace("_", " ")


def draw_defect(kind: DefectKind, image: Field, view: CameraView, rng: Generator) -> Field:
    """Draws one defect of `kind` into the array `image`. Returns the share of each pixel that the defect covers, 0..1."""
    return _DRAWERS[kind](image, view, rng)


def _blow_hole(image: Field, view: CameraView, rng: Generator) -> Field:
    x, y = _coordinates_around(view, rng.uniform(0.68, 0.94), rng.uniform(0, 2 * np.pi))
    radius, squash, turn = rng.uniform(0.02, 0.045), rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / squash
    distance = np.hypot(u, v).astype(np.float32)
    cover = view.inside(distance, radius)
    lip = view.band(distance, radius * 1.25, radius * 0.4) * (1 - cover) * np.cos(np.arctan2(y, x) - view.light - np.pi)
    image += 45 * np.clip(lip, 0, None)
    image += cover * (rng.uniform(10, 60) + 25 * np.clip(distance / radius, 0, 1) - image)
    return cover


def _shrinkage(image: Field, view: CameraView, rng: Generator) -> Field:
    x, y = _coordinates_around(view, rng.uniform(0.68, 0.96), rng.uniform(0, 2 * np.pi))
    reach = rng.uniform(0.045, 0.11)
    ragged = clouds(rng, view.side_px, int(rng.integers(45, 75)))
    depth = 1 - np.hypot(x, y) / reach + 0.75 * ragged
    cover = np.clip((depth - 0.55) * 4, 0, 1) * (np.hypot(x, y) < 1.3 * reach)
    # The random ragged shape can be empty. A round hole of radius 0.02 is added, so that the defect always covers some pixels.
    cover = np.maximum(cover, view.inside(np.hypot(x, y).astype(np.float32), 0.02))
    image += cover * (rng.uniform(20, 65) + 20 * ragged - image)
    return as_float32(cover)


def _cold_shut(image: Field, view: CameraView, rng: Generator) -> Field:
    middle, direction = rng.uniform(0.7, 0.93), rng.uniform(0, 2 * np.pi)
    distance, angle = view.plate
    off = angle_between(angle, direction)
    half = rng.uniform(0.1, 0.32)
    bend = rng.uniform(-0.35, 0.35) * off + 0.02 * np.sin(off * rng.uniform(15, 40) + rng.uniform(0, 6))
    width = rng.uniform(0.008, 0.016) * np.clip(1.15 - np.square(off / half), 0, 1)
    ends = np.abs(off) < half
    cover = np.clip((width - np.abs(distance - middle - bend)) / view.pixel + 0.5, 0, 1) * ends * (width > 0)
    image += np.clip(1 - np.abs(distance - middle - bend - 0.02) / 0.014, 0, 1) * ends * rng.uniform(5, 25)
    image += rng.uniform(0.7, 0.95) * cover * (rng.uniform(25, 70) - image)
    return as_float32(cover)


def _chipping(image: Field, view: CameraView, rng: Generator) -> Field:
    distance, angle = view.plate
    off = angle_between(angle, rng.uniform(0, 2 * np.pi))
    half, deep = rng.uniform(0.05, 0.22), rng.uniform(0.035, 0.11)
    rough = 1 + 0.35 * noise_along(rng, as_turns(angle), 260, smooth=3)
    edge = 1.005 - deep * np.clip(1 - np.square(off / half), 0, 1) * np.clip(rough, 0.4, 1.6)
    cover = np.clip((distance - edge) / view.pixel + 0.5, 0, 1) * view.inside(distance, 1.004) * (np.abs(off) < half)
    broken = rng.uniform(35, 95) + 22 * clouds(rng, view.side_px, 70)
    image += cover * (broken - image)
    return as_float32(cover)


def _flash(image: Field, view: CameraView, rng: Generator) -> Field:
    distance, angle = view.plate
    height = np.zeros_like(distance)
    # Fins of flash (surplus metal) often cover half of the rim of a real casting, so 3 to 10 fins are drawn.
    for _ in range(int(rng.integers(3, 11))):
        off, half = angle_between(angle, rng.uniform(0, 2 * np.pi)), rng.uniform(0.1, 0.5)
        height = np.maximum(height, rng.uniform(0.03, 0.1) * np.clip(1 - np.square(off / half), 0, 1))
    jagged = np.clip(1 + 0.45 * noise_along(rng, as_turns(angle), 220, smooth=3) + 0.35 * noise_along(rng, as_turns(angle), 60), 0.15, 1.8)
    cover = np.clip((1 + height * jagged - distance) / view.pixel + 0.5, 0, 1) * (distance > 0.99) * (height > 0.008)
    glint = noise_along(rng, as_turns(angle), 150)
    fin = rng.uniform(25, 75) + 35 * clouds(rng, view.side_px, 60) + 70 * (glint > 1.2)
    image += cover * (fin - image)
    return as_float32(cover)


def _scratch(image: Field, view: CameraView, rng: Generator) -> Field:
    x, y = _coordinates_around(view, rng.uniform(0.74, 0.9), rng.uniform(0, 2 * np.pi))
    turn, half = rng.uniform(0, np.pi), rng.uniform(0.07, 0.19)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    width = rng.uniform(0.006, 0.011) * np.clip(1.2 - np.square(u / half), 0, 1)
    away = np.abs(v + rng.uniform(-0.5, 0.5) * np.square(u))
    within = (view.plate[0] < 0.985) & (view.plate[0] > 0.66)
    cover = np.clip((width - away) / view.pixel + 0.5, 0, 1) * (np.abs(u) < half) * within
    image += cover * ((rng.uniform(20, 75) if rng.random() < 0.7 else 250) - image)
    return as_float32(cover)


def _coordinates_around(view: CameraView, distance: float, direction: float) -> tuple[Field, Field]:
    """Returns x and y of every pixel, measured from a point on the plate. The unit is the radius of the plate."""
    far, angle = view.plate
    x = far * np.cos(angle) - np.float32(distance * np.cos(direction))
    y = far * np.sin(angle) - np.float32(distance * np.sin(direction))
    return as_float32(x), as_float32(y)


_DRAWERS: dict[DefectKind, Callable[[Field, CameraView, Generator], Field]] = {
    DefectKind.BLOW_HOLE: _blow_hole,
    DefectKind.SHRINKAGE: _shrinkage,
    DefectKind.COLD_SHUT: _cold_shut,
    DefectKind.CHIPPING: _chipping,
    DefectKind.FLASH: _flash,
    DefectKind.SCRATCH: _scratch,
}
