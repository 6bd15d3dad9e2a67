"""Turns the regions that people draw in a picture into a mask of the pixels that are inspected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

# A polygon: at least three corners (x, y), as shares 0..1 of the picture's width and height, from the top left.
Polygon = Sequence[tuple[float, float]]


def make_region_mask(inspect: Sequence[Polygon], ignore: Sequence[Polygon], rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Returns a mask of shape (rows, columns) that is True where a picture is inspected: inside `inspect`, but outside `ignore`.

    A pixel is inside if its centre is inside. If `inspect` is empty, the whole picture is inspected, except for `ignore`.
    """
    inside = _draw(inspect, rows, columns) if inspect else np.ones((rows, columns), np.bool_)
    return inside & ~_draw(ignore, rows, columns)


def _draw(polygons: Sequence[Polygon], rows: int, columns: int) -> npt.NDArray[np.bool_]:
    image = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        # In Pillow, the centre of the first pixel has the coordinate 0, so the picture's left edge has the coordinate -0.5.
        draw.polygon([(x * columns - 0.5, y * rows - 0.5) for x, y in polygon], fill=1)
    return np.asarray(image, np.bool_)
