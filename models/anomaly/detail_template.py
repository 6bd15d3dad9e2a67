"""Defines the detail template, which finds defects that are too small for the networks. The networks judge a picture of about 200 px.

The detail template compares each point of a round part with the points beside it, like the golden template (`template.py`). But it uses the
picture at full size. To save memory, it compares only a few rings around the part's centre at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.anomaly.polar import PolarGrid, circle_to_ellipse
from models.anomaly.rim import refine_outline
from models.anomaly.scorer import NO_PART_SCORE, assign_groups_to_folds, load_arrays, save_arrays
from models.anomaly.template import (
    ANGLES_PER_PX,
    LIMIT_SHARE,
    LIMIT_SMOOTHING_RINGS,
    MIN_LIMIT,
    MIN_TEXTURE,
    SMOOTHING_STEPS,
    compare_places,
    measure_contrast,
    measure_texture,
)
from models.pictures.part_finder import FoundPart, find_part
from models.pictures.regions import Mask
from streams.errors import ModelError
from streams.records import DETAIL_TEMPLATE

FloatArray = npt.NDArray[np.float32]
PixelArray = npt.NDArray[np.uint8]

# Only the area between these two radii is searched for defects. The unit is the part's radius, so the rim has the radius 1. The larger
# radius lies just outside the rim, because thin fins of metal can stick out.
INNER_RADIUS, OUTER_RADIUS = 0.05, 1.03
# Each point is compared with points at these distances, along its ring and across the rings. The unit is the part's radius. Example: 0.025
# is 3.8 mm if the part has a radius of 150 mm.
ALONG_RING = (0.025, 0.05)
ACROSS_RINGS = (0.012, 0.024)
# Each point is compared with means of three points, because a mean has less noise than a single point. In the first smoothing step, these
# three points are this many points of the grid apart. In the second step, the distance is twice as large.
SPREAD = 3
STRIP_RINGS = 96
# A part has at most this many rings, because more rings take more time and memory. So the rings of a large part are wider.
MAX_RINGS = 2000
# A picture is skipped as too coarse if the part's radius in pixels is below 80 % of the radius in the good pictures.
MIN_RADIUS_SHARE = 0.8
MIN_RADIUS_PX = 200

# The number of the file format. Increase this number if the file format changes. Increase it also if the code compares the points of a part
# in another way, because the limits in older files are then wrong. Files of format 1 contain no number.
FORMAT = 3

# A residual says how much a point differs from the points beside it. Larger residuals are set to this value, because their map holds
# 16-bit floats, whose largest value is 65504.
MAX_RESIDUAL = 60_000.0

# The reason why a picture was skipped. "no-part": no part was found. "too-coarse": the part has too few pixels. "too-slow": the time limit
# was reached.
SkipReason = Literal["no-part", "too-coarse", "too-slow"]


@dataclass(frozen=True, slots=True)
class RingMeasures:
    """Measurements of one picture, on each ring around the part's centre.

    The picture is smoothed in several steps, and measured after each step.

    - `texture`, shape (steps, rings): how strongly grey levels vary on the ring.
    - `extremes`, shape (2, steps, rings): how much the most striking point of a ring differs from the points beside it. Index 0 of the
      first axis is for bright points, and index 1 is for dark points.
    - `angles`, shape (2, steps, rings): the index of the most striking point on its ring.
    """

    texture: FloatArray
    extremes: FloatArray
    angles: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class DetailScore:
    """The score of one picture. It says how much the most suspicious point of the part differs from the points beside it.

    A score above 1 is higher than the limit that was learned from good parts. A skipped picture has the score NO_PART_SCORE.
    `x_px` and `y_px` are the place of the most suspicious point in the picture.
    """

    score: float
    x_px: float = 0.0
    y_px: float = 0.0
    skipped: SkipReason | None = None


@dataclass(frozen=True)
class DetailTemplate:
    """Describes the surface of good parts at full size, to find small defects. `RingMeasures` explains the shapes.

    - `texture`, shape (steps, rings): how strongly grey levels vary on each ring of a good part.
    - `limits`, shape (2, steps, rings): how far a point of a good part may differ from the points beside it. The unit is the texture of the
      ring. Index 0 of the first axis is for bright points, and index 1 is for dark points.
    - `radius_px`: the radius of the part in the good pictures.
    - `name`: the name of the score in manifests and verdicts.
    """

    grid: PolarGrid
    texture: FloatArray
    limits: FloatArray
    radius_px: float

    name: ClassVar[str] = DETAIL_TEMPLATE

    def score(
        self,
        pixels: PixelArray,
        time_s: float,
        mask: Mask | None = None,
        find: Callable[[PixelArray], FoundPart | None] = find_part,
    ) -> DetailScore:
        """Scores a picture at full size, shape (rows, columns), grey levels 0..255. Thread-safe.

        If the comparison takes more than `time_s` seconds, it stops and the picture is skipped. Defects outside `mask` are ignored.
        """
        end_s = time.monotonic() + time_s
        part = self._find_outline(pixels, find)
        if not isinstance(part, FoundPart):
            return DetailScore(NO_PART_SCORE, skipped=part)
        measures = measure_rings(pixels, part, self.grid, end_s, mask=mask)
        if measures is None:
            return DetailScore(NO_PART_SCORE, skipped="too-slow")
        residuals = self.compare(measures)
        side, step, ring = np.unravel_index(residuals.argmax(), residuals.shape)
        x_px, y_px = self._find_point(part, int(ring), int(measures.angles[side, step, ring]))
        return DetailScore(min(float(residuals.max()), NO_PART_SCORE), x_px, y_px)

    def map_residuals(
        self, pixels: PixelArray, time_s: float, find: Callable[[PixelArray], FoundPart | None] = find_part
    ) -> npt.NDArray[np.float16] | None:
        """Returns the residual of each pixel of a picture at full size, shape (rows, columns), or None if `score` skips the picture.

        The largest residual equals the score from `score`, except for rounding. Needs more time and memory than `score`.
        """
        end_s = time.monotonic() + time_s
        part = self._find_outline(pixels, find)
        if not isinstance(part, FoundPart):
            return None
        polar = np.zeros((self.grid.rings, self.grid.angles), np.float16)
        is_complete = False
        for rings, differences in _compare_strips(pixels, part, self.grid, end_s, STRIP_RINGS):
            texture = _choose_texture(measure_texture(differences), self.texture[:, rings])
            bright, dark = 1 / (self.limits[:, :, rings] * texture)
            residuals = np.maximum(differences * bright[..., None], differences * -dark[..., None]).max(axis=0)
            polar[rings] = np.minimum(residuals, MAX_RESIDUAL)
            is_complete = rings.stop == self.grid.rings
        if not is_complete:
            return None
        rows, columns = pixels.shape
        result: npt.NDArray[np.float16] = self.grid.wrap(polar, part, rows, columns)
        # Near the centre, several points of the polar grid lie in the same pixel of `result`, and `wrap` keeps the residual of only one of
        # them. So the largest residual of the picture can be lost. The next lines write this residual into its pixel.
        ring, angle = divmod(int(polar.argmax()), self.grid.angles)
        x_px, y_px = self._find_point(part, ring, angle)
        result[min(max(round(y_px), 0), rows - 1), min(max(round(x_px), 0), columns - 1)] = polar[ring, angle]
        return result

    def _find_point(self, part: FoundPart, ring: int, angle: int) -> tuple[float, float]:
        turn = angle * (2 * np.pi / self.grid.angles)
        direction = self.grid.radii[ring] * np.array((np.cos(turn), np.sin(turn)))
        x_px, y_px = np.array((part.centre_x_px, part.centre_y_px)) + circle_to_ellipse(part) @ direction
        return float(x_px), float(y_px)

    def _find_outline(self, pixels: PixelArray, find: Callable[[PixelArray], FoundPart | None]) -> FoundPart | SkipReason:
        part = find(pixels)
        if part is None:
            return "no-part"
        if measure_radius(part) < MIN_RADIUS_SHARE * self.radius_px:
            return "too-coarse"
        return refine_outline(pixels, part)

    def compare(self, measures: RingMeasures) -> FloatArray:
        """Returns the largest residuals of bright and of dark points on each ring, shape (2, steps, rings).

        `measures` are the measurements of one picture.
        """
        residuals: FloatArray = measures.extremes / (self.limits * _choose_texture(measures.texture, self.texture))
        return residuals

    def save(self, folder: Path) -> str:
        """Writes the template into `folder`, and returns the name of the file."""
        file = f"{self.name}.npz"
        shape = np.array([self.grid.angles, self.grid.inner, self.grid.outer, self.radius_px], np.float64)
        save_arrays(folder / file, {"format": np.array(FORMAT), "shape": shape, "texture": self.texture, "limits": self.limits})
        return file

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a template that `save` wrote.

        Raises ModelError, naming the file, if the file is missing or damaged, or has another format.
        """
        arrays = load_arrays(path, ("shape", "texture", "limits"), optional=("format",))
        if not np.array_equal(arrays.get("format", 1), FORMAT):
            raise ModelError(
                f"{path} was written by another release, which compares a part with the template in another way. Make the version again "
                "with castline train --details. Until then, the version can judge without the search for small defects: set "
                "inspector.detail_time_s to 0."
            )
        shape, texture, limits = arrays["shape"], arrays["texture"], arrays["limits"]
        is_shaped = shape.shape == (4,) and texture.ndim == 2 and limits.shape == (2, *texture.shape)
        if not is_shaped or len(texture) != len(SMOOTHING_STEPS) or not 2 <= texture.shape[1] <= MAX_RINGS:
            raise ModelError(f"{path} does not hold a detail template. Copy the version again.")
        if not all((np.isfinite(array) & (array > 0)).all() for array in (shape, limits)) or not (texture >= 0).all():
            raise ModelError(f"{path} holds a detail template with impossible numbers. Copy the version again.")
        angles, inner, outer, radius_px = shape.tolist()
        grid = PolarGrid(texture.shape[1], int(angles), inner, outer)
        return cls(grid, texture.astype(np.float32), limits.astype(np.float32), radius_px)


