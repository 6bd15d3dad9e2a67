"""What goes wrong in casting, drawn on a good one: each kind changes the grey levels and says which pixels it changed.

Sizes are in plate radii; the smallest are at the limit of what a person sees in a picture of 300 px.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from models.synthetic.view import Field, Generator, View, along, apart, clouds, grey, turned

VISIBLE = 0.3  # a pixel belongs to the mask when this much of it is covered


class Kind(IntEnum):
    """Kinds of defect; the number is the value of its pixels in a mask, 0 is sound metal or ground."""

    BLOW_HOLE = 1  # a gas bubble that broke the surface
    SHRINKAGE = 2  # a cavity torn open while the metal shrank: ragged, in a cluster
    COLD_SHUT = 3  # a seam where two streams of metal met too cold to weld
    CHIPPING = 4  # a piece broken out of the rim
    FLASH = 5  # fins of metal that ran between the halves of the mould
    SCRATCH = 6  # a straight mark of handling

    @property
    def word(self) -> str:
        """As people write it: "blow hole"."""
        return self.name.lower().replace("_", " ")


def draw(kind: Kind, image: Field, view: View, rng: Generator) -> Field:
    """Draws one defect of `kind` into `image`, in place; returns how much of each pixel it covers, 0..1."""
    return _DRAWERS[kind](image, view, rng)


def _blow_hole(image: Field, view: View, rng: Generator) -> Field:
    x, y = _around(view, rng.uniform(0.68, 0.94), rng.uniform(0, 2 * np.pi))
    radius, squash, turn = rng.uniform(0.02, 0.045), rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / squash
    distance = np.hypot(u, v).astype(np.float32)
    cover = view.inside(distance, radius)
    lip = view.band(distance, radius * 1.25, radius * 0.4) * (1 - cover) * np.cos(np.arctan2(y, x) - view.light - np.pi)
    image += 45 * np.clip(lip, 0, None)
    image += cover * (rng.uniform(10, 60) + 25 * np.clip(distance / radius, 0, 1) - image)
    return cover


def _shrinkage(image: Field, view: View, rng: Generator) -> Field:
    x, y = _around(view, rng.uniform(0.68, 0.96), rng.uniform(0, 2 * np.pi))
    reach = rng.uniform(0.045, 0.11)
    ragged = clouds(rng, view.side_px, int(rng.integers(45, 75)))
    depth = 1 - np.hypot(x, y) / reach + 0.75 * ragged
    cover = np.clip((depth - 0.55) * 4, 0, 1) * (np.hypot(x, y) < 1.3 * reach)
    cover = np.maximum(cover, view.inside(np.hypot(x, y).astype(np.float32), 0.02))  # never nothing at all
    image += cover * (rng.uniform(20, 65) + 20 * ragged - image)
    return grey(cover)


def _cold_shut(image: Field, view: View, rng: Generator) -> Field:
    middle, direction = rng.uniform(0.7, 0.93), rng.uniform(0, 2 * np.pi)
    distance, angle = view.plate
    off = apart(angle, direction)
    half = rng.uniform(0.1, 0.32)
    bend = rng.uniform(-0.35, 0.35) * off + 0.02 * np.sin(off * rng.uniform(15, 40) + rng.uniform(0, 6))
    width = rng.uniform(0.008, 0.016) * np.clip(1.15 - np.square(off / half), 0, 1)
    ends = np.abs(off) < half
    cover = np.clip((width - np.abs(distance - middle - bend)) / view.pixel + 0.5, 0, 1) * ends * (width > 0)
    image += np.clip(1 - np.abs(distance - middle - bend - 0.02) / 0.014, 0, 1) * ends * rng.uniform(5, 25)
    image += rng.uniform(0.7, 0.95) * cover * (rng.uniform(25, 70) - image)
    return grey(cover)


def _chipping(image: Field, view: View, rng: Generator) -> Field:
    distance, angle = view.plate
    off = apart(angle, rng.uniform(0, 2 * np.pi))
    half, deep = rng.uniform(0.05, 0.22), rng.uniform(0.035, 0.11)
    rough = 1 + 0.35 * along(rng, turned(angle), 260, smooth=3)
    edge = 1.005 - deep * np.clip(1 - np.square(off / half), 0, 1) * np.clip(rough, 0.4, 1.6)
    cover = np.clip((distance - edge) / view.pixel + 0.5, 0, 1) * view.inside(distance, 1.004) * (np.abs(off) < half)
    broken = rng.uniform(35, 95) + 22 * clouds(rng, view.side_px, 70)
    image += cover * (broken - image)
    return grey(cover)


def _flash(image: Field, view: View, rng: Generator) -> Field:
    distance, angle = view.plate
    height = np.zeros_like(distance)
    for _ in range(int(rng.integers(3, 11))):  # on real ones it often goes round half the rim
        off, half = apart(angle, rng.uniform(0, 2 * np.pi)), rng.uniform(0.1, 0.5)
        height = np.maximum(height, rng.uniform(0.03, 0.1) * np.clip(1 - np.square(off / half), 0, 1))
    jagged = np.clip(1 + 0.45 * along(rng, turned(angle), 220, smooth=3) + 0.35 * along(rng, turned(angle), 60), 0.15, 1.8)
    cover = np.clip((1 + height * jagged - distance) / view.pixel + 0.5, 0, 1) * (distance > 0.99) * (height > 0.008)
    glint = along(rng, turned(angle), 150)
    fin = rng.uniform(25, 75) + 35 * clouds(rng, view.side_px, 60) + 70 * (glint > 1.2)
    image += cover * (fin - image)
    return grey(cover)


def _scratch(image: Field, view: View, rng: Generator) -> Field:
    x, y = _around(view, rng.uniform(0.74, 0.9), rng.uniform(0, 2 * np.pi))
    turn, half = rng.uniform(0, np.pi), rng.uniform(0.07, 0.19)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    width = rng.uniform(0.006, 0.011) * np.clip(1.2 - np.square(u / half), 0, 1)
    away = np.abs(v + rng.uniform(-0.5, 0.5) * np.square(u))
    within = (view.plate[0] < 0.985) & (view.plate[0] > 0.66)
    cover = np.clip((width - away) / view.pixel + 0.5, 0, 1) * (np.abs(u) < half) * within
    image += cover * ((rng.uniform(20, 75) if rng.random() < 0.7 else 250) - image)
    return grey(cover)


def _around(view: View, distance: float, direction: float) -> tuple[Field, Field]:
    """Coordinates on the plate, in plate radii, about the point at `distance` and `direction` from its centre."""
    far, angle = view.plate
    x = far * np.cos(angle) - np.float32(distance * np.cos(direction))
    y = far * np.sin(angle) - np.float32(distance * np.sin(direction))
    return grey(x), grey(y)


_DRAWERS: dict[Kind, Callable[[Field, View, Generator], Field]] = {
    Kind.BLOW_HOLE: _blow_hole,
    Kind.SHRINKAGE: _shrinkage,
    Kind.COLD_SHUT: _cold_shut,
    Kind.CHIPPING: _chipping,
    Kind.FLASH: _flash,
    Kind.SCRATCH: _scratch,
}
