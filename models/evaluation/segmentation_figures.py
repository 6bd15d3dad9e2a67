"""Compares defect maps with pictures in which people have marked the defects. Do the maps show where the defects are, and of which kind?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.evaluation.localisation import measure_localisation
from models.inference.heat_map import UNKNOWN_KIND, DefectMap, HeatMap, name_largest_kind
from models.inference.segmentation import Segmentation
from models.registry.version_report import LocalisationFigures, Proportion
from models.training.marked_pictures import BOX_MARK, MarkedPictures


@dataclass(frozen=True, slots=True)
class KindFigures:
    """Figures that say how often the kind of the largest defect is named correctly. Only pictures with a mask count.

    - `right`: share of the pictures with the right kind.
    - `named`: share of the pictures for which the answer is a kind of defect, and not `unknown`.
    - `right_if_named`: share of right answers among these pictures.
    - `pairs`: number of pictures for each pair of true kind and answer.
    """

    right: Proportion
    named: Proportion
    right_if_named: Proportion | None
    pairs: dict[tuple[str, str], int]


def find_largest_kind(marks: npt.NDArray[np.uint8]) -> int:
    """Finds the largest defect in one picture. Returns the number of its kind, or 0 if there is no defect.

    `marks`, shape (side, side), says for each pixel which kind of defect it shows (see `MarkedPictures`). Marks of a box around a
    defect do not count. A defect is a region of marked pixels that touch, also at corners. The most frequent mark in the region is the
    defect's kind.
    """
    marks = np.where(marks < BOX_MARK, marks, 0)
    labels, count = ndimage.label(marks > 0, np.ones((3, 3), np.int8))
    if not count:
        return 0
    largest = int(np.bincount(labels.ravel())[1:].argmax()) + 1
    return int(np.bincount(marks[labels == largest]).argmax())


def measure_kinds(answers: Sequence[str], pictures: MarkedPictures) -> KindFigures:
    """Compares `answers`, a kind of defect for each picture, with the true kinds. Pictures without a mask do not count.

    The true kind of a picture is the kind of the largest defect in its mask.
    """
    pairs: dict[tuple[str, str], int] = {}
    for answer, marks in zip(answers, pictures.marks, strict=True):
        number = find_largest_kind(marks)
        if number:
            pair = (pictures.kinds[number - 1], answer)
            pairs[pair] = pairs.get(pair, 0) + 1
    total = sum(pairs.values())
    right = sum(count for (truth, answer), count in pairs.items() if truth == answer)
    named = total - sum(count for (_, answer), count in pairs.items() if answer == UNKNOWN_KIND)
    return KindFigures(
        Proportion.from_counts(right, total),
        Proportion.from_counts(named, total),
        Proportion.from_counts(right, named) if named else None,
        pairs,
    )


def measure_maps(maps: Sequence[DefectMap], masks: npt.NDArray[np.bool_]) -> LocalisationFigures:
    """Measures how well defect maps agree with the masks of the same pictures. Shape of `masks`: (n, side, side)."""
    heats = [resize_heat(found.heat, masks.shape[1]) for found in maps]
    return measure_localisation(heats, list(masks), maps[0].box_level)


def name_kinds(maps: Sequence[DefectMap]) -> list[str]:
    """Returns the kind of the largest defect in each defect map."""
    return [name_largest_kind(found) for found in maps]


def measure_head(head: Segmentation, pictures: MarkedPictures) -> dict[str, float]:
    """Measures how well the segmentation head `head` finds defects.

    Uses only good pictures and pictures with a mask that shows their defects.

    Returns the measures by their names in the manifest.
    """
    chosen = pictures.select(pictures.has_mask | pictures.is_good)
    maps = [head.compute_defect_map(picture) for picture in chosen.pixels]
    found = measure_maps(maps, chosen.marks > 0)
    kinds = measure_kinds(head.name_kinds(chosen.pixels), chosen)
    figures = {
        "pictures": float(len(chosen)),
        "pointing": found.pointing.value,
        "kind_right": kinds.right.value,
        "kind_named": kinds.named.value,
    }
    optional = {"pixel_auroc": found.pixel_auroc, "aupro": found.aupro}
    return figures | {name: value for name, value in optional.items() if value is not None}


def resize_heat(heat: HeatMap, side_px: int) -> HeatMap:
    """Returns `heat`, resampled to `side_px` x `side_px`."""
    return np.asarray(Image.fromarray(heat.astype(np.float32)).resize((side_px, side_px), Image.Resampling.BILINEAR))
