"""Unwraps a round part to polar coordinates, and maps the result back to the picture.

Each row is a ring of the part, the innermost first. Column 0 points to the right, and the columns go clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.pictures.part_finder import FoundPart

FloatArray = npt.NDArray[np.float32]
# `PolarGrid.wrap` computes this many rows of the picture at a time, to save memory with large pictures.
BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class PolarGrid:
    """A grid of points on a round part. The points lie on `rings` circles around the part's centre, in `angles` directions.

    `inner` and `outer` are the smallest and the largest radius: 0 is the centre, 1 the rim.
    """

    rings: int
    angles: int
    inner: float
    outer: float

    @property
    def radii(self) -> FloatArray:
        """The radius of each ring, shape (rings,). The unit is the part's radius."""
        return np.linspace(self.inner, self.outer, self.rings, dtype=np.float32)

    def count_angles(self, radii: tuple[float, float]) -> tuple[int, int]:
        """Converts two lengths along the rim to numbers of directions of this grid. The unit of the lengths is the part's radius.

        Example: if the grid has 360 directions, the length 0.35 gives 20 directions.
        """
        first, second = (max(1, round(radius * self.angles / (2 * np.pi))) for radius in radii)
        return first, second

    def count_rings(self, radii: tuple[float, float]) -> tuple[int, int]:
        """Converts two lengths along a radius to numbers of rings of this grid. The unit of the lengths is the part's radius."""
        first, second = (max(1, round(radius * (self.rings - 1) / (self.outer - self.inner))) for radius in radii)
        return first, second

    def unwrap(self, pixels: npt.NDArray[np.uint8], part: FoundPart) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Returns the grey levels of `part`, and a mask of the points that lie in the picture. Both have shape (rings, angles).

        `pixels` has shape (rows, columns), grey levels 0..255. Points outside of the picture get the level of the nearest pixel.
        """
        column, row = self._find_points(part)
        rows, columns = pixels.shape
        is_inside = (column >= 0) & (column <= columns - 1) & (row >= 0) & (row <= rows - 1)
        np.clip(column, 0, columns - 1.001, out=column)
        np.clip(row, 0, rows - 1.001, out=row)
        left, top = column.astype(np.int32), row.astype(np.int32)
        column -= left
        row -= top
        place = top
        place *= columns
        place += left
        flat = pixels.ravel()
        upper, upper_right, lower, lower_right = (flat[place + shift].astype(np.float32) for shift in (0, 1, columns, columns + 1))
        for start, end, share in ((upper, upper_right, column), (lower, lower_right, column), (upper, lower, row)):
            end -= start
            end *= share
            start += end
        return upper, is_inside

    def look_up(self, mask: npt.NDArray[np.bool_], part: FoundPart) -> npt.NDArray[np.bool_]:
        """Returns the value of `mask`, shape (rows, columns), at each point of the grid, shape (rings, angles).

        The value is False for points that lie outside of the picture.
        """
        column, row = self._find_points(part)
        rows, columns = mask.shape
        left, top = np.rint(column).astype(np.int32), np.rint(row).astype(np.int32)
        is_inside = (left >= 0) & (left < columns) & (top >= 0) & (top < rows)
        found: npt.NDArray[np.bool_] = mask[np.clip(top, 0, rows - 1), np.clip(left, 0, columns - 1)] & is_inside
        return found

    def _find_points(self, part: FoundPart) -> tuple[FloatArray, FloatArray]:
        """Returns the column and the row of each point in the picture of `part`, both of shape (rings, angles)."""
        angle = np.arange(self.angles, dtype=np.float32) * np.float32(2 * np.pi / self.angles)
        direction = circle_to_ellipse(part) @ np.stack((np.cos(angle), np.sin(angle)))
        column: FloatArray = np.float32(part.centre_x_px) + self.radii[:, None] * direction[0]
        row: FloatArray = np.float32(part.centre_y_px) + self.radii[:, None] * direction[1]
        return column, row

    def wrap(self, polar: npt.NDArray[Any], part: FoundPart, rows: int, columns: int) -> npt.NDArray[Any]:
        """Reverses `unwrap`: turns `polar`, shape (rings, angles), into a picture of shape (rows, columns).

        Each pixel gets the value of the nearest point. Pixels outside the rings get 0. The picture has the data type of `polar`.
        """
        matrix = circle_to_ellipse(part)
        # Only the rectangle around the outermost ring is computed. `reach` holds half of its width and half of its height.
        reach = self.outer * np.hypot(matrix[:, 0], matrix[:, 1])
        left, top = (max(0, int(centre - far)) for centre, far in zip((part.centre_x_px, part.centre_y_px), reach, strict=True))
        right, bottom = (
            min(size, int(centre + far) + 2)
            for size, centre, far in zip((columns, rows), (part.centre_x_px, part.centre_y_px), reach, strict=True)
        )
        inverse = np.linalg.inv(matrix).astype(np.float32)
        across = np.arange(left, right, dtype=np.float32) - np.float32(part.centre_x_px)
        result = np.zeros((rows, columns), polar.dtype)
        for first in range(top, bottom, BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, bottom)
            down = np.arange(first, last, dtype=np.float32)[:, None] - np.float32(part.centre_y_px)
            x, y = inverse[0, 0] * across + inverse[0, 1] * down, inverse[1, 0] * across + inverse[1, 1] * down
            ring = np.rint((np.sqrt(x * x + y * y) - self.inner) * ((self.rings - 1) / (self.outer - self.inner))).astype(np.int32)
            angle = np.rint(np.arctan2(y, x) * (self.angles / (2 * np.pi))).astype(np.int32) % self.angles
            values = polar[np.clip(ring, 0, self.rings - 1), angle]
            values[(ring < 0) | (ring >= self.rings)] = 0
            result[first:last, left:right] = values
        return result


def circle_to_ellipse(part: FoundPart) -> FloatArray:
    """Returns the symmetric matrix, shape (2, 2), that stretches a circle of radius 1 to the outline of `part`."""
    cosine, sine = np.cos(part.angle_rad), np.sin(part.angle_rad)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    matrix: FloatArray = (turn @ np.diag((part.semi_major_px, part.semi_minor_px)) @ turn.T).astype(np.float32)
    return matrix