def measure_radius(part: FoundPart) -> float:
    """Returns the mean radius of `part`, in pixels."""
    return float(np.sqrt(part.semi_major_px * part.semi_minor_px))


def choose_detail_grid(radius_px: float) -> PolarGrid:
    """Returns the polar grid for a part with this radius. Its rings are 1 px wide, or wider if a large part would need more than MAX_RINGS.

    Raises ModelError if the radius is below MIN_RADIUS_PX.
    """
    if radius_px < MIN_RADIUS_PX:
        raise ModelError(
            f"To find small defects, the part's radius must be at least {MIN_RADIUS_PX} px. In the good pictures, the radius is "
            f"{radius_px:.0f} px. Give pictures of a camera with more pixels, or leave out --details."
        )
    rings = min(MAX_RINGS, round(radius_px * (OUTER_RADIUS - INNER_RADIUS)))
    angles = 8 * round(ANGLES_PER_PX * rings / (OUTER_RADIUS - INNER_RADIUS) / 8)
    return PolarGrid(rings, angles, INNER_RADIUS, OUTER_RADIUS)


def count_overlap_rings(grid: PolarGrid) -> int:
    """Returns how many extra rings are read on each side of a strip. A strip is a group of neighbouring rings around the part's centre.

    The extra rings are needed, because points near the edge of the strip are compared with points outside the strip.
    """
    return grid.count_rings(ACROSS_RINGS)[1] + sum(SMOOTHING_STEPS) + SPREAD * max(SMOOTHING_STEPS)


