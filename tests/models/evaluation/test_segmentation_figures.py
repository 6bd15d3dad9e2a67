"""Figures of defect maps: the kind of the largest defect, and how often it is named rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.evaluation.localisation import make_mapper_source, make_residual_source
from models.evaluation.segmentation_figures import find_largest_kind, measure_kinds, measure_maps
from models.inference.heat_map import UNKNOWN_KIND, DefectMap
from models.training.marked_pictures import BOX_MARK, MarkedPictures
from tests.models.inference.test_defect_locator import OneSpotScorer

SIDE_PX = 16


def make_marks(*areas: tuple[slice, int]) -> npt.NDArray[np.uint8]:
    marks = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for span, mark in areas:
        marks[span, span] = mark
    return marks


@pytest.mark.parametrize(
    ("marks", "kind"),
    [
        (make_marks(), 0),
        (make_marks((slice(1, 5), 2), (slice(8, 10), 1)), 2),
        # A box is larger, but only masks say which pixels show the defect.
        (make_marks((slice(0, 3), 1), (slice(5, 16), BOX_MARK + 2)), 1),
        # Two regions that touch are one defect. Most of its pixels have the kind 3.
        (make_marks((slice(2, 4), 1), (slice(4, 8), 3)), 3),
    ],
)
def test_the_largest_region_of_a_mask_gives_the_kind(marks: npt.NDArray[np.uint8], kind: int) -> None:
    assert find_largest_kind(marks) == kind


def test_kinds_are_counted_by_truth_and_answer_and_unknown_is_not_named() -> None:
    marks = np.stack([make_marks((slice(1, 4), 1)), make_marks((slice(1, 4), 2)), make_marks((slice(1, 4), 2)), make_marks()])
    pictures = MarkedPictures(marks, marks, ("hole", "flash"), (Path("a"),) * 4, ("", "", "", ""))
    figures = measure_kinds(["hole", "hole", UNKNOWN_KIND, "flash"], pictures)
    assert (figures.right.count, figures.right.of, figures.named.count) == (1, 3, 2)
    assert figures.right_if_named is not None
    assert figures.right_if_named.value == 0.5
    assert figures.pairs == {("hole", "hole"): 1, ("flash", "hole"): 1, ("flash", UNKNOWN_KIND): 1}


def test_a_map_of_another_size_is_compared_with_the_mask_in_the_masks_size() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[2:4, 2:4] = 0.9
    mask = make_marks((slice(4, 8), 1)) > 0
    figures = measure_maps([DefectMap(heat, "segmentation", 0.5)], mask[np.newaxis])
    assert figures.pointing.value == 1
    assert figures.box_iou is not None
    assert figures.box_iou > 0.6


def test_a_scorer_and_a_mapper_are_sources_of_heat_maps() -> None:
    scorer = OneSpotScorer(SIDE_PX)
    pixels = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    source = make_residual_source(scorer)
    assert (source.name, source.side_px, float(source.compute(pixels).max())) == ("residual of one-spot", SIDE_PX, 3.0)

    class LevelMapper:
        def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
            return DefectMap(np.zeros(pixels.shape, np.float32), "segmentation", 0.25)

    assert make_mapper_source("segmentation", LevelMapper(), SIDE_PX).box_level == 0.25
