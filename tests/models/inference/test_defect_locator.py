"""The defect map covers all that decided about a part. Versions without networks have heat maps, and some boxes have absolute levels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import pytest

from models.anomaly.detail_template import choose_detail_grid, learn_detail_template, measure_radius, measure_rings
from models.anomaly.rim import refine_outline
from models.anomaly.scorer import AnomalyScores
from models.anomaly.version_scorers import VersionDetails, VersionScorer
from models.inference.defect_locator import CombinedMapper, DefectLocator, ResidualMapper, combine_heat
from models.inference.heat_map import MAX_BOXES, MAX_DEFECTS, UNKNOWN_KIND, DefectMap, find_boxes, name_kind, name_largest_kind
from models.pictures.decoder import DecodedPicture, decode_picture
from models.pictures.part_finder import find_part
from models.synthetic.casting import encode_jpeg
from models.synthetic.defects import DefectKind
from models.synthetic.large_casting import LargeCasting, SmallDefect, render_large_casting


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


@pytest.mark.parametrize(
    ("names_kinds", "spots", "leaves_out"),
    [(True, MAX_DEFECTS, False), (True, MAX_DEFECTS + 1, True), (False, MAX_BOXES, False), (False, MAX_BOXES + 1, True)],
)
def test_a_map_with_more_hot_areas_than_boxes_says_so(names_kinds: bool, spots: int, leaves_out: bool) -> None:
    heat = np.zeros((32, 32), np.float32)
    heat[::4, ::4].flat[:spots] = 1
    found = DefectMap(heat, "segmentation", 0.5, ("hole",), heat[np.newaxis] if names_kinds else None)
    assert (len(found.find_boxes(32, 32)), found.leaves_out_areas()) == (spots - leaves_out, leaves_out)
    assert not DefectMap(np.zeros((32, 32), np.float32), "segmentation", 0.5).leaves_out_areas()


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


LARGE_PX, SIDE_PX, GOOD = 800, 128, 12
SUSPICIOUS = {"detail-template": 0.8}


@cache
def casting(number: int) -> LargeCasting:
    return render_large_casting(np.random.default_rng([6, number]), LARGE_PX)


@cache
def picture(number: int, kind: DefectKind | None = None) -> tuple[DecodedPicture, SmallDefect | None]:
    """A casting in a wide picture, which the decoder pads. A defect is 6 px long in the original and 1 px in the reduced picture."""
    pixels, defect = casting(number).expose(kind, 2.8, np.random.default_rng([7, number]))
    wide = np.pad(pixels, ((0, 0), (0, 160)), mode="edge")
    return decode_picture(encode_jpeg(wide), SIDE_PX, keep_original=True), defect


@cache
def learn() -> VersionDetails:
    found = []
    for number in range(GOOD):
        original = picture(number)[0].original
        assert original is not None
        part = find_part(original)
        assert part is not None
        found.append((original, refine_outline(original, part)))
    radius_px = float(np.median([measure_radius(part) for _, part in found]))
    grid = choose_detail_grid(radius_px)
    measures = [one for pixels, part in found if (one := measure_rings(pixels, part, grid)) is not None]
    return VersionDetails(learn_detail_template(measures, grid, radius_px), 2.0, 600.0)


@dataclass(frozen=True)
class CornerMapper:
    """Sees the heat `heat` in a corner of the part, far from the small defects, by the method `method`."""

    method: str = "grad-cam"
    heat: float = 1.0
    box_level: float | None = None

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        heat = np.zeros(pixels.shape, np.float32)
        heat[60:64, 60:64] = self.heat
        return DefectMap(heat, self.method, self.box_level)


def locate(mapper: CornerMapper | None, label: str = "review", number: int = GOOD) -> tuple[DefectMap, SmallDefect]:
    decoded, defect = picture(number, DefectKind.BLOW_HOLE)
    assert defect is not None
    found = DefectLocator(mapper, SIDE_PX, learn()).locate(decoded, label, SUSPICIOUS)  # type: ignore[arg-type]  # labels are literals
    assert found is not None
    return found, defect


def test_the_hottest_box_lies_on_the_small_defect_in_original_pixels() -> None:
    for number in range(GOOD, GOOD + 5):
        found, defect = locate(None, number=number)
        box = found.find_boxes(LARGE_PX + 160, LARGE_PX)[0]
        assert box.left_px - 2 <= defect.x_px <= box.left_px + box.width_px + 2
        assert box.top_px - 2 <= defect.y_px <= box.top_px + box.height_px + 2
        assert 2 <= max(box.width_px, box.height_px) <= 24, "the defect is 6 px long"
        assert box.is_small


def test_the_map_shows_the_small_defect_at_its_place() -> None:
    found, defect = locate(None)
    assert found.method == "detail-template"
    assert found.heat.shape == (107, 128), "a picture of 960 x 800 px without margins"
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    scale = 128 / (LARGE_PX + 160)
    assert abs(row - defect.y_px * scale) < 2
    assert abs(column - defect.x_px * scale) < 2
    assert found.heat.max() > 0.5


@pytest.mark.parametrize(
    ("mapper", "label", "method"),
    [
        (CornerMapper(), "review", "detail-template"),
        (CornerMapper(), "defect", "grad-cam+detail-template"),
        (CornerMapper("residual", 0.4), "review", "detail-template"),
        (CornerMapper("residual", 0.7), "review", "residual+detail-template"),
        (CornerMapper("segmentation", 0.2, 0.3), "defect", "detail-template"),
        (CornerMapper("segmentation", 0.4, 0.3), "review", "segmentation+detail-template"),
    ],
)
def test_the_map_holds_what_decided_and_nothing_else(mapper: CornerMapper, label: str, method: str) -> None:
    found, _ = locate(mapper, label)
    alone, _ = locate(None)
    small = len(alone.find_boxes(1, 1))
    boxes = found.find_boxes(LARGE_PX + 160, LARGE_PX)
    assert found.method == method
    assert [box.is_small for box in boxes] == [True] * small + [False] * ("+" in method)
    assert np.array_equal(found.heat, alone.heat) == ("+" not in method)


def test_a_part_that_the_detail_template_did_not_find_suspicious_is_not_searched() -> None:
    decoded, _ = picture(GOOD)
    locator = DefectLocator(CornerMapper(), SIDE_PX, learn())
    assert not locator.needs_original({"detail-template": 0.5})
    found = locator.locate(replace(decoded, original=None), "review", {"detail-template": 0.2})
    assert found is not None
    assert found.method == "grad-cam"


def test_ignored_regions_hold_no_box() -> None:
    decoded, _ = picture(GOOD, DefectKind.BLOW_HOLE)
    locator = DefectLocator(CornerMapper("residual", 0.9), SIDE_PX, learn())
    found = locator.locate(decoded, "review", SUSPICIOUS, lambda rows, columns: np.zeros((rows, columns), np.bool_))
    assert found is not None
    assert found.find_boxes(LARGE_PX + 160, LARGE_PX) == []


def test_a_picture_that_cannot_be_searched_has_the_map_of_the_networks() -> None:
    decoded, _ = picture(GOOD)
    hurried = replace(learn(), time_s=0.0)
    found = DefectLocator(CornerMapper(), SIDE_PX, hurried).locate(decoded, "review", SUSPICIOUS)
    assert found is not None
    assert found.method == "grad-cam"
    assert DefectLocator(None, SIDE_PX, hurried).locate(decoded, "review", SUSPICIOUS) is None
