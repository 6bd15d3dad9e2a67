"""Renders the picture of a good impeller on the belt, with its plate, groove, vanes, hub and bore."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float32]
Generator = np.random.Generator

# Radii of the impeller's parts, as shares of the plate's radius, measured on pictures of real impellers.
STEP, GROOVE, COLLAR, CAVITY, HUB, BORE = 0.655, 0.605, 0.575, 0.525, 0.27, 0.19
VANES = 7


@dataclass(frozen=True)
class CameraView:
    """The camera's view of one casting. Angles are in radians, counter-clockwise from the positive x axis.

    The plate is the large round disc of the impeller. In the picture, the plate looks like an ellipse.

    - `radius_px`: half of the plate's longer axis.
    - `squash`: the plate's shorter axis divided by its longer axis.
    - `tilt`: direction of the shorter axis.
    - `depth_px`: shift of the hub relative to the plate.
    - `light`: direction of the light.
    """

    side_px: int
    centre_px: tuple[float, float]
    radius_px: float
    squash: float
    tilt: float
    depth_px: tuple[float, float]
    light: float

    @classmethod
    def draw(cls, rng: Generator, side_px: int) -> CameraView:
        """Returns a random view of a casting. Position, size, tilt and light vary as much as in real pictures."""
        tilt = rng.uniform(0, np.pi)
        squash = 1 - 0.14 * rng.beta(1.2, 2.2)
        lift = (1 - squash) * side_px * 0.09 * rng.choice((-1, 1))
        unit = side_px / 300
        return cls(
            side_px=side_px,
            centre_px=(side_px / 2 + unit * rng.normal(0, 4), side_px / 2 + unit * rng.normal(0, 4)),
            radius_px=unit * rng.uniform(113, 130),
            squash=squash,
            tilt=tilt,
            depth_px=(lift * np.cos(tilt), lift * np.sin(tilt)),
            light=rng.uniform(0, 2 * np.pi),
        )

    @property
    def pixel(self) -> float:
        """Width of one pixel, as a share of the plate's radius. Edges are smoothed over this width."""
        return 1 / self.radius_px

    @cached_property
    def plate(self) -> tuple[Field, Field]:
        """Distance and angle of every pixel, measured from the plate's centre. The distance 1 is the radius of the plate."""
        return self.polar((0.0, 0.0))

    @cached_property
    def hub(self) -> tuple[Field, Field]:
        """Distance and angle of every pixel, measured from the hub's centre. The distance 1 is the radius of the plate."""
        return self.polar(self.depth_px)

    def polar(self, shift_px: tuple[float, float]) -> tuple[Field, Field]:
        """Returns the distance and the angle of every pixel, measured from a point that is `shift_px` away from the plate's centre.

        The distance 1 is the radius of the plate.
        """
        steps = np.arange(self.side_px, dtype=np.float32)
        x = (steps - self.centre_px[0] - shift_px[0])[None, :] / self.radius_px
        y = (self.centre_px[1] + shift_px[1] - steps)[:, None] / self.radius_px
        cos, sin = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        short, long = (x * cos + y * sin) / self.squash, y * cos - x * sin
        x, y = short * cos - long * sin, short * sin + long * cos
        return as_float32(np.hypot(x, y)), as_float32(np.arctan2(y, x))

    def inside(self, distance: Field, radius: float | Field) -> Field:
        """Returns the share of the area of each pixel, 0..1, that lies inside a circle of `radius`.

        `distance` is the distance of each pixel from the centre of the circle.
        """
        return as_float32(np.clip((radius - distance) / self.pixel + 0.5, 0, 1))

    def band(self, distance: Field, middle: float, width: float) -> Field:
        """Returns a ring with soft edges. The value of a pixel is 1 if its `distance` equals `middle`.

        The value is nearly 0 if `distance` and `middle` differ by more than 2 * `width`.
        """
        result: Field = np.exp(-np.square((distance - middle) / width, dtype=np.float32))
        return result


def render_impeller(view: CameraView, rng: Generator) -> Field:
    """Returns the grey levels, 0..255, of a good casting on the belt."""
    distance, angle = view.plate
    image = _belt(view, rng)
    image += view.inside(distance, 1.0) * (_plate(view, rng) - image)
    light = np.cos(angle - view.light)
    image += view.band(distance, STEP, 0.012) * (26 + 22 * light)
    groove = view.inside(distance, GROOVE) - view.inside(distance, COLLAR)
    image += groove * (0.55 + 0.45 * light) * (22 - image)
    collar = rng.uniform(120, 175)
    image += view.inside(distance, COLLAR) * (collar + 30 * light - image)
    hub_distance, hub_angle = view.hub
    image += view.inside(hub_distance, CAVITY) * (_cavity(view, rng) - image)
    image += view.inside(hub_distance, HUB) * (rng.uniform(150, 200) + 35 * np.cos(hub_angle - view.light) - image)
    image += view.inside(hub_distance, BORE) * (_bore(view, rng) - image)
    return as_float32(image)


