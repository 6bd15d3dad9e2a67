"""Makes one map that shows where the defects of a part are.

The map combines two sources:

- The heat mapper makes a heat map of the reduced picture. It uses a part of the version, for example its segmentation head.
- The detail template finds small defects in the original pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.anomaly.scorer import scale_scores
from models.anomaly.version_scorers import VersionDetails, VersionScorer, open_details, open_scorers
from models.inference.heat_map import MAX_DEFECTS, DefectMap, HeatBox, HeatMap, count_hot_areas, crop_to_picture, find_boxes
from models.inference.soft_vote import SCALED_CUT_OFF
from models.pictures.decoder import DecodedPicture
from models.registry import Version
from streams.records import Label

RESIDUAL = "residual"
# If a version has no scorer, its segmentation head is used only if the head was accurate enough. In at least 75 % of the validation
# pictures, the hottest point of its map must lie near a defect.
LEAST_POINTING = 0.75
# If a version has a scorer, the map of its segmentation head is combined with the scorer's residuals. For this, a lower accuracy of the
# head is enough: in at least 50 % of the validation pictures, the hottest point of its map lies near a defect.
LEAST_POINTING_COMBINED = 0.5
# Combined maps are smoothed with a Gaussian. Its standard deviation is this share of the picture's side, for example 2 px if the side is
# 150 px.
SMOOTHING_SHARE = 1 / 75


class HeatMapper(Protocol):
    """Computes where the defects of a picture are, one picture at a time."""

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of a picture. `pixels`, shape (side_px, side_px), holds its grey levels, 0..255."""
        ...


@dataclass(frozen=True)
class SegmentationFirst:
    """Takes the map of the segmentation head if the head sees a defect, and otherwise the map of `other`, such as Grad-CAM.

    The map of `other` is needed because the head sometimes sees no defect in a part that the ensemble calls defective.
    """

    segmentation: HeatMapper
    other: HeatMapper

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture. Its field `method` names the method that made the map."""
        found = self.segmentation.compute_defect_map(pixels)
        is_seen = found.box_level is None or float(found.heat.max(initial=0.0)) >= found.box_level
        return found if is_seen else self.other.compute_defect_map(pixels)


@dataclass(frozen=True)
class ResidualMapper:
    """Makes heat maps with a scorer, which has learned from good parts alone.

    The scorer gives each pixel a residual, which says how much the pixel differs from good parts. The heat of the pixel is the residual,
    scaled to 0..1. A residual that equals the cut-off of the scorer becomes 0.5.
    """

    opened: VersionScorer

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture, without kinds of defect."""
        residuals = self.opened.scorer.score(pixels[np.newaxis]).residuals[0]
        return DefectMap(scale_scores(residuals, self.opened.cut_off), RESIDUAL)