def measure_rings(
    pixels: PixelArray,
    part: FoundPart,
    grid: PolarGrid,
    end_s: float = float("inf"),
    strip_rings: int = STRIP_RINGS,
    mask: Mask | None = None,
) -> RingMeasures | None:
    """Compares each point of the part with the points beside it. `part` is an outline from `refine_outline`.

    - `pixels`: shape (rows, columns).
    - `strip_rings`: number of rings that are compared at a time. A smaller number needs less memory and gives the same result.
    - `mask`: the inspected pixels, same shape. Differences outside of the mask count as 0.

    Returns None if `time.monotonic()` reaches `end_s` first.
    """
    steps = len(SMOOTHING_STEPS)
    texture = np.empty((steps, grid.rings), np.float32)
    extremes = np.empty((2, steps, grid.rings), np.float32)
    angles = np.empty((2, steps, grid.rings), np.int32)
    is_complete = False
    for rings, differences in _compare_strips(pixels, part, grid, end_s, strip_rings):
        texture[:, rings] = measure_texture(differences)
        if mask is not None:
            differences *= _cut_strip(grid, rings.start, rings.stop).look_up(mask, part)
        for side, places in enumerate((differences.argmax(axis=-1), differences.argmin(axis=-1))):
            angles[side, :, rings] = places
            extremes[side, :, rings] = np.abs(np.take_along_axis(differences, places[..., None], axis=-1)[..., 0])
        is_complete = rings.stop == grid.rings
    return RingMeasures(texture, extremes, angles) if is_complete else None


