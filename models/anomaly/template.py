"""The golden template compares each place on a round part with its neighbours. Differences that are larger than on good parts are reported.

Sources: Xie, Guan, IAPR Workshop on Machine Vision Applications, 2000 (golden template);
Starck, Murtagh, Astronomical Image and Data Analysis, 2006 (wavelet).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.anomaly.polar import PolarGrid
from models.anomaly.scorer import PartFinder, ResidualScorer, find_good_parts, load_arrays, save_arrays
from models.pictures.part_finder import FoundPart, find_part
from streams.errors import ModelError

FloatArray = npt.NDArray[np.float32]
PixelArray = npt.NDArray[np.uint8]

# Only the area between these two radii is searched for defects. The unit is the part's radius, so the rim has the radius 1. The larger
# radius lies outside the rim, because thin fins of metal can stick out.
INNER_RADIUS, OUTER_RADIUS = 0.05, 1.12
# The number of points on a ring is this value times the part's radius in pixels. Example: a part with a radius of 50 px has 192 points on
# each ring. So points at the rim are about 1.6 px apart.
ANGLES_PER_PX = 3.84
# The points lie on rings around the part's centre. Each point is compared with other points at these distances: on the same ring, and on
# rings inside and outside. The unit is the part's radius.
ALONG_RING = (0.13, 0.26)
ACROSS_RINGS = (0.03, 0.06)
# The grey levels are smoothed twice (a trous wavelet). First, each point of the grid is averaged with its direct neighbours. Then each
# point is averaged with the points at a distance of 2 points.
SMOOTHING_STEPS = (1, 2)
# 5 % of the good parts are allowed to exceed the limit of a ring. So one defective part among the good parts does not raise the limit.
LIMIT_SHARE = 0.05
# Each ring around the part's centre has a limit. If the limits come from few pictures, neighbouring rings can have very different limits.
# So a Gaussian with a standard deviation of 2 rings smooths the limits.
LIMIT_SMOOTHING_RINGS = 2.0
# The texture of a ring says how much the points on this ring usually differ. Even on a good ring, a few points differ by about 3 times the
# texture. So the limit of a ring is at least this many times the texture.
MIN_LIMIT = 3.0
# A very smooth ring has nearly no texture, so dust on this ring would count as a defect. Therefore, this share of the usual texture of
# good parts is added to the texture of each ring.
USUAL_TEXTURE_SHARE = 0.5
# The smallest texture of a ring, as a share of the part's contrast. Differences are divided by the texture, so the texture must not be 0,
# even on a ring that is overexposed in every picture.
MIN_TEXTURE = 4e-4
# The smallest contrast of a part, in grey levels. Without this minimum, the noise of a nearly black picture would be amplified.
MIN_CONTRAST = 40.0


@dataclass(frozen=True)
class GoldenTemplate(ResidualScorer):
    """Describes the surface of good parts, ring by ring. Implements `GoodOnlyScorer`.

    The picture is smoothed in several steps, and described after each step.

    - `texture`, shape (steps, rings): how strongly grey levels vary on each ring of a good part.
    - `limits`, shape (2, steps, rings): how far a point of a good part may differ from the points beside it. The unit is the texture of the
      ring. Index 0 of the first axis is for bright points, and index 1 is for dark points.
    """

    grid: PolarGrid
    texture: FloatArray
    limits: FloatArray
    side_px: int
    find: PartFinder = find_part

    name: ClassVar[str] = "golden-template"

    def compare(self, picture: PixelArray, part: FoundPart) -> FloatArray:
        """Returns how much each point of the part differs from its surroundings, shape (rings, angles).

        A value above 1 exceeds the limit. `part` is the outline that was found in `picture`.
        """
        differences = _compare_with_neighbours(picture, part, self.grid)
        texture = _add_usual_texture(measure_texture(differences), self.texture)
        bright, dark = 1 / (self.limits * texture)
        residuals = np.maximum(differences * bright[..., None], differences * -dark[..., None])
        largest: FloatArray = residuals.max(axis=0)
        return largest

    def place(self, residuals: FloatArray, part: FoundPart) -> FloatArray:
        """Returns `residuals`, which `compare` computed, as a map of the picture, shape (side_px, side_px)."""
        return self.grid.wrap(residuals, part, self.side_px, self.side_px)

    def save(self, folder: Path) -> tuple[str, ...]:
        """Writes the template into `folder`, and returns the names of the files."""
        file = f"{self.name}.npz"
        shape = np.array([self.side_px, self.grid.angles, self.grid.inner, self.grid.outer], np.float64)
        save_arrays(folder / file, {"shape": shape, "texture": self.texture, "limits": self.limits})
        return (file,)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a template that `save` wrote. Raises ModelError, naming the file, if the file is missing or damaged."""
        path = folder / f"{cls.name}.npz"
        arrays = load_arrays(path, ("shape", "texture", "limits"))
        shape, texture, limits = arrays["shape"], arrays["texture"], arrays["limits"]
        is_shaped = (
            shape.shape == (4,) and texture.ndim == 2 and limits.shape == (2, *texture.shape) and len(texture) == len(SMOOTHING_STEPS)
        )
        if not is_shaped or not all((np.isfinite(array) & (array > 0)).all() for array in (shape, limits)) or not (texture >= 0).all():
            raise ModelError(f"{path} does not hold a golden template. Copy the version again.")
        side_px, angles, inner, outer = shape.tolist()
        grid = PolarGrid(texture.shape[1], int(angles), inner, outer)
        return cls(grid, texture.astype(np.float32), limits.astype(np.float32), int(side_px))


