"""The golden template: what it learns from good parts, what it finds, and where."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from models.anomaly.polar import PolarGrid
from models.anomaly.scorer import NO_PART_SCORE, AlarmShare, GoodOnlyScorer, choose_cut_off, load_arrays, save_arrays
from models.anomaly.template import GoldenTemplate, learn_golden_template
from models.pictures.part_finder import FoundPart, find_part
from models.synthetic import RenderedCasting, render_series
from models.training.labelled_pictures import find_pictures, read_pictures
from models.training.near_duplicates import group_near_duplicates
from streams.errors import ModelError
from tests.conftest import REAL_PICTURES, needs_real_pictures

SIDE_PX = 192
Pixels = npt.NDArray[np.uint8]


def resample(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


@cache
def castings() -> tuple[RenderedCasting, ...]:
    """Rendered castings in which the part is found. How many are missed is measured where the part finder is tested."""
    return tuple(casting for casting in render_series(140, seed=5) if find_part(resample(casting.pixels)) is not None)


@cache
def pictures(are_good: bool) -> Pixels:
    return np.stack([resample(casting.pixels) for casting in castings() if casting.is_ok == are_good])


@cache
def template() -> GoldenTemplate:
    return learn_golden_template(pictures(True)[:20])


@pytest.mark.real
def test_twenty_good_castings_tell_defective_castings_from_good_ones() -> None:
    good, bad = template().score(pictures(True)[20:]).scores, template().score(pictures(False)).scores
    assert roc_auc_score([0] * len(good) + [1] * len(bad), [*good, *bad]) > 0.95


@pytest.mark.real
def test_the_largest_residual_lies_on_the_defect() -> None:
    defective = [casting for casting in castings() if not casting.is_ok]
    residuals = template().score(np.stack([resample(casting.pixels) for casting in defective])).residuals
    hits = 0
    for casting, residual in zip(defective, residuals, strict=True):
        row, column = np.unravel_index(residual.argmax(), residual.shape)
        mask = np.asarray(Image.fromarray((casting.mask > 0).astype(np.uint8) * 255).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))
        hits += bool(mask[max(0, row - 5) : row + 6, max(0, column - 5) : column + 6].any())
    assert hits / len(defective) > 0.75


@pytest.mark.real
def test_the_score_is_the_largest_residual() -> None:
    found = template().score(pictures(False)[:8])
    assert found.scores == pytest.approx(found.residuals.max(axis=(1, 2)), rel=0.15)


@pytest.mark.real
def test_residuals_are_absolute() -> None:
    """A good part has small residuals everywhere. They are not stretched to the same largest value as those of a defective part."""
    good, bad = (template().score(pictures(are_good)[20:40]).residuals.max(axis=(1, 2)) for are_good in (True, False))
    assert np.median(bad) > 3 * np.median(good)


def overexpose_ring(pixels: Pixels) -> Pixels:
    """The pictures with a white ring, as a lamp clips it in every picture of a line."""
    result = pixels.copy()
    for picture in result:
        part = find_part(picture)
        assert part is not None
        rows, columns = np.mgrid[: len(picture), : len(picture)]
        x, y, (cos, sin) = columns - part.centre_x_px, rows - part.centre_y_px, (np.cos(part.angle_rad), np.sin(part.angle_rad))
        distance = np.hypot((x * cos + y * sin) / part.semi_major_px, (y * cos - x * sin) / part.semi_minor_px)
        picture[(distance > 0.45) & (distance < 0.8)] = 255
    return result


@pytest.mark.real
def test_a_ring_that_is_overexposed_in_every_picture_has_finite_scores() -> None:
    good, bad = overexpose_ring(pictures(True)[:40]), overexpose_ring(pictures(True)[40:50])
    bad[:, 86:106, 38:44] = 60
    learned = learn_golden_template(good[:20])
    assert (learned.texture == 0).any()
    scores = learned.score(good[20:]).scores
    assert np.isfinite(learned.limits).all()
    assert np.isfinite(choose_cut_off(scores, np.arange(len(scores)), AlarmShare(0.1)).score)
    assert np.median(learned.score(bad).scores) > 3 * np.median(scores)


@pytest.mark.real
def test_light_and_place_of_the_part_do_not_matter() -> None:
    good = pictures(True)[20:30]
    before = template().score(good).scores
    darker = (good * 0.7 + 20).astype(np.uint8)
    turned = np.rot90(good, axes=(1, 2))
    assert np.median(template().score(darker).scores / before) == pytest.approx(1, abs=0.15)
    assert np.median(template().score(np.ascontiguousarray(turned)).scores / before) == pytest.approx(1, abs=0.15)


@pytest.mark.real
def test_a_picture_without_a_part_has_a_finite_score_above_all_others() -> None:
    found = template().score(np.stack([np.zeros((SIDE_PX, SIDE_PX), np.uint8), pictures(False)[0]]))
    assert found.scores[0] == NO_PART_SCORE > found.scores[1]
    assert not found.residuals[0].any()


@pytest.mark.real
def test_a_template_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    scorer: GoodOnlyScorer = template()
    assert scorer.save(tmp_path) == ("golden-template.npz",)
    loaded = GoldenTemplate.load(tmp_path)
    assert np.array_equal(loaded.score(pictures(False)[:4]).scores, scorer.score(pictures(False)[:4]).scores)
    assert loaded.side_px == SIDE_PX


@pytest.mark.real
@pytest.mark.parametrize("name", ["shape", "texture", "limits"])
def test_a_damaged_template_is_refused_by_name(tmp_path: Path, name: str) -> None:
    template().save(tmp_path)
    path = tmp_path / "golden-template.npz"
    arrays = load_arrays(path, ("shape", "texture", "limits"))
    save_arrays(path, {**arrays, name: arrays[name].ravel()[:1] * np.nan})
    with pytest.raises(ModelError, match=r"golden-template\.npz"):
        GoldenTemplate.load(tmp_path)


@pytest.mark.real
def test_a_few_pictures_without_a_part_are_left_out() -> None:
    black = np.zeros((2, SIDE_PX, SIDE_PX), np.uint8)
    learned = learn_golden_template(np.concatenate((pictures(True)[:20], black)))
    assert np.array_equal(learned.limits, template().limits)


def test_pictures_without_parts_are_refused() -> None:
    with pytest.raises(ModelError, match="No part was found in 8 of 8"):
        learn_golden_template(np.zeros((8, SIDE_PX, SIDE_PX), np.uint8))
    with pytest.raises(ModelError, match="There are no good pictures"):
        learn_golden_template(np.zeros((0, SIDE_PX, SIDE_PX), np.uint8))


@pytest.mark.real
def test_equal_good_pictures_give_no_cut_off() -> None:
    learned = learn_golden_template(np.repeat(pictures(True)[:1], 10, axis=0))
    with pytest.raises(ModelError, match="same score"):
        choose_cut_off(learned.score(np.repeat(pictures(True)[:1], 10, axis=0)).scores, np.arange(10), AlarmShare(0.01))


@pytest.mark.real
def test_pictures_of_another_side_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, 192, 192\)"):
        template().score(np.zeros((1, 160, 160), np.uint8))


def test_an_ellipse_becomes_rows_and_comes_back_to_its_place() -> None:
    part = FoundPart(100.0, 90.0, 70.0, 50.0, 0.6)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    x, y = columns - part.centre_x_px, rows - part.centre_y_px
    along = x * np.cos(part.angle_rad) + y * np.sin(part.angle_rad)
    across = y * np.cos(part.angle_rad) - x * np.sin(part.angle_rad)
    radius = np.hypot(along / part.semi_major_px, across / part.semi_minor_px)
    grid = PolarGrid(60, 240, 0.1, 1.1)
    polar, is_inside = grid.unwrap((np.clip(radius, 0, 1.25) * 200).astype(np.uint8), part)
    assert is_inside.all()
    assert polar / 200 == pytest.approx(np.repeat(grid.radii[:, None], 240, axis=1), abs=0.02)
    back = grid.wrap((polar / 200).astype(np.float32), part, SIDE_PX, SIDE_PX)
    is_ring = (radius > 0.12) & (radius < 1.08)
    assert back[is_ring] == pytest.approx(radius[is_ring], abs=0.03)
    assert not back[(radius < 0.08) | (radius > 1.12)].any()


def test_places_outside_the_picture_are_marked() -> None:
    polar, is_inside = PolarGrid(20, 64, 0.1, 1.1).unwrap(np.full((64, 64), 7, np.uint8), FoundPart(5.0, 32.0, 25.0, 25.0, 0.0))
    assert is_inside[-1, 0]
    assert not is_inside[-1, 32]
    assert (polar == 7).all()


@pytest.mark.real
def test_a_part_at_the_edge_of_the_picture_gets_no_residual_outside() -> None:
    part = find_part(pictures(True)[0])
    assert part is not None
    moved = replace(part, centre_x_px=part.semi_minor_px * 0.8)
    residual = template().compare(pictures(True)[0], moved)
    _, is_inside = template().grid.unwrap(pictures(True)[0], moved)
    assert not residual[~is_inside].any()


@pytest.mark.real
@needs_real_pictures
def test_twenty_real_good_castings_tell_defective_ones_from_others() -> None:
    files = find_pictures([REAL_PICTURES / "casting" / "512"])
    read = read_pictures([*files[::4]], SIDE_PX)
    groups = group_near_duplicates(read.pixels, read.checksums)
    good = np.flatnonzero(read.labels == read.ok_class)
    seen, others = good[:20], np.setdiff1d(np.arange(len(read)), good[:20])
    others = others[~np.isin(groups[others], groups[seen])]
    scores = learn_golden_template(read.pixels[seen]).score(read.pixels[others]).scores
    assert roc_auc_score(read.labels[others] != read.ok_class, scores) > 0.85


@pytest.mark.real
def test_only_inspected_pixels_raise_the_score() -> None:
    pixels = pictures(False)[:4]
    parts = [part for one in pixels if (part := find_part(one)) is not None]
    residuals = template().score(pixels).residuals
    hot = residuals > 0.8 * residuals.max(axis=(1, 2), keepdims=True)
    whole, beside, none = (template().score_parts(pixels, parts, masks) for masks in (None, list(~hot), [np.zeros_like(hot[0])] * 4))
    assert np.allclose(beside, np.where(hot, 0, residuals).max(axis=(1, 2)))
    assert (beside < 0.81 * whole).all()
    assert not none.any()
