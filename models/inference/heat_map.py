"""Crops heat maps and finds boxes around their hot areas, in pixels of the original picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

# A pixel is hot if its heat is at least this share of the hottest value. With 0.5, the boxes fit the masks of rendered defects best.
HOT_SHARE = 0.5
# At most this many hot areas of a picture are marked with boxes, because people do not look at more.
MAX_BOXES = 5

# A heat map has the shape (rows, columns) and values from 0 (cold) to 1 (hot).
HeatMap = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeatBox:
    """A rectangle in pixels of the upright original picture. The origin is at the top left. `score` is the highest heat inside, 0..1."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    score: float


def crop_to_picture(heat: HeatMap, width_px: int, height_px: int) -> HeatMap:
    """Returns a square heat map without the margins that the decoder had added to make the picture square.

    `width_px` and `height_px` are the size of the upright original picture.
    """
    side_px = heat.shape[0]
    scale = side_px / max(width_px, height_px)
    width, height = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    left, top = (side_px - width) // 2, (side_px - height) // 2
    return heat[top : top + height, left : left + width]


def find_boxes(heat: HeatMap, width_px: int, height_px: int, hot_share: float = HOT_SHARE, max_boxes: int = MAX_BOXES) -> list[HeatBox]:
    """Returns boxes around the connected hot areas of a cropped heat map, the hottest first, at most `max_boxes`.

    A pixel is hot if its heat is at least `hot_share` of the hottest value. `width_px` and `height_px` are the size of the upright
    original picture.
    """
    hottest = float(heat.max(initial=0.0))
    if hottest <= 0:
        return []
    labels, _ = ndimage.label(heat >= hot_share * hottest)
    rows, columns = heat.shape
    boxes = []
    for number, (row_span, column_span) in enumerate(ndimage.find_objects(labels), 1):
        score = float(heat[row_span, column_span][labels[row_span, column_span] == number].max())
        left, right = _scale_span(column_span, width_px / columns, width_px)
        top, bottom = _scale_span(row_span, height_px / rows, height_px)
        boxes.append(HeatBox(left, top, right - left, bottom - top, min(1.0, score)))
    return sorted(boxes, key=lambda box: -box.score)[:max_boxes]


def _scale_span(span: slice, scale: float, size_px: int) -> tuple[int, int]:
    """Converts `span`, a range of cells of a heat map, to pixels of the original picture, and returns its start and stop.

    `size_px` is the width or height of the picture. Start and stop are at least 1 px apart.
    """
    first = min(int(span.start * scale), size_px - 1)
    return first, min(max(first + 1, round(span.stop * scale)), size_px)
