"""Turns the regions that people draw in the pictures of a line into masks of the pixels that are inspected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from models.pictures.decoder import find_picture_area
from streams.records import LiveLineSettings

# A polygon: at least three corners (x, y), as shares 0..1 of the picture's width and height, from the top left.
Polygon = Sequence[tuple[float, float]]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of one line: those to inspect and those to ignore."""

    inspect: tuple[tuple[tuple[float, float], ...], ...] = ()
    ignore: tuple[tuple[tuple[float, float], ...], ...] = ()

    @classmethod
    def from_settings(cls, live: LiveLineSettings | None) -> Regions | None:
        """Returns the regions in the settings of a line, or None if people drew no regions."""
        if live is None or not (live.inspect_regions or live.ignore_regions):
            return None
        inspect, ignore = (
            tuple(tuple((corner.x, corner.y) for corner in region.corners) for region in regions)
            for regions in (live.inspect_regions, live.ignore_regions)
        )
        return cls(inspect, ignore)

    def make_mask(self, rows: int, columns: int) -> Mask:
        """Returns the mask of the inspected pixels of a picture, shape (rows, columns). The mask cannot be changed."""
        return _make_shared_mask(self, rows, columns)

    def make_square_mask(self, side_px: int, width_px: int, height_px: int) -> Mask:
        """Returns the mask for a picture that the decoder reduced to a square, shape (side_px, side_px).

        `width_px` and `height_px` are the size of the upright original picture. The margins of the square are not inspected.
        """
        rows, columns = find_picture_area(side_px, width_px, height_px)
        mask = np.zeros((side_px, side_px), np.bool_)
        mask[rows, columns] = self.make_mask(rows.stop - rows.start, columns.stop - columns.start)
        return mask


def make_region_mask(inspect: Sequence[Polygon], ignore: Sequence[Polygon], rows: int, columns: int) -> Mask:
    """Returns a mask of shape (rows, columns) that is True where a picture is inspected: inside `inspect`, but outside `ignore`.

    A pixel is inside if its centre is inside. If `inspect` is empty, the whole picture is inspected, except for `ignore`.
    """
    inside = _draw(inspect, rows, columns) if inspect else np.ones((rows, columns), np.bool_)
    return inside & ~_draw(ignore, rows, columns)


# A cache of 16 masks is enough, because all pictures of a camera have the same size. A mask of 5 megapixels takes 5 MB.
@lru_cache(maxsize=16)
def _make_shared_mask(regions: Regions, rows: int, columns: int) -> Mask:
    mask = make_region_mask(regions.inspect, regions.ignore, rows, columns)
    mask.flags.writeable = False
    return mask


def _draw(polygons: Sequence[Polygon], rows: int, columns: int) -> Mask:
    image = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        # In Pillow, the centre of the first pixel has the coordinate 0, so the picture's left edge has the coordinate -0.5.
        draw.polygon([(x * columns - 0.5, y * rows - 0.5) for x, y in polygon], fill=1)
    return np.asarray(image, np.bool_)
