"""Where the impeller lies in the picture and where the light comes from: polar coordinates that all the drawing is done in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float32]  # one value for each pixel
Generator = np.random.Generator


@dataclass(frozen=True)
class View:
    """One camera's look at one part. Lengths in pixels, angles in radians, counter-clockwise from the right."""

    side_px: int
    centre_px: tuple[float, float]
    radius_px: float  # of the plate, along its longer axis
    squash: float  # shorter axis over longer axis: the camera does not look straight down
    tilt: float  # direction of the shorter axis
    depth_px: tuple[float, float]  # by how much the hub, nearer to the camera, appears moved
    light: float  # direction that the light comes from

    @classmethod
    def drawn(cls, rng: Generator, side_px: int) -> View:
        """A view as they occur in real pictures."""
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
        """One pixel in plate radii: over this width an edge goes from one side to the other."""
        return 1 / self.radius_px

    @cached_property
    def plate(self) -> tuple[Field, Field]:
        """Distance from the centre in plate radii, and angle, of every pixel."""
        return self.polar((0.0, 0.0))

    @cached_property
    def hub(self) -> tuple[Field, Field]:
        """The same for the parts nearer to the camera."""
        return self.polar(self.depth_px)

    def polar(self, moved_px: tuple[float, float]) -> tuple[Field, Field]:
        """Polar coordinates about the centre moved by `moved_px`."""
        steps = np.arange(self.side_px, dtype=np.float32)
        x = (steps - self.centre_px[0] - moved_px[0])[None, :] / self.radius_px
        y = (self.centre_px[1] + moved_px[1] - steps)[:, None] / self.radius_px
        cos, sin = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        short, long = (x * cos + y * sin) / self.squash, y * cos - x * sin
        x, y = short * cos - long * sin, short * sin + long * cos
        return grey(np.hypot(x, y)), grey(np.arctan2(y, x))

    def inside(self, distance: Field, radius: float | Field) -> Field:
        """How much of each pixel lies within `radius`, 0..1."""
        return grey(np.clip((radius - distance) / self.pixel + 0.5, 0, 1))

    def band(self, distance: Field, middle: float, width: float) -> Field:
        """A soft ring, 1 in its middle."""
        result: Field = np.exp(-np.square((distance - middle) / width, dtype=np.float32))
        return result


def grey(values: npt.NDArray[Any]) -> Field:
    """`values` in single precision: numpy widens wherever a number of its own takes part."""
    return values.astype(np.float32, copy=False)


def clouds(rng: Generator, side_px: int, cells: int) -> Field:
    """Smooth noise from about -1 to 1, `cells` ups and downs along a side."""
    coarse = rng.normal(0, 0.5, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC))


def along(rng: Generator, values: Field, cells: int, smooth: int = 1) -> Field:
    """Noise of deviation 1 that depends on `values` (0..1) alone: turning lines along the radius, streaks along the angle."""
    table = rng.normal(0, 1, cells + smooth).astype(np.float32)
    table = np.convolve(table, np.ones(smooth, np.float32) / np.sqrt(smooth), "valid")[:cells].astype(np.float32)
    result: Field = table[np.clip((values * cells).astype(np.int32), 0, cells - 1)]
    return result


def turned(angle: Field) -> Field:
    """Angles as fractions of a turn, 0..1."""
    return angle / np.float32(2 * np.pi) + np.float32(0.5)


def apart(angle: Field, direction: float) -> Field:
    """Smallest difference to `direction`, -pi..pi."""
    full = np.float32(2 * np.pi)
    result: Field = (angle - np.float32(direction) + full / 2) % full - full / 2
    return result