def _belt(view: CameraView, rng: Generator) -> Field:
    """Returns grey levels of the light grey belt, with uneven light and the shadow of the casting."""
    slope = np.linspace(-1, 1, view.side_px, dtype=np.float32)
    image = rng.uniform(125, 205) + rng.normal(0, 11) * slope[None, :] + rng.normal(0, 11) * slope[:, None]
    image = image + 7 * clouds(rng, view.side_px, 3)
    reach = view.radius_px * rng.uniform(0.01, 0.05)
    shadow_distance, _ = view.polar((-reach * np.cos(view.light), -reach * np.sin(view.light)))
    dark = rng.uniform(0.3, 0.65) * np.exp(-np.clip(shadow_distance - 1, 0, None) / rng.uniform(0.03, 0.1))
    return as_float32(image * (1 - dark))


def _plate(view: CameraView, rng: Generator) -> Field:
    """Returns grey levels of the plate. The plate has rings and streaks from the lathe, and bright and dark sectors."""
    distance, angle = view.plate
    image = np.full_like(distance, rng.uniform(140, 190))
    first = view.light + rng.normal(0, 0.5)
    for fan in range(int(rng.integers(2, 5))):
        towards = first + fan * np.pi if fan < 2 else rng.uniform(0, 2 * np.pi)
        width = rng.uniform(2, 14) if fan < 2 else rng.uniform(8, 60)
        image += rng.uniform(15, 55) * (1 if fan < 2 else rng.choice((-0.5, 0.5))) * np.exp(width * (np.cos(angle - towards) - 1))
    image += rng.uniform(1.0, 3.0) * noise_along(rng, distance, 420) + rng.uniform(1, 4) * noise_along(rng, distance, 420, smooth=30)
    image += rng.uniform(0.5, 3.0) * noise_along(rng, as_turns(angle), 900, smooth=6) * np.clip(distance, 0, 1)
    image += rng.uniform(2, 7) * clouds(rng, view.side_px, 6) + rng.uniform(0, 4) * clouds(rng, view.side_px, 24)
    image += view.band(distance, 0.982, 0.009) * 38 * np.cos(angle - view.light)
    image -= view.band(distance, 1.0, 0.011) * rng.uniform(30, 90)
    return as_float32(image)


def _cavity(view: CameraView, rng: Generator) -> Field:
    distance, angle = view.hub
    phase = VANES * (angle + 1.9 * distance) + rng.uniform(0, 2 * np.pi)
    vane = np.exp(-np.square((1 - np.cos(phase)) / 0.22)) * np.clip((distance - HUB) * 12, 0, 1)
    shade = np.exp(-np.square((1 - np.cos(phase + 0.5)) / 0.3)) * 12
    lit = 0.5 + 0.5 * np.cos(angle - view.light)
    image = rng.uniform(18, 42) + rng.uniform(15, 50) * vane * lit - shade + 4 * clouds(rng, view.side_px, 16)
    return as_float32(np.clip(image, 4, None))


def _bore(view: CameraView, rng: Generator) -> Field:
    distance, angle = view.hub
    across = distance / BORE * np.cos(angle - view.light)
    wall = np.clip((distance / BORE - 0.82) * 5, 0, 1)
    return as_float32(rng.uniform(105, 165) - 32 * across - rng.uniform(20, 60) * wall)


def as_float32(values: npt.NDArray[Any]) -> Field:
    """Returns `values` as float32. This is needed because float32 arrays become float64 if a float64 number is added to them."""
    return values.astype(np.float32, copy=False)


def clouds(rng: Generator, side_px: int, cells: int) -> Field:
    """Returns smooth random noise, mostly within -1..1. More `cells` give finer noise."""
    coarse = rng.normal(0, 0.5, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC))


def noise_along(rng: Generator, values: Field, cells: int, smooth: int = 1) -> Field:
    """Returns noise of standard deviation 1. Pixels with the same value in `values`, 0..1, have the same noise.

    If `values` are distances from a centre, the noise forms rings. If `values` are angles, the noise forms streaks from the centre.
    """
    table = rng.normal(0, 1, cells + smooth).astype(np.float32)
    table = np.convolve(table, np.ones(smooth, np.float32) / np.sqrt(smooth), "valid")[:cells].astype(np.float32)
    result: Field = table[np.clip((values * cells).astype(np.int32), 0, cells - 1)]
    return result


def as_turns(angle: Field) -> Field:
    """Returns angles as shares of a full turn, 0..1."""
    return angle / np.float32(2 * np.pi) + np.float32(0.5)


def angle_between(angle: Field, direction: float) -> Field:
    """Returns the smallest signed angle from `direction` to each `angle`, -pi..pi."""
    full = np.float32(2 * np.pi)
    result: Field = (angle - np.float32(direction) + full / 2) % full - full / 2
    return result
