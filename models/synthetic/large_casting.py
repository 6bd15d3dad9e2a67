"""Renders large pictures of castings, and small defects of a given size in millimetres.

The same casting can be shown with different defects. A picture of 5 megapixels takes about 2 s and 450 MB of memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.synthetic.casting import expose
from models.synthetic.defects import DefectKind
from models.synthetic.impeller import CameraView, Field, Generator, angle_between, as_float32, render_impeller

FIVE_MEGAPIXELS_SIDE_PX = 2236
SMALL_KINDS = (DefectKind.BLOW_HOLE, DefectKind.SCRATCH, DefectKind.CHIPPING, DefectKind.FLASH)
GRAIN_LEVELS = (2.0, 6.0)
# The metal surface has a grain: random noise, smoothed with this standard deviation. One grain is about 2 px wide.
GRAIN_SMOOTHING_PX = 1.0
DUST_PX = (7, 15)
WINDOW_LENGTHS = 6


@dataclass(frozen=True, slots=True)
class SmallDefect:
    """A small defect of a casting: its kind, its longest extent in millimetres, and where its middle is in the picture."""

    kind: DefectKind
    length_mm: float
    x_px: float
    y_px: float


@dataclass(frozen=True)
class LargeCasting:
    """A good casting in a large picture.

    - `surface`: the grey levels of the casting and the belt, without the blur and the noise of a camera. Shape: (side, side).
    - `camera_rng`: the random generator for the exposure, the blur and the noise.
    """

    view: CameraView
    surface: Field
    part_mm: float
    camera_rng: Generator

    def expose(self, kind: DefectKind | None, length_mm: float, rng: Generator) -> tuple[npt.NDArray[np.uint8], SmallDefect | None]:
        """Returns the camera's picture of the casting, with one defect of `kind`, or without a defect if `kind` is None.

        `rng` chooses the place and the look of the defect. Raises KeyError for a kind that is not in SMALL_KINDS.
        """
        camera_rng = copy.deepcopy(self.camera_rng)
        if kind is None:
            return expose(self.surface, camera_rng), None
        surface = self.surface.copy()
        defect = self._draw_defect(surface, kind, length_mm, rng)
        return expose(surface, camera_rng), defect

    def _draw_defect(self, surface: Field, kind: DefectKind, length_mm: float, rng: Generator) -> SmallDefect:
        length = length_mm / (self.part_mm / 2)
        is_at_rim = kind in (DefectKind.CHIPPING, DefectKind.FLASH)
        distance, direction = 1.0 if is_at_rim else rng.uniform(0.68, 0.96), rng.uniform(0, 2 * np.pi)
        x_px, y_px = self._find_pixel(distance, direction)
        side_px = max(24, round(WINDOW_LENGTHS * length * self.view.radius_px))
        left, top = (int(np.clip(round(middle) - side_px // 2, 0, self.view.side_px - side_px)) for middle in (x_px, y_px))
        centre_x_px, centre_y_px = self.view.centre_px
        window = replace(self.view, side_px=side_px, centre_px=(centre_x_px - left, centre_y_px - top))
        _DRAWERS[kind](surface[top : top + side_px, left : left + side_px], window, rng, _Place(distance, direction, length))
        return SmallDefect(kind, length_mm, x_px, y_px)

    def _find_pixel(self, distance: float, direction: float) -> tuple[float, float]:
        view = self.view
        x, y = distance * np.cos(direction), distance * np.sin(direction)
        cos, sin = np.cos(view.tilt), np.sin(view.tilt)
        short, long = (x * cos + y * sin) * view.squash, y * cos - x * sin
        x, y = short * cos - long * sin, short * sin + long * cos
        return float(view.centre_px[0] + x * view.radius_px), float(view.centre_px[1] - y * view.radius_px)


@dataclass(frozen=True, slots=True)
class _Place:
    """The place and the length of a small defect. `distance` and `length` are shares of the plate's radius."""

    distance: float
    direction: float
    length: float


