"""Learns a detail template from pictures of good parts with their original number of pixels, and chooses its cut-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.anomaly.detail_template import (
    STRIP_RINGS,
    DetailTemplate,
    choose_detail_grid,
    count_overlap_rings,
    cross_fit_detail_scores,
    learn_detail_template,
    measure_radius,
    measure_rings,
)
from models.anomaly.rim import refine_outline
from models.anomaly.scorer import MAX_MISSING_SHARE, CutOff, CutOffObjective, choose_cut_off
from models.pictures.decoder import PictureLimits, decode_picture
from models.pictures.part_finder import FoundPart, find_part
from models.registry.manifest import DetailEntry
from streams.errors import ModelError

# A template is learned from at most this many pictures, because the work for one picture takes a quarter of a second.
MAX_PICTURES = 200
RADIUS_PICTURES = 5
# The networks see a reduced picture. The longer side of the original picture must be at least this many times the side of the reduced
# picture. A smaller original would show hardly more defects.
LEAST_REDUCTION = 1.5
# The decoder always makes a reduced picture with this side. This module uses only the original picture.
_REDUCED_SIDE_PX = 192


@dataclass(frozen=True, slots=True)
class LearnedDetails:
    """A detail template, which finds small defects, and its cut-off. A part with a score above the cut-off is unusual."""

    template: DetailTemplate
    cut_off: CutOff

    def save(self, folder: Path) -> DetailEntry:
        """Writes the template into `folder`, the folder of a new version. Returns the entry for the manifest."""
        return DetailEntry(
            file=self.template.save(folder),
            radius_px=self.template.radius_px,
            rings=self.template.grid.rings,
            strip_rings=STRIP_RINGS,
            overlap_rings=count_overlap_rings(self.template.grid),
            cut_off=self.cut_off.score,
            alarm_share=self.cut_off.alarm_share,
            highest_alarm_share=self.cut_off.highest_alarm_share,
            good_pictures=self.cut_off.good_pictures,
        )


def learn_details(
    paths: Sequence[Path], groups: npt.NDArray[np.int32], side_px: int, objective: CutOffObjective, depth_bits: int | None = None
) -> LearnedDetails:
    """Learns a detail template from the pictures `paths` of good parts, and chooses its cut-off.

    - `groups`, shape (n,): the group of near-duplicates of each picture.
    - `side_px`: the side of the version's reduced pictures.
    - `objective`: the goal of the cut-off, for example at most one false alarm an hour.

    At most MAX_PICTURES pictures are used, evenly spread over `paths`. Raises ModelError in these cases:

    - The original pictures are hardly larger than the reduced ones.
    - No part is found in more than MAX_MISSING_SHARE of the pictures.
    - The part is too small, or no cut-off can be chosen.
    """
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(MAX_PICTURES, len(paths))).astype(np.int64)) if len(paths) else np.array([], int)
    radii = [measure_radius(found[1]) for index in chosen[:RADIUS_PICTURES] if (found := _find(paths[index], side_px, depth_bits))]
    if not radii:
        raise ModelError("No part was found in the first good pictures. Give pictures that show the whole part.")
    radius_px = float(np.median(radii))
    grid = choose_detail_grid(radius_px)
    measures, measured_groups = [], []
    for index in chosen:
        found = _find(paths[index], side_px, depth_bits)
        measured = measure_rings(found[0], refine_outline(*found), grid) if found else None
        if measured is not None:
            measures.append(measured)
            measured_groups.append(groups[index])
    missing = len(chosen) - len(measures)
    if missing > MAX_MISSING_SHARE * len(chosen):
        raise ModelError(
            f"No part was found in {missing} of {len(chosen)} good pictures. Remove the pictures that do not show the whole part, or move "
            "the camera so that the whole rim is in the picture."
        )
    castings = np.array(measured_groups, np.int32)
    scores = cross_fit_detail_scores(measures, castings, grid, radius_px)
    return LearnedDetails(learn_detail_template(measures, grid, radius_px), choose_cut_off(scores, castings, objective))


def _find(path: Path, side_px: int, depth_bits: int | None) -> tuple[npt.NDArray[np.uint8], FoundPart] | None:
    """Returns the original pixels of the picture at `path` and the outline of its part, or None if no part is found.

    Raises ModelError if the picture is not clearly larger than the reduced pictures.
    """
    original = decode_picture(path.read_bytes(), _REDUCED_SIDE_PX, PictureLimits(), depth_bits, keep_original=True).original
    assert original is not None
    if max(original.shape) < LEAST_REDUCTION * side_px:
        raise ModelError(
            f"The picture {path} has {original.shape[1]} x {original.shape[0]} px. The search for small defects needs a longer side of at "
            f"least {LEAST_REDUCTION * side_px:g} px. Leave out --details, or give the pictures of the camera in their original size."
        )
    part = find_part(original)
    return None if part is None else (original, part)
