"""Finds the place and the kind of the defects in a picture, with the segmentation head of a model version.

The module imports no TensorFlow, because an inspector with another runtime must start quickly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from models.inference.heat_map import DefectMap, name_largest_kind
from models.inference.runtimes.runtime import FLOAT32, open_flatbuffer
from models.registry import Version
from models.registry.manifest import SegmentationMember

METHOD = "segmentation"
# Batch sizes of the segmentation head. Only pictures with a defect need it, and a batch has few of them, so larger sizes save no time.
HEAD_BATCH_SIZES = (1, 4)

# A function that takes pictures, shape (n, side_px, side_px), and returns probabilities, shape (n, side_px, side_px, 1 + kinds).
ComputeProbabilities = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


class Segmentation:
    """Computes defect maps and names kinds of defect, for pictures with the side `side_px`.

    Several threads may call the methods at the same time. The event loop's thread must not call them, because a call takes long.
    """

    method = METHOD

    def __init__(self, compute: ComputeProbabilities, member: SegmentationMember, side_px: int) -> None:
        self.member = member
        self.side_px = side_px
        self._compute = compute

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        """Returns the defect map of a picture. `pixels`, shape (side_px, side_px), holds its grey levels, 0..255.

        The heat of a pixel is its defect probability, so the heat maps of two pictures can be compared.
        """
        return self._make_map(self.predict(pixels[np.newaxis])[0])

    def name_kinds(self, pixels: npt.NDArray[np.uint8]) -> list[str]:
        """Returns the kind of the largest defect of each picture, in order. Input shape: (n, side_px, side_px), grey levels 0..255.

        The kind is `unknown` if the segmentation head sees no defect or is not sure.
        """
        return [name_largest_kind(self._make_map(probabilities)) for probabilities in self.predict(pixels)]

    def _make_map(self, probabilities: npt.NDArray[np.float32]) -> DefectMap:
        member = self.member
        kinds = np.moveaxis(probabilities[..., 1:], -1, 0)
        return DefectMap(1 - probabilities[..., 0], self.method, member.box_level, member.kinds, kinds, member.least_certainty)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns probabilities for each pixel, shape (n, side_px, side_px, 1 + kinds).

        Channel 0 is the probability of no defect. Each further channel is the probability of one kind of defect.
        Input shape: (n, side_px, side_px), grey levels 0..255. Raises ValueError if the pictures have another size.
        """
        if pixels.shape[1:] != (self.side_px, self.side_px):
            raise ValueError(f"expected pictures of {self.side_px} x {self.side_px} px, found {pixels.shape[1:]}")
        return self._compute(pixels)


def open_segmentation(version: Version, runtime: str = FLOAT32, threads: int = 0) -> Segmentation | None:
    """Returns the warmed-up segmentation head of `version`, or None if the version has none. Takes a second.

    `runtime` names the runtime of the version's networks. The head is computed by the same library, always in float32.

    Raises ModelError if the weights cannot be read.
    """
    member = version.manifest.segmentation
    if member is None:
        return None
    side_px = version.manifest.preprocessing.side_px
    if runtime.startswith(FLOAT32):
        from models.networks.segmentation import load_segmentation_network, trace_head

        compute = trace_head(load_segmentation_network(version, member), member, side_px)
        compute(np.zeros((1, side_px, side_px), np.uint8))
    else:
        from models.inference.runtimes.conversion import get_head_flatbuffer

        compute = open_flatbuffer(get_head_flatbuffer(version, member), runtime, HEAD_BATCH_SIZES, side_px, threads).predict
        for size in HEAD_BATCH_SIZES:
            compute(np.zeros((size, side_px, side_px), np.uint8))
    return Segmentation(compute, member, side_px)