@dataclass(frozen=True)
class CombinedMapper:
    """Combines the map of the segmentation head with the residuals of a scorer, which has learned from good parts alone.

    The function `combine_heat` combines the two maps.

    The kinds of defect are those of the segmentation head.
    """

    segmentation: HeatMapper
    residuals: ResidualMapper

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture. A pixel is hot if its heat is at least 0.5."""
        found, residual = self.segmentation.compute_defect_map(pixels), self.residuals.compute_defect_map(pixels)
        heat = combine_heat(found.heat, residual.heat, found.box_level or SCALED_CUT_OFF)
        return replace(found, heat=heat, method=f"{found.method}+{residual.method}", box_level=SCALED_CUT_OFF)


def combine_heat(probabilities: HeatMap, residuals: HeatMap, box_level: float) -> HeatMap:
    """Combines two maps into one heat map. If a pixel has at least 0.5 in one map, the pixel also has at least 0.5 in the heat map.

    All maps have the shape (rows, columns) and values 0..1.

    - `probabilities`: the map of a segmentation head. It is smoothed, and scaled so that `box_level` becomes 0.5.
    - `residuals`: the residuals of a scorer, with the cut-off at 0.5.

    If a pixel has the values a and b in the two maps, its combined heat is 1 - (1 - a)(1 - b), the "noisy or". Source: Pearl, Probabilistic
    Reasoning, 1988.
    """
    smooth = ndimage.gaussian_filter(probabilities, SMOOTHING_SHARE * len(probabilities))
    heat: HeatMap = 1 - (1 - residuals) * (1 - smooth / (smooth + np.float32(box_level)))
    return heat


def open_heat_mapper(version: Version) -> HeatMapper | None:
    """Returns the warmed-up heat mapper of `version`, or None if the version cannot make heat maps. Takes seconds.

    The heat mapper uses the first of these methods that the version has. docs/RESULTS.md compares the methods.

    1. a segmentation head together with the residuals of a scorer
    2. a segmentation head
    3. the residuals of a scorer
    4. Grad-CAM

    A segmentation head is not used if it was not accurate enough in the validation. A head that was never validated is used only if the
    version has no scorer.

    Raises ModelError if weights cannot be read.
    """
    # TensorFlow is imported only here, because a worker with another runtime needs TensorFlow only for heat maps.
    from models.inference.grad_cam import open_grad_cam
    from models.inference.segmentation import open_segmentation

    scorers = open_scorers(version)
    residuals = ResidualMapper(scorers[0]) if scorers else None
    other: HeatMapper | None = residuals or open_grad_cam(version)
    member = version.manifest.segmentation
    least_pointing, if_unmeasured = (LEAST_POINTING, 1.0) if residuals is None else (LEAST_POINTING_COMBINED, 0.0)
    if member is None or member.figures.get("pointing", if_unmeasured) < least_pointing:
        return other
    segmentation = open_segmentation(version)
    if segmentation is not None and residuals is not None:
        return CombinedMapper(segmentation, residuals)
    return segmentation if segmentation is None or other is None else SegmentationFirst(segmentation, other)


# The longest search for small defects in one picture, in seconds. No verdict waits for this search.
LONGEST_SEARCH_S = 60.0

# A function that returns the mask of the inspected pixels for a map, or None if all pixels are inspected. Its arguments are the numbers of
# rows and columns of the map.
FindMask = Callable[[int, int], npt.NDArray[np.bool_] | None]


@dataclass(frozen=True)
class DefectLocator:
    """Makes defect maps with `mapper`, with the detail template in `details`, or with both.

    `side_px` is the side of the reduced pictures. At least one of `mapper` and `details` is not None.
    """

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
        """Returns the defect map of a picture, or None if no map can be made. `label` and `scores` come from the inspection of the picture.

        - The map shows the defects that were found in the reduced picture, and small defects that were found in the original pixels.
        - The map has the shape of the reduced picture without its margins.
        - If `needs_original(scores)` is True, `picture` must contain its original pixels.
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
            raise ValueError("The decoder kept only a reduced copy of the picture, so small defects cannot be shown.")
        heat = self.details.map_heat(picture.original)
        if heat is None:
            return None
        mask = find_mask(*heat.shape)
        if mask is not None:
            heat[~mask] = 0
        found = find_boxes(heat, picture.width_px, picture.height_px, SCALED_CUT_OFF, MAX_DEFECTS)
        boxes = tuple(replace(box, is_small=True) for box in found)
        rows, columns = crop_to_picture(picture.pixels, picture.width_px, picture.height_px).shape
        return DefectMap(
            _reduce_to_hottest(heat, rows, columns),
            self.details.template.name,
            SCALED_CUT_OFF,
            boxes=boxes,
            has_more_areas=len(boxes) == MAX_DEFECTS < count_hot_areas(heat, SCALED_CUT_OFF),
        )


def open_defect_locator(version: Version, searches_details: bool) -> DefectLocator | None:
    """Returns the warmed-up defect locator of `version`, or None if nothing in the version can make a map. Takes seconds.

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
    """Combines two maps of a picture: `found` from the reduced picture, and `small` from the original pixels.

    If a box of `found` overlaps a box of `small`, the box of `found` is left out, because boxes from the original pixels are more exact.
    """
    others = [
        box for box in found.find_boxes(picture.width_px, picture.height_px) if not any(_overlap(box, exact) for exact in small.boxes or ())
    ]
    heat = np.maximum(found.heat, small.heat)
    has_more = small.has_more_areas or found.leaves_out_areas()
    return DefectMap(heat, f"{found.method}+{small.method}", boxes=(*(small.boxes or ()), *others), has_more_areas=has_more)


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
