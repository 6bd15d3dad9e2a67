"""Opens the heat mapper of a version, made from its segmentation head, its good-only scorer or Grad-CAM of its AlexNet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.anomaly.scorer import scale_scores
from models.anomaly.version_scorers import VersionScorer, open_scorers
from models.inference.heat_map import DefectMap, HeatMap
from models.inference.soft_vote import SCALED_CUT_OFF
from models.registry import Version

RESIDUAL = "residual"
# In at least this share of the validation pictures, the hottest point of a segmentation head must lie near a defect. Otherwise the head is
# not used.
LEAST_POINTING = 0.75
# A segmentation head can be combined with the residuals of a scorer. Then the head's hottest point must lie near a defect in at least this
# share of the validation pictures.
LEAST_POINTING_COMBINED = 0.5
# Combined maps are smoothed with a Gaussian. Its standard deviation is this share of the picture's side: 2 px for 150 px.
SMOOTHING_SHARE = 1 / 75


class HeatMapper(Protocol):
    """Computes where the defects of a picture are, one picture at a time."""

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture, shape (side_px, side_px), grey levels 0..255."""
        ...


@dataclass(frozen=True)
class SegmentationFirst:
    """Takes the map of the segmentation head if the head sees a defect, and otherwise the map of `other`, such as Grad-CAM.

    The head has no vote, so it may see no defect in a part that the ensemble calls defective.
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
    """Makes heat maps from the residuals of a good-only scorer.

    The heat of a pixel is its residual, scaled like the scores in verdicts: 0.5 at the cut-off, and nearly 1 far above it.
    """

    opened: VersionScorer

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture, without kinds of defect."""
        residuals = self.opened.scorer.score(pixels[np.newaxis]).residuals[0]
        return DefectMap(scale_scores(residuals, self.opened.cut_off), RESIDUAL)


@dataclass(frozen=True)
class CombinedMapper:
    """Combines the map of the segmentation head with the residuals of a good-only scorer. See `combine_heat`.

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

    A segmentation head that is not accurate enough in the validation is not used.
    Raises ModelError if weights cannot be read.
    """
    # TensorFlow is imported only here, because a worker with another runtime needs TensorFlow only for heat maps.
    from models.inference.grad_cam import open_grad_cam
    from models.inference.segmentation import open_segmentation

    scorers = open_scorers(version)
    residuals = ResidualMapper(scorers[0]) if scorers else None
    other: HeatMapper | None = residuals or open_grad_cam(version)
    member = version.manifest.segmentation
    least_pointing = LEAST_POINTING if residuals is None else LEAST_POINTING_COMBINED
    if member is None or member.figures.get("pointing", 1.0) < least_pointing:
        return other
    segmentation = open_segmentation(version)
    if segmentation is not None and residuals is not None:
        return CombinedMapper(segmentation, residuals)
    return segmentation if segmentation is None or other is None else SegmentationFirst(segmentation, other)