def learn_golden_template(pixels: PixelArray, find: PartFinder = find_part) -> GoldenTemplate:
    """Learns a golden template from pictures of good parts, shape (n, side_px, side_px), grey levels 0..255.

    Raises ModelError if there are no pictures, or if many of them show no part.
    """
    found = find_good_parts(pixels, find)
    parts = [part for _, part in found]
    radius_px = float(np.median([np.sqrt(part.semi_major_px * part.semi_minor_px) for part in parts]))
    rings = max(16, round(radius_px * (OUTER_RADIUS - INNER_RADIUS)))
    grid = PolarGrid(rings, 8 * max(8, round(ANGLES_PER_PX * radius_px / 8)), INNER_RADIUS, OUTER_RADIUS)
    textures, brightest, darkest = [], [], []
    for picture, part in found:
        differences = _compare_with_neighbours(picture, part, grid)
        textures.append(measure_texture(differences))
        brightest.append(differences.max(axis=-1))
        darkest.append(-differences.min(axis=-1))
    usual = np.median(textures, axis=0)
    extremes = np.stack((brightest, darkest)) / _add_usual_texture(np.stack(textures), usual)
    limits = gaussian_filter1d(np.quantile(extremes, 1 - LIMIT_SHARE, axis=1), LIMIT_SMOOTHING_RINGS, axis=-1)
    return GoldenTemplate(grid, usual.astype(np.float32), np.maximum(limits, MIN_LIMIT).astype(np.float32), pixels.shape[1], find)


def _add_usual_texture(texture: FloatArray, usual: FloatArray) -> FloatArray:
    result: FloatArray = np.maximum(texture + USUAL_TEXTURE_SHARE * usual, MIN_TEXTURE)
    return result


def _compare_with_neighbours(picture: PixelArray, part: FoundPart, grid: PolarGrid) -> FloatArray:
    polar, is_inside = grid.unwrap(picture, part)
    polar *= 1 / measure_contrast(polar[::3, ::7])
    result = compare_places(polar, grid.count_angles(ALONG_RING), grid.count_rings(ACROSS_RINGS))
    result *= is_inside
    return result


def measure_contrast(polar: FloatArray) -> np.float32:
    """Returns the contrast of a part in grey levels: the difference between bright and dark points, at least MIN_CONTRAST.

    `polar` holds the grey levels of the part, or a sample of them.
    """
    low, high = np.percentile(polar, (5, 95))
    return np.float32(max(high - low, MIN_CONTRAST))