def render_large_casting(rng: Generator, side_px: int = FIVE_MEGAPIXELS_SIDE_PX, part_mm: float = 300.0) -> LargeCasting:
    """Returns a good casting with a diameter of `part_mm`, in a picture with `side_px` rows and columns."""
    camera_rng = rng.spawn(1)[0]
    view = CameraView.draw(rng, side_px)
    surface = render_impeller(view, rng)
    distance, _ = view.plate
    grain = gaussian_filter(rng.standard_normal(surface.shape, dtype=np.float32), GRAIN_SMOOTHING_PX)
    grain *= rng.uniform(*GRAIN_LEVELS) / grain.std()
    surface += grain * view.inside(distance, 1.0)
    for _ in range(int(rng.poisson(2))):
        row, column = rng.integers(0, side_px - DUST_PX[1], 2)
        if distance[row, column] > 1.12:
            rows, columns = rng.integers(*DUST_PX, 2)
            surface[row : row + rows, column : column + columns] -= rng.uniform(15, 50)
    # `view` keeps the computed coordinates of all pixels, which take 80 MB. `replace` makes a copy without them, to save this memory.
    return LargeCasting(replace(view), as_float32(surface), part_mm, camera_rng)


def _draw_hole(window: Field, view: CameraView, rng: Generator, place: _Place) -> None:
    """Draws a pore. Its longer diameter is the length of the defect."""
    x, y = _find_coordinates(view, place)
    squash, turn = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / squash
    distance = as_float32(np.hypot(along, across))
    depth = np.clip(distance / (place.length / 2), 0, 1)
    window += view.inside(distance, place.length / 2) * (rng.uniform(10, 60) + 25 * depth - window)


def _draw_scratch(window: Field, view: CameraView, rng: Generator, place: _Place) -> None:
    """Draws a dark or bright mark. Its width is a fifth to two fifths of its length."""
    x, y = _find_coordinates(view, place)
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    half_width = rng.uniform(0.1, 0.2) * place.length * np.clip(1.2 - np.square(along / (place.length / 2)), 0, 1)
    cover = np.clip((half_width - np.abs(across)) / view.pixel + 0.5, 0, 1) * (np.abs(along) < place.length / 2)
    window += cover * ((rng.uniform(20, 75) if rng.random() < 0.7 else 250) - window)


def _draw_chip(window: Field, view: CameraView, rng: Generator, place: _Place) -> None:
    """Draws a notch in the rim. The notch has the length of the defect, and its depth is 50 % to 100 % of its length."""
    distance, angle = view.plate
    off = angle_between(angle, place.direction)
    edge = 1 - rng.uniform(0.5, 1.0) * place.length * np.clip(1 - np.square(off / (place.length / 2)), 0, 1)
    cover = np.clip((distance - edge) / view.pixel + 0.5, 0, 1) * view.inside(distance, 1.0) * (np.abs(off) < place.length / 2)
    window += cover * (rng.uniform(35, 95) - window)


def _draw_fin(window: Field, view: CameraView, rng: Generator, place: _Place) -> None:
    """Draws a fin on the rim. The fin has the length of the defect, and its height is 50 % to 100 % of its length."""
    distance, angle = view.plate
    off = angle_between(angle, place.direction)
    edge = 1 + rng.uniform(0.5, 1.0) * place.length * np.clip(1 - np.square(off / (place.length / 2)), 0, 1)
    cover = view.inside(distance, as_float32(edge)) * np.clip((distance - 0.999) / view.pixel + 0.5, 0, 1)
    window += cover * (np.abs(off) < place.length / 2) * ((rng.uniform(25, 75) if rng.random() < 0.7 else 200) - window)


def _find_coordinates(view: CameraView, place: _Place) -> tuple[Field, Field]:
    """Returns x and y of every pixel, measured from `place`. The unit is the radius of the plate."""
    distance, angle = view.plate
    x = distance * np.cos(angle) - np.float32(place.distance * np.cos(place.direction))
    y = distance * np.sin(angle) - np.float32(place.distance * np.sin(place.direction))
    return as_float32(x), as_float32(y)


_DRAWERS: dict[DefectKind, Callable[[Field, CameraView, Generator, _Place], None]] = {
    DefectKind.BLOW_HOLE: _draw_hole,
    DefectKind.SCRATCH: _draw_scratch,
    DefectKind.CHIPPING: _draw_chip,
    DefectKind.FLASH: _draw_fin,
}
