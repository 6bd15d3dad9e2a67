"""Opens the heat mapper of a version: the segmentation head if the version has one, and Grad-CAM of its AlexNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.inference.heat_map import DefectMap
from models.registry import Version


class HeatMapper(Protocol):
    """Computes where the defects of a picture are, one picture at a time."""

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture, shape (side_px, side_px), grey levels 0..255."""
        ...


@dataclass(frozen=True)
class SegmentationFirst:
    """Makes defect maps by the segmentation head. If the head sees no defect, makes the map by Grad-CAM instead.

    The ensemble decides about a part, and the head has no vote. So the head may see no defect in a part that the ensemble called defective.
    Grad-CAM then shows what the ensemble's AlexNet looked at.
    """

    segmentation: HeatMapper
    grad_cam: HeatMapper

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of one picture. Its field `method` tells which of the two methods made the map."""
        found = self.segmentation.compute_defect_map(pixels)
        is_seen = found.box_level is None or float(found.heat.max(initial=0.0)) >= found.box_level
        return found if is_seen else self.grad_cam.compute_defect_map(pixels)


def open_heat_mapper(version: Version) -> HeatMapper | None:
    """Returns the warmed-up heat mapper of `version`, or None if the version has neither a segmentation head nor an AlexNet. Takes seconds.

    Raises ModelError if weights cannot be read.
    """
    # TensorFlow is imported only here, because a worker with another runtime may never open a heat mapper.
    from models.inference.grad_cam import open_grad_cam
    from models.inference.segmentation import open_segmentation

    segmentation, grad_cam = open_segmentation(version), open_grad_cam(version)
    if segmentation is None or grad_cam is None:
        return segmentation or grad_cam
    return SegmentationFirst(segmentation, grad_cam)