def _compare_strips(
    pixels: PixelArray, part: FoundPart, grid: PolarGrid, end_s: float, strip_rings: int
) -> Iterator[tuple[slice, FloatArray]]:
    """Divides the part into strips of `strip_rings` neighbouring rings. Yields two values for each strip.

    - A slice: the numbers of the rings in the strip.
    - An array, shape (steps, rings, angles): how much each point differs from the points beside it, after each smoothing step.

    Ends early if `time.monotonic()` reaches `end_s`.
    """
    coarse, _ = PolarGrid(max(2, grid.rings // 16), max(8, grid.angles // 16), grid.inner, grid.outer).unwrap(pixels, part)
    scale = 1 / measure_contrast(coarse)
    along, across = grid.count_angles(ALONG_RING), grid.count_rings(ACROSS_RINGS)
    margin = count_overlap_rings(grid)
    for first in range(0, grid.rings, strip_rings):
        if time.monotonic() >= end_s:
            return
        last = min(first + strip_rings, grid.rings)
        strip = _cut_strip(grid, first - margin, last + margin)
        polar, is_inside = strip.unwrap(pixels, part)
        polar *= scale
        differences = compare_places(polar, along, across, SPREAD)
        differences *= is_inside
        yield slice(first, last), differences[:, margin : margin + last - first]


def learn_detail_template(measures: Sequence[RingMeasures], grid: PolarGrid, radius_px: float) -> DetailTemplate:
    """Learns a detail template from the `measures` of pictures of good parts. All measures have the same `grid`.

    The function takes measures instead of pictures, because many large pictures would not fit into memory.
    """
    usual = np.median([measure.texture for measure in measures], axis=0)
    extremes = np.stack([measure.extremes / _choose_texture(measure.texture, usual) for measure in measures])
    limits = gaussian_filter1d(np.quantile(extremes, 1 - LIMIT_SHARE, axis=0), LIMIT_SMOOTHING_RINGS, axis=-1)
    return DetailTemplate(grid, usual.astype(np.float32), np.maximum(limits, MIN_LIMIT).astype(np.float32), radius_px)


def _choose_texture(texture: FloatArray, usual: FloatArray) -> FloatArray:
    """Returns the texture of each ring: the texture in the picture, but at least the usual texture of good parts, and at least MIN_TEXTURE.

    The differences on a ring are divided by its texture. With a smaller texture, every grain on a nearly black ring would be suspicious.
    """
    result: FloatArray = np.maximum(np.maximum(texture, usual), MIN_TEXTURE)
    return result


def cross_fit_detail_scores(
    measures: Sequence[RingMeasures], groups: npt.NDArray[np.int32], grid: PolarGrid, radius_px: float, folds: int = 5
) -> FloatArray:
    """Returns a score for each picture, shape (n,), from a template that has not learned from this picture.

    Near-duplicates have the same number in `groups`, shape (n,). Raises ModelError if there is only one group.
    """
    fold_of = assign_groups_to_folds(groups, folds)
    scores = np.zeros(len(measures), np.float32)
    for fold in np.unique(fold_of):
        others = [measure for measure, other in zip(measures, fold_of, strict=True) if other != fold]
        template = learn_detail_template(others, grid, radius_px)
        for index in np.flatnonzero(fold_of == fold).tolist():
            scores[index] = template.compare(measures[index]).max()
    return scores


def _cut_strip(grid: PolarGrid, first: int, last: int) -> PolarGrid:
    width = (grid.outer - grid.inner) / (grid.rings - 1)
    return PolarGrid(last - first, grid.angles, grid.inner + first * width, grid.inner + (last - 1) * width)