def compare_places(polar: FloatArray, along: tuple[int, int], across: tuple[int, int], spread: int = 0) -> FloatArray:
    """Returns how much each point of `polar`, shape (rings, angles), differs from the points beside it.

    The result has shape (steps, rings, angles), with the differences after each of SMOOTHING_STEPS.

    - `along`: two distances in angles, the smaller one first. Each point is compared with the points at these distances on its ring.
    - `across`: two distances in rings, the smaller one first. Each point is compared with the points at these distances on other rings.
    - `spread`: 0 means that each point is compared with single points. With a larger number, each point is compared with means of three
      points, because means have less noise. A larger number puts these three points farther apart.
    """
    result = np.empty((len(SMOOTHING_STEPS), *polar.shape), np.float32)
    for index, step in enumerate(SMOOTHING_STEPS):
        polar = _smooth(polar, step)
        columns = _pad_angles(_average_angles(polar, min(spread * step, along[0] // 2)), along[1])
        beside = polar - _middle_of_four(*(_view_angles(columns, along[1], shift) for shift in (-along[1], -along[0], along[0], along[1])))
        rows = _pad_rings(_average_rings(beside, min(spread * step, across[0] // 2)), across[1])
        middle = _middle_of_four(*(_view_rings(rows, across[1], shift) for shift in (-across[1], -across[0], across[0], across[1])))
        np.subtract(beside, middle, out=result[index])
    return result


def _average_angles(polar: FloatArray, distance: int) -> FloatArray:
    """Returns for each point the mean of three points: this point, and the two points on its ring that are `distance` angles away."""
    if not distance:
        return polar
    columns = _pad_angles(polar, distance)
    mean = polar + _view_angles(columns, distance, -distance)
    mean += _view_angles(columns, distance, distance)
    mean *= 1 / 3
    return mean


def _average_rings(polar: FloatArray, distance: int) -> FloatArray:
    """Returns for each point the mean of three points: this point, and the points that are `distance` rings further in and out."""
    if not distance:
        return polar
    rows = _pad_rings(polar, distance)
    mean = polar + _view_rings(rows, distance, -distance)
    mean += _view_rings(rows, distance, distance)
    mean *= 1 / 3
    return mean


def _smooth(polar: FloatArray, step: int) -> FloatArray:
    columns = _pad_angles(polar, step)
    smooth = polar * 2
    smooth += _view_angles(columns, step, -step)
    smooth += _view_angles(columns, step, step)
    rows = _pad_rings(smooth, step)
    smooth *= 2
    smooth += _view_rings(rows, step, -step)
    smooth += _view_rings(rows, step, step)
    smooth *= 1 / 16
    return smooth


def _pad_angles(polar: FloatArray, margin: int) -> FloatArray:
    """Adds `margin` columns on each side, copied from the opposite side, because a ring has no end."""
    return np.concatenate((polar[:, -margin:], polar, polar[:, :margin]), axis=1)


def _view_angles(padded: FloatArray, margin: int, shift: int) -> FloatArray:
    return padded[:, margin + shift : padded.shape[1] - margin + shift]


def _pad_rings(polar: FloatArray, margin: int) -> FloatArray:
    """Adds `margin` rings inside the innermost ring and outside the outermost ring. The added rings are mirrored copies."""
    return np.concatenate((polar[margin:0:-1], polar, polar[-2 : -margin - 2 : -1]), axis=0)


def _view_rings(padded: FloatArray, margin: int, shift: int) -> FloatArray:
    return padded[margin + shift : len(padded) - margin + shift]


def _middle_of_four(first: FloatArray, second: FloatArray, third: FloatArray, fourth: FloatArray) -> FloatArray:
    """Returns the median of four arrays, element by element. One extreme value hardly changes the median."""
    low, other = np.minimum(first, second), np.minimum(third, fourth)
    np.maximum(low, other, out=low)
    high = np.maximum(first, second)
    np.maximum(third, fourth, out=other)
    np.minimum(high, other, out=high)
    low += high
    low *= 0.5
    return low


def measure_texture(differences: FloatArray) -> FloatArray:
    """Returns how strongly `differences` vary on each ring around the centre of the part, after each smoothing step. Shape (steps, rings).

    The texture is 1.48 times the median of the absolute differences. A small defect hardly changes a median.
    """
    texture: FloatArray = np.float32(1.4826) * np.median(np.abs(differences[..., ::4]), axis=-1)
    return texture
