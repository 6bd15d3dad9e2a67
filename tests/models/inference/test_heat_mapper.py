"""Heat maps of versions without networks, and boxes whose level is absolute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import pytest

from models.anomaly.scorer import AnomalyScores
from models.anomaly.version_scorers import VersionScorer
from models.inference.heat_map import UNKNOWN_KIND, DefectMap, find_boxes, name_kind, name_largest_kind
from models.inference.heat_mapper import CombinedMapper, ResidualMapper, combine_heat


@dataclass
class OneSpotScorer:
    """A scorer whose residual is 3 in one spot and 0 elsewhere."""

    side_px: int = 16
    name: ClassVar[str] = "one-spot"

    def score(self, pixels: npt.NDArray[np.uint8]) -> AnomalyScores:
        residuals = np.zeros(pixels.shape, np.float32)
        residuals[:, 4:6, 8:10] = 3
        return AnomalyScores(np.full(len(pixels), 3, np.float32), residuals)

    def score_parts(self, pixels: npt.NDArray[np.uint8], parts: object, masks: object = None) -> npt.NDArray[np.float32]:
        return self.score(pixels).scores

    def save(self, folder: Path) -> tuple[str, ...]:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise NotImplementedError


def test_a_residual_at_the_cut_off_has_the_heat_one_half() -> None:
    found = ResidualMapper(VersionScorer(OneSpotScorer(), 3.0)).compute_defect_map(np.zeros((16, 16), np.uint8))
    assert (found.method, float(found.heat.max()), found.kinds) == ("residual", 0.5, ())
    (box,) = found.find_boxes(160, 160)
    assert (box.left_px, box.top_px, box.width_px, box.height_px, box.kind) == (80, 40, 20, 20, "")


def make_map(*areas: tuple[slice, float, int]) -> DefectMap:
    """A map of 32 x 32 px. Each area is a slice of rows and columns, with its heat and the number of its kind."""
    heat, kinds = np.zeros((32, 32), np.float32), np.zeros((2, 32, 32), np.float32)
    for span, level, kind in areas:
        heat[span, span] = level
        kinds[kind, span, span] = level
    return DefectMap(heat, "segmentation", 0.5, ("hole", "flash"), kinds, 0.6)


def test_a_map_with_a_level_has_no_box_where_no_defect_is_probable() -> None:
    assert make_map((slice(2, 8), 0.4, 0)).find_boxes(32, 32) == []
    assert len(find_boxes(make_map((slice(2, 8), 0.4, 0)).heat, 32, 32)) == 1, "without a level, the hottest place always has a box"


def test_the_largest_defect_names_the_part_even_if_a_smaller_one_is_hotter() -> None:
    found = make_map((slice(2, 4), 1.0, 0), (slice(10, 20), 0.6, 1))
    assert name_largest_kind(found) == "flash"
    assert [(box.kind, box.area_px) for box in found.find_boxes(32, 32)] == [("hole", 4), ("flash", 100)]


@pytest.mark.parametrize(("shares", "kind"), [((6.1, 3.9), "hole"), ((5.9, 4.1), UNKNOWN_KIND), ((0.0, 0.0), UNKNOWN_KIND)])
def test_a_kind_that_is_not_sure_is_unknown(shares: tuple[float, float], kind: str) -> None:
    assert name_kind(np.array(shares, np.float32), ("hole", "flash"), 0.6) == kind


def test_the_length_of_a_defect_is_its_largest_diameter_in_pixels_of_the_picture() -> None:
    heat = np.zeros((32, 32), np.float32)
    heat[np.arange(20), np.arange(20)] = heat[np.arange(20), np.arange(20) + 1] = 1
    (line,) = find_boxes(heat, 320, 320)
    assert line.length_px == pytest.approx(10 * np.hypot(20, 21), rel=0.01)
    assert line.area_px == pytest.approx(40 * 100)


@dataclass
class OneSpotHead:
    """A segmentation head that sees a hole with this probability, away from the spot of `OneSpotScorer`."""

    probability: float

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        heat = np.zeros(pixels.shape, np.float32)
        heat[10:14, 2:6] = self.probability
        return DefectMap(heat, "segmentation", 0.3, ("hole",), heat[np.newaxis], 0.2)


def test_a_combined_map_is_hot_where_the_head_or_the_scorer_is_and_keeps_the_kinds() -> None:
    pixels = np.zeros((16, 16), np.uint8)
    mapper = CombinedMapper(OneSpotHead(0.9), ResidualMapper(VersionScorer(OneSpotScorer(), 1.5)))
    found = mapper.compute_defect_map(pixels)
    assert (found.method, found.box_level) == ("segmentation+residual", 0.5)
    boxes = found.find_boxes(16, 16)
    assert sorted((box.left_px, box.top_px, box.kind) for box in boxes) == [(2, 10, "hole"), (8, 4, UNKNOWN_KIND)]
    doubtful = CombinedMapper(OneSpotHead(0.1), ResidualMapper(VersionScorer(OneSpotScorer(), 9.0))).compute_defect_map(pixels)
    assert doubtful.find_boxes(16, 16) == []


def test_two_maps_that_are_nearly_sure_of_the_same_place_are_sure_together() -> None:
    nearly = np.full((16, 16), 0.4, np.float32)
    assert np.allclose(combine_heat(nearly, nearly, 0.6), 1 - 0.6 * 0.6)
    assert (combine_heat(nearly, nearly, 0.6) > 0.5).all()
