"""Crops heat maps, finds boxes around their hot areas in pixels of the original picture, and names the kinds of the defects inside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.pictures.decoder import find_picture_area

# Methods such as Grad-CAM have no fixed limit of heat. In their maps, a pixel is hot if its heat is above 0.5 times the highest heat. The
# factor 0.5 fits rendered defects best.
HOT_SHARE = 0.5
# At most this many hot areas of a picture are marked with boxes, because people do not look at more.
MAX_BOXES = 5
# At most this many hot areas are marked if the heat map also names the kind of each defect. This limit is higher than MAX_BOXES, because
# the foundry's acceptance rules may count the defects of a part, for example to allow three small ones.
MAX_DEFECTS = 25
# The kind of a defect if the method is not sure. Never rename this word, because verdicts and findings contain it.
UNKNOWN_KIND = "unknown"
# The length of a hot area is measured in this many directions. The measured length is then at most 0.1 % too small.
_DIRECTIONS = 36

# A heat map has the shape (rows, columns) and values from 0 (cold) to 1 (hot).
HeatMap = npt.NDArray[np.float32]
Level = TypeVar("Level", bound=np.generic)


@dataclass(frozen=True, slots=True)
class HeatBox:
    """A rectangle around a hot area, in pixels of the upright original picture.

    - `score`: the highest heat inside, 0..1.
    - `area_px`: the area of the hot pixels.
    - `length_px`: the largest distance between two hot pixels.
    - `kind`: the kind of defect, `unknown`, or empty if the method knows no kinds.
    - `is_small`: whether the box was found in the original pixels. Its score then does not depend on the networks.
    """

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    score: float
    area_px: float = 0.0
    length_px: float = 0.0
    kind: str = ""
    is_small: bool = False


@dataclass(frozen=True, eq=False)
class DefectMap:
    """A heat map and the kinds of defect that its method knows.

    - `method`: the name of the method in findings.
    - `box_level`: the lowest heat of a hot pixel. None means half of the highest heat.
    - `kind_probabilities`: shape (kinds, rows, columns), or None.
    - `least_certainty`: see `name_kind`.
    - `boxes`: boxes that were found before the heat map was made smaller, or None. `find_boxes` returns these boxes if there are any.
    - `has_more_areas`: whether `boxes` leaves out hot areas, because there are too many of them.
    """

    heat: HeatMap
    method: str
    box_level: float | None = None
    kinds: tuple[str, ...] = ()
    kind_probabilities: npt.NDArray[np.float32] | None = None
    least_certainty: float = 0.0
    boxes: tuple[HeatBox, ...] | None = None
    has_more_areas: bool = False

    def crop(self, width_px: int, height_px: int) -> DefectMap:
        """Returns the map without the margins that the decoder had added to make the picture square."""
        kinds = self.kind_probabilities
        if kinds is not None:
            kinds = np.stack([crop_to_picture(kind, width_px, height_px) for kind in kinds])
        return replace(self, heat=crop_to_picture(self.heat, width_px, height_px), kind_probabilities=kinds)

    def limit_to(self, mask: npt.NDArray[np.bool_]) -> DefectMap:
        """Returns a copy of the map in which all heat outside of `mask` is 0. `mask` has the shape of the heat map."""
        return replace(self, heat=np.where(mask, self.heat, np.float32(0)))

    def find_boxes(self, width_px: int, height_px: int) -> list[HeatBox]:
        """Returns boxes around the hot areas of a cropped map, the hottest first, with the kind of each."""
        if self.boxes is not None:
            return list(self.boxes)
        return find_boxes(self.heat, width_px, height_px, self.box_level, self._max_boxes, self)

    def leaves_out_areas(self) -> bool:
        """Returns whether the map has more hot areas than `find_boxes` returns."""
        if self.boxes is not None:
            return self.has_more_areas
        return count_hot_areas(self.heat, self.box_level) > self._max_boxes

    @property
    def _max_boxes(self) -> int:
        return MAX_BOXES if self.kind_probabilities is None else MAX_DEFECTS


def crop_to_picture(heat: npt.NDArray[Level], width_px: int, height_px: int) -> npt.NDArray[Level]:
    """Crops a square heat map or picture: removes the margins that the decoder had added to make the picture square.

    `width_px` and `height_px` are the size of the upright original picture.
    """
    return heat[find_picture_area(heat.shape[0], width_px, height_px)]


def find_boxes(
    heat: HeatMap | npt.NDArray[np.float16],
    width_px: int,
    height_px: int,
    level: float | None = None,
    max_boxes: int = MAX_BOXES,
    kinds_of: DefectMap | None = None,
) -> list[HeatBox]:
    """Returns boxes around the connected hot areas of a cropped heat map, the hottest first, at most `max_boxes`.

    - `level`: the lowest heat of a hot pixel. None means half of the highest heat.
    - `width_px`, `height_px`: size of the picture before it was cropped.
    - `kinds_of`: the map that gives each box its kind of defect, or None.
    """
    labels, count = _label_hot_areas(heat, level)
    if not count:
        return []
    # Only the hottest areas are measured, because a large map can have thousands of areas.
    is_hot = labels > 0
    peaks = ndimage.maximum(heat[is_hot], labels[is_hot], np.arange(1, count + 1))
    spans = ndimage.find_objects(labels)
    rows, columns = heat.shape
    scale_x, scale_y = width_px / columns, height_px / rows
    boxes = []
    for index in np.argsort(-np.asarray(peaks), kind="stable")[:max_boxes].tolist():
        row_span, column_span = spans[index]
        is_inside = labels[row_span, column_span] == index + 1
        left, right = _scale_span(column_span, scale_x, width_px)
        top, bottom = _scale_span(row_span, scale_y, height_px)
        kind = ""
        if kinds_of is not None and kinds_of.kind_probabilities is not None:
            shares = kinds_of.kind_probabilities[:, row_span, column_span][:, is_inside].sum(axis=1)
            kind = name_kind(shares, kinds_of.kinds, kinds_of.least_certainty)
        boxes.append(
            HeatBox(
                left,
                top,
                right - left,
                bottom - top,
                min(1.0, float(peaks[index])),
                float(is_inside.sum()) * scale_x * scale_y,
                _measure_length(is_inside, scale_x, scale_y),
                kind,
            )
        )
    return boxes


def count_hot_areas(heat: HeatMap | npt.NDArray[np.float16], level: float | None = None) -> int:
    """Returns the number of connected hot areas of `heat`.

    `level` is the lowest heat of a hot pixel. None means half of the highest heat.
    """
    return _label_hot_areas(heat, level)[1]


def _label_hot_areas(heat: HeatMap | npt.NDArray[np.float16], level: float | None) -> tuple[npt.NDArray[np.int32], int]:
    hottest = float(heat.max(initial=0.0))
    is_hot = heat >= (HOT_SHARE * hottest if level is None else level)
    labels, count = ndimage.label(is_hot & (heat > 0))
    return labels, int(count)


def name_kind(shares: npt.NDArray[np.float32], kinds: tuple[str, ...], least_certainty: float) -> str:
    """Returns the most probable kind of a defect, or UNKNOWN_KIND if this kind is not certain enough.

    `shares`, shape (kinds,), holds the probability of each kind, added up over the pixels of the defect. Example: with a `least_certainty`
    of 0.6, the most probable kind must have at least 60 % of the sum of all kinds.
    """
    best = int(shares.argmax())
    return kinds[best] if shares[best] >= least_certainty * shares.sum() > 0 else UNKNOWN_KIND


def name_largest_kind(defect_map: DefectMap) -> str:
    """Returns the kind of the largest hot area of `defect_map`, or UNKNOWN_KIND if the kind is not sure.

    Also returns UNKNOWN_KIND if the map has no hot area, no kinds or no `box_level`.
    """
    if defect_map.box_level is None or defect_map.kind_probabilities is None:
        return UNKNOWN_KIND
    labels, count = ndimage.label(defect_map.heat >= defect_map.box_level)
    if not count:
        return UNKNOWN_KIND
    is_inside = labels == int(np.bincount(labels.ravel())[1:].argmax()) + 1
    shares = defect_map.kind_probabilities[:, is_inside].sum(axis=1)
    return name_kind(shares, defect_map.kinds, defect_map.least_certainty)


def _measure_length(is_inside: npt.NDArray[np.bool_], scale_x: float, scale_y: float) -> float:
    """Returns the length of an area: the largest distance between two of its pixels (Feret diameter), in pixels of the original picture."""
    row, column = np.nonzero(is_inside ^ ndimage.binary_erosion(is_inside))
    angle = np.arange(_DIRECTIONS) * (np.pi / _DIRECTIONS)
    across, down = np.cos(angle) * scale_x, np.sin(angle) * scale_y
    places = column[:, None] * across + row[:, None] * down
    # The width of one pixel is added, because `places` are the centres of pixels and not their outer edges.
    return float((np.ptp(places, axis=0) + np.abs(across) + np.abs(down)).max()) if len(row) > 1 else max(scale_x, scale_y)


def _scale_span(span: slice, scale: float, size_px: int) -> tuple[int, int]:
    """Converts `span` from pixels of a heat map to pixels of the original picture. Returns start and stop, at least 1 px apart."""
    first = min(int(span.start * scale), size_px - 1)
    return first, min(max(first + 1, round(span.stop * scale)), size_px)
