"""A good impeller on its ground: plate, groove, vanes, hub and bore, as grey levels before the camera adds its own."""

from __future__ import annotations

import numpy as np

from models.synthetic.view import Field, Generator, View, along, clouds, grey, turned

# Radii in plate radii, measured on pictures of real impellers
STEP, GROOVE, COLLAR, CAVITY, HUB, BORE = 0.655, 0.605, 0.575, 0.525, 0.27, 0.19
VANES = 7


def surface(view: View, rng: Generator) -> Field:
    """Grey levels 0..255 of a casting without a fault."""
    distance, angle = view.plate
    image = _ground(view, rng)
    image += view.inside(distance, 1.0) * (_plate(view, rng) - image)
    light = np.cos(angle - view.light)
    image += view.band(distance, STEP, 0.012) * (26 + 22 * light)
    groove = view.inside(distance, GROOVE) - view.inside(distance, COLLAR)
    image += groove * (0.55 + 0.45 * light) * (22 - image)
    collar = rng.uniform(120, 175)
    image += view.inside(distance, COLLAR) * (collar + 30 * light - image)
    near, _ = view.hub
    image += view.inside(near, CAVITY) * (_cavity(view, rng) - image)
    image += view.inside(near, HUB) * (rng.uniform(150, 200) + 35 * np.cos(view.hub[1] - view.light) - image)
    image += view.inside(near, BORE) * (_bore(view, rng) - image)
    return grey(image)


def _ground(view: View, rng: Generator) -> Field:
    """The belt: light grey, unevenly lit, the part's shadow on it."""
    slope = np.linspace(-1, 1, view.side_px, dtype=np.float32)
    image = rng.uniform(125, 205) + rng.normal(0, 11) * slope[None, :] + rng.normal(0, 11) * slope[:, None]
    image = image + 7 * clouds(rng, view.side_px, 3)
    reach = view.radius_px * rng.uniform(0.01, 0.05)
    fallen, _ = view.polar((-reach * np.cos(view.light), -reach * np.sin(view.light)))
    dark = rng.uniform(0.3, 0.65) * np.exp(-np.clip(fallen - 1, 0, None) / rng.uniform(0.03, 0.1))
    return grey(image * (1 - dark))


def _plate(view: View, rng: Generator) -> Field:
    """Turned metal: bright fans where the turning lines face the light, rings, streaks, a bevelled rim."""
    distance, angle = view.plate
    image = np.full_like(distance, rng.uniform(140, 190))
    first = view.light + rng.normal(0, 0.5)
    for fan in range(int(rng.integers(2, 5))):
        towards = first + fan * np.pi if fan < 2 else rng.uniform(0, 2 * np.pi)
        width = rng.uniform(2, 14) if fan < 2 else rng.uniform(8, 60)
        image += rng.uniform(15, 55) * (1 if fan < 2 else rng.choice((-0.5, 0.5))) * np.exp(width * (np.cos(angle - towards) - 1))
    image += rng.uniform(1.0, 3.0) * along(rng, distance, 420) + rng.uniform(1, 4) * along(rng, distance, 420, smooth=30)
    image += rng.uniform(0.5, 3.0) * along(rng, turned(angle), 900, smooth=6) * np.clip(distance, 0, 1)
    image += rng.uniform(2, 7) * clouds(rng, view.side_px, 6) + rng.uniform(0, 4) * clouds(rng, view.side_px, 24)
    image += view.band(distance, 0.982, 0.009) * 38 * np.cos(angle - view.light)
    image -= view.band(distance, 1.0, 0.011) * rng.uniform(30, 90)
    return grey(image)


def _cavity(view: View, rng: Generator) -> Field:
    """The dark inside with its vanes, which bend against the turn."""
    distance, angle = view.hub
    phase = VANES * (angle + 1.9 * distance) + rng.uniform(0, 2 * np.pi)
    vane = np.exp(-np.square((1 - np.cos(phase)) / 0.22)) * np.clip((distance - HUB) * 12, 0, 1)
    shade = np.exp(-np.square((1 - np.cos(phase + 0.5)) / 0.3)) * 12
    lit = 0.5 + 0.5 * np.cos(angle - view.light)
    image = rng.uniform(18, 42) + rng.uniform(15, 50) * vane * lit - shade + 4 * clouds(rng, view.side_px, 16)
    return grey(np.clip(image, 4, None))


def _bore(view: View, rng: Generator) -> Field:
    """The ground seen through the bore, its wall shading one side."""
    distance, angle = view.hub
    across = distance / BORE * np.cos(angle - view.light)
    wall = np.clip((distance / BORE - 0.82) * 5, 0, 1)
    return grey(rng.uniform(105, 165) - 32 * across - rng.uniform(20, 60) * wall)
