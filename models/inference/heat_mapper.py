"""Opens the heat mapper of a version: its segmentation head, Grad-CAM of its AlexNet, or the residuals of its good-only scorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.anomaly.scorer import scale_scores
from models.anomaly.version_scorers import VersionScorer, open_scorers
from models.inference.heat_map import DefectMap
from models.registry import Version

RESIDUAL = "residual"
# A segmentation head is used only if its hottest point lay near a defect in at least this share of its validation pictures.
LEAST_POINTING = 0.75


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


def open_heat_mapper(version: Version) -> HeatMapper | None:
    """Returns the warmed-up heat mapper of `version`, or None if the version cannot make heat maps. Takes seconds.

    Prefers a segmentation head with good figures, then the residuals of a scorer, then Grad-CAM. docs/RESULTS.md compares them.
    Raises ModelError if weights cannot be read.
    """
    # TensorFlow is imported only here, because a worker with another runtime may never open a heat mapper.
    from models.inference.grad_cam import open_grad_cam
    from models.inference.segmentation import open_segmentation

    scorers = open_scorers(version)
    other: HeatMapper | None = ResidualMapper(scorers[0]) if scorers else open_grad_cam(version)
    member = version.manifest.segmentation
    if member is None or member.figures.get("pointing", 1.0) < LEAST_POINTING:
        return other
    segmentation = open_segmentation(version)
    return segmentation if segmentation is None or other is None else SegmentationFirst(segmentation, other)
