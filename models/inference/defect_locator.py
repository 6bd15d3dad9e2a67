"""Makes one map that shows where the defects of a part are.

The map combines two sources. The heat mapper of a version sees the reduced picture, and the detail template finds small defects in the
original pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.anomaly.version_scorers import VersionDetails, open_details
from models.inference.heat_map import MAX_DEFECTS, DefectMap, HeatBox, crop_to_picture, find_boxes
from models.inference.heat_mapper import RESIDUAL, HeatMapper, open_heat_mapper
from models.inference.soft_vote import SCALED_CUT_OFF
from models.pictures.decoder import DecodedPicture
from models.registry import Version
from streams.records import Label

# The longest search for small defects in one picture, in seconds. No verdict waits for this search.
LONGEST_SEARCH_S = 60.0

# A function that returns the mask of the inspected pixels for a map, or None if all pixels are inspected. Its arguments are the numbers of
# rows and columns of the map.
FindMask = Callable[[int, int], npt.NDArray[np.bool_] | None]


@dataclass(frozen=True)
class DefectLocator:
    """The sources of the defect maps of a version. `side_px` is the side of the reduced pictures. At least one source is not None."""

    mapper: HeatMapper | None
    side_px: int
    details: VersionDetails | None = None

    def needs_original(self, scores: Mapping[str, float]) -> bool:
        """Returns whether the detail template found the picture suspicious. `locate` then needs the original pixels.

        `scores` holds the scores of the picture by name, such as the votes of its verdict.
        """
        return self.details is not None and scores.get(self.details.template.name, 0.0) > SCALED_CUT_OFF

    def locate(
        self, picture: DecodedPicture, label: Label, scores: Mapping[str, float], find_mask: FindMask = lambda rows, columns: None
    ) -> DefectMap | None:
        """Returns the defect map of a picture, or None if no map can be made. The inspection gave the picture `label` and `scores`.

        - The map has the shape of the reduced picture without its margins.
        - If `needs_original(scores)` is True, `picture` must contain its original pixels.
        - The map shows the defects in the reduced picture and small defects in the original pixels. If only small defects are found, the
          map shows only small defects.
        """
        small = self._find_small_defects(picture, find_mask) if self.needs_original(scores) else None
        if self.mapper is None:
            return small
        found = self.mapper.compute_defect_map(picture.pixels).crop(picture.width_px, picture.height_px)
        mask = find_mask(*found.heat.shape)
        if mask is not None:
            found = found.limit_to(mask)
        if small is None or not small.boxes:
            return found
        return _combine(found, small, picture) if _sees_defect(found, label) else small

    def _find_small_defects(self, picture: DecodedPicture, find_mask: FindMask) -> DefectMap | None:
        """Returns the map of the detail template with boxes in original pixels, or None if the picture cannot be searched."""
        assert self.details is not None
        if picture.original is None:
            raise ValueError("The picture was decoded without its original pixels, so small defects cannot be shown.")
        heat = self.details.map_heat(picture.original)
        if heat is None:
            return None
        mask = find_mask(*heat.shape)
        if mask is not None:
            heat[~mask] = 0
        found = find_boxes(heat, picture.width_px, picture.height_px, SCALED_CUT_OFF, MAX_DEFECTS)
        boxes = tuple(replace(box, is_small=True) for box in found)
        rows, columns = crop_to_picture(picture.pixels, picture.width_px, picture.height_px).shape
        return DefectMap(_reduce_to_hottest(heat, rows, columns), self.details.template.name, SCALED_CUT_OFF, boxes=boxes)


def open_defect_locator(version: Version, searches_details: bool) -> DefectLocator | None:
    """Returns the warmed-up defect locator of `version`, or None if the version has no source of maps. Takes seconds.

    `searches_details` is False if the inspector does not search for small defects. Raises ModelError if a file cannot be read.
    """
    mapper = open_heat_mapper(version)
    details = open_details(version, LONGEST_SEARCH_S if searches_details else 0)
    return None if mapper is None and details is None else DefectLocator(mapper, version.manifest.preprocessing.side_px, details)


def _sees_defect(found: DefectMap, label: Label) -> bool:
    """Returns whether the map of the reduced picture shows a defect.

    Every map of Grad-CAM has hot places, even that of a good part. Such a map counts only if the networks called the part defective.
    """
    level = SCALED_CUT_OFF if found.method == RESIDUAL else found.box_level
    return label == "defect" if level is None else float(found.heat.max(initial=0.0)) >= level


def _combine(found: DefectMap, small: DefectMap, picture: DecodedPicture) -> DefectMap:
    """Returns one map with the heat of `found` and of `small`. A box of `found` is left out if it overlaps a box of `small`.

    The boxes of `small` are more exact, because they come from the original pixels.
    """
    others = [
        box for box in found.find_boxes(picture.width_px, picture.height_px) if not any(_overlap(box, exact) for exact in small.boxes or ())
    ]
    heat = np.maximum(found.heat, small.heat)
    return DefectMap(heat, f"{found.method}+{small.method}", boxes=(*(small.boxes or ()), *others))


def _overlap(first: HeatBox, second: HeatBox) -> bool:
    return (
        first.left_px < second.left_px + second.width_px
        and second.left_px < first.left_px + first.width_px
        and first.top_px < second.top_px + second.height_px
        and second.top_px < first.top_px + first.height_px
    )


def _reduce_to_hottest(heat: npt.NDArray[np.float16], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Reduces a heat map to the shape (rows, columns). Each pixel gets the largest heat of its area, so that no small defect is lost."""
    firsts = [np.arange(count) * size // count for count, size in zip((rows, columns), heat.shape, strict=True)]
    reduced = np.maximum.reduceat(np.maximum.reduceat(heat, firsts[0], axis=0), firsts[1], axis=1)
    return reduced.astype(np.float32)
