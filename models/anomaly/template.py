"""The golden template: compares each place of a round part with the places beside it. The limits come from good parts.

Sources: Xie, Guan, IAPR Workshop on Machine Vision Applications, 2000; Starck, Murtagh, Astronomical Image and Data Analysis, 2006.
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

# The rings reach from near the centre to beyond the rim, where flash sticks out. Radii are shares of the part's radius.
INNER_RADIUS, OUTER_RADIUS = 0.05, 1.12
# Number of places on a ring, divided by the part's radius in pixels. A place near the rim is about 1.6 pixels wide.
ANGLES_PER_PX = 3.84
# A place is compared with other places at these distances. The distances are shares of the part's radius.
ALONG_RING = (0.13, 0.26)
ACROSS_RINGS = (0.03, 0.06)
# The grey levels are smoothed over 3 places that are 1 apart, then over 3 places that are 2 apart (a trous wavelet).
SMOOTHING_STEPS = (1, 2)
# This share of the good parts exceeds the limit of a ring, so that one defective picture among them does not raise the limit.
LIMIT_SHARE = 0.05
# The limits of neighbouring rings are smoothed with this standard deviation, in rings, because few pictures give uneven limits.
LIMIT_SMOOTHING_RINGS = 2.0
# A limit is at least this many times the ring's texture. Even without a defect, the largest of hundreds of differences is about 3 times the
# texture.
MIN_LIMIT = 3.0
# This share of the usual texture is added to the measured texture. Otherwise dust on a very smooth ring would count as a defect.
USUAL_TEXTURE_SHARE = 0.5
# The contrast of a part counts as at least this many grey levels, so that the noise of a nearly black picture is not amplified.
MIN_CONTRAST = 40.0


@dataclass(frozen=True)
class GoldenTemplate(ResidualScorer):
    """The golden template of a part. It implements `GoodOnlyScorer`.

    - `texture`, shape (steps, rings): the usual spread of the differences.
    - `limits`, shape (2, steps, rings): the largest bright and dark difference of good parts, in units of the texture.
    """

    grid: PolarGrid
    texture: FloatArray
    limits: FloatArray
    side_px: int
    find: PartFinder = find_part

    name: ClassVar[str] = "golden-template"

    def compare(self, picture: PixelArray, part: FoundPart) -> FloatArray:
        """Returns the residual of each place of `part`, in polar coordinates, shape (rings, angles).

        `part` is the outline that was found in `picture`.
        """
        differences = _compare_with_neighbours(picture, part, self.grid)
        texture = measure_texture(differences) + USUAL_TEXTURE_SHARE * self.texture
        bright, dark = 1 / (self.limits * texture)
        # A bright place has a positive difference, a dark one a negative difference.
        residuals = np.maximum(differences * bright[..., None], differences * -dark[..., None])
        largest: FloatArray = residuals.max(axis=0)
        return largest

    def place(self, residuals: FloatArray, part: FoundPart) -> FloatArray:
        """Returns the residuals of `compare` as a map of the picture, shape (side_px, side_px)."""
        return self.grid.wrap(residuals, part, self.side_px)

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

    Raises ModelError if there are no pictures, or if no part is found in many of them.
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
    scale = np.stack(textures) + USUAL_TEXTURE_SHARE * usual
    extremes = np.stack((brightest, darkest)) / scale
    limits = gaussian_filter1d(np.quantile(extremes, 1 - LIMIT_SHARE, axis=1), LIMIT_SMOOTHING_RINGS, axis=-1)
    return GoldenTemplate(grid, usual.astype(np.float32), np.maximum(limits, MIN_LIMIT).astype(np.float32), pixels.shape[1], find)


def _compare_with_neighbours(picture: PixelArray, part: FoundPart, grid: PolarGrid) -> FloatArray:
    """Returns how much each place differs from the places beside it, shape (steps, rings, angles), in units of the part's contrast."""
    polar, is_inside = grid.unwrap(picture, part)
    polar *= 1 / measure_contrast(polar[::3, ::7])
    result = compare_places(polar, grid.count_angles(ALONG_RING), grid.count_rings(ACROSS_RINGS))
    result *= is_inside
    return result


def measure_contrast(polar: FloatArray) -> np.float32:
    """Returns the contrast of a part, in grey levels: the distance between dark and bright places, but at least MIN_CONTRAST.

    `polar` holds grey levels of the part in polar coordinates. A sample of the places is enough.
    """
    low, high = np.percentile(polar, (5, 95))
    return np.float32(max(high - low, MIN_CONTRAST))


def compare_places(polar: FloatArray, along: tuple[int, int], across: tuple[int, int]) -> FloatArray:
    """Returns how much each place of `polar`, shape (rings, angles), differs from the places beside it, shape (steps, rings, angles).

    `along` holds two distances in angles, and `across` two distances in rings. The larger distance comes last.
    """
    result = np.empty((len(SMOOTHING_STEPS), *polar.shape), np.float32)
    for index, step in enumerate(SMOOTHING_STEPS):
        polar = _smooth(polar, step)
        columns = _pad_angles(polar, along[1])
        beside = polar - _middle_of_four(*(_view_angles(columns, along[1], shift) for shift in (-along[1], -along[0], along[0], along[1])))
        rows = _pad_rings(beside, across[1])
        middle = _middle_of_four(*(_view_rings(rows, across[1], shift) for shift in (-across[1], -across[0], across[0], across[1])))
        np.subtract(beside, middle, out=result[index])
    return result


def _smooth(polar: FloatArray, step: int) -> FloatArray:
    """Returns `polar`, smoothed over 3 places that are `step` apart, along and across the rings, with the weights 1/4, 1/2 and 1/4."""
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
    """Returns `polar` with `margin` columns added on each side. They are copied from the opposite side, because a ring is closed."""
    return np.concatenate((polar[:, -margin:], polar, polar[:, :margin]), axis=1)


def _view_angles(padded: FloatArray, margin: int, shift: int) -> FloatArray:
    """Returns a view of `padded` without its padding, turned by `shift` angles. `margin` is the width of the padding."""
    return padded[:, margin + shift : padded.shape[1] - margin + shift]


def _pad_rings(polar: FloatArray, margin: int) -> FloatArray:
    """Returns `polar` with `margin` rings added on each side. They are mirrored from the rings next to the border."""
    return np.concatenate((polar[margin:0:-1], polar, polar[-2 : -margin - 2 : -1]), axis=0)


def _view_rings(padded: FloatArray, margin: int, shift: int) -> FloatArray:
    """Returns a view of `padded` without its padding, moved outward by `shift` rings. `margin` is the width of the padding."""
    return padded[margin + shift : len(padded) - margin + shift]


def _middle_of_four(first: FloatArray, second: FloatArray, third: FloatArray, fourth: FloatArray) -> FloatArray:
    """Returns the median of four arrays, place by place: the mean of the two middle values. One extreme value hardly changes it."""
    low, other = np.minimum(first, second), np.minimum(third, fourth)
    np.maximum(low, other, out=low)
    high = np.maximum(first, second)
    np.maximum(third, fourth, out=other)
    np.minimum(high, other, out=high)
    low += high
    low *= 0.5
    return low


def measure_texture(differences: FloatArray) -> FloatArray:
    """Returns the texture of each ring, shape (steps, rings): how widely the differences on the ring are spread.

    The texture is 1.48 times the median of the absolute differences, which a small defect hardly changes.
    """
    texture: FloatArray = np.float32(1.4826) * np.median(np.abs(differences[..., ::4]), axis=-1)
    return texture
