"""From a heat map to rectangles on the picture as it was taken. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

HOT = 0.5  # of the hottest: on the renderer's masks the boxes then fit best
MOST = 5  # a person looks at no more

Heat = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle in pixels of the upright original, origin top left; `score` is its hottest heat, 0..1."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    score: float


def within_picture(heat: Heat, width_px: int, height_px: int) -> Heat:
    """The part of a square map that shows the picture, without what `models.pictures.decoder` filled up to a square."""
    side_px = heat.shape[0]
    scale = side_px / max(width_px, height_px)
    width, height = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    left, top = (side_px - width) // 2, (side_px - height) // 2
    return heat[top : top + height, left : left + width]


def hot_areas(heat: Heat, width_px: int, height_px: int, hot: float = HOT, most: int = MOST) -> list[Area]:
    """The connected areas of `heat` (a map within the picture, 0..1) from `hot` of its hottest on, the hottest first."""
    hottest = float(heat.max(initial=0.0))
    if hottest <= 0:
        return []
    labels, _ = ndimage.label(heat >= hot * hottest)
    rows, columns = heat.shape
    found = []
    for number, (down, across) in enumerate(ndimage.find_objects(labels), 1):
        score = float(heat[down, across][labels[down, across] == number].max())
        left, right = _scaled(across, width_px / columns, width_px)
        top, bottom = _scaled(down, height_px / rows, height_px)
        found.append(Area(left, top, right - left, bottom - top, min(1.0, score)))
    return sorted(found, key=lambda area: -area.score)[:most]


def _scaled(span: slice, scale: float, most_px: int) -> tuple[int, int]:
    """First pixel and the one after the last, at least one apart."""
    first = min(int(span.start * scale), most_px - 1)
    return first, min(max(first + 1, round(span.stop * scale)), most_px)
