"""The detail template finds defects of a few pixels in large pictures, within bounds of time and memory.

The pictures have 1000 px, and the defects are 6 px long, like a defect of 1 mm in a picture of 5 megapixels. So the tests are quick.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.anomaly.detail_template import (
    FORMAT,
    INNER_RADIUS,
    OUTER_RADIUS,
    SPREAD,
    DetailTemplate,
    RingMeasures,
    choose_detail_grid,
    cross_fit_detail_scores,
    learn_detail_template,
    measure_radius,
    measure_rings,
)
from models.anomaly.polar import PolarGrid, circle_to_ellipse
from models.anomaly.rim import refine_outline
from models.anomaly.scorer import NO_PART_SCORE, AlarmShare, choose_cut_off, load_arrays, save_arrays
from models.anomaly.template import SMOOTHING_STEPS, compare_places, measure_texture
from models.pictures.part_finder import find_part
from models.synthetic.impeller import CameraView
from models.synthetic.large_casting import SMALL_KINDS, LargeCasting, SmallDefect, render_large_casting
from streams.errors import ModelError

SIDE_PX = 1000
LENGTH_MM = 2.2
GOOD = 16
TESTED = 12
SLOW_S = 3600.0
Pixels = npt.NDArray[np.uint8]


@cache
def casting(number: int) -> LargeCasting:
    return render_large_casting(np.random.default_rng([4, number]), SIDE_PX)


@cache
def picture(number: int, with_defect: bool = False) -> tuple[Pixels, SmallDefect | None]:
    kind = SMALL_KINDS[number % len(SMALL_KINDS)] if with_defect else None
    return casting(number).expose(kind, LENGTH_MM, np.random.default_rng([5, number]))


@cache
def learn() -> tuple[DetailTemplate, float]:
    """Returns the template of the good castings and its cut-off for 1 % false alarms."""
    parts = [(picture(number)[0], find_part(picture(number)[0])) for number in range(GOOD)]
    found = [(pixels, part) for pixels, part in parts if part is not None]
    radius_px = float(np.median([measure_radius(part) for _, part in found]))
    grid = choose_detail_grid(radius_px)
    measures = [one for pixels, part in found if (one := measure_rings(pixels, refine_outline(pixels, part), grid)) is not None]
    castings = np.arange(len(measures), dtype=np.int32)
    scores = cross_fit_detail_scores(measures, castings, grid, radius_px)
    return learn_detail_template(measures, grid, radius_px), choose_cut_off(scores, castings, AlarmShare(0.01)).score


@pytest.mark.real
def test_defects_of_six_pixels_are_found_where_they_are() -> None:
    template, cut_off = learn()
    found = 0
    for number in range(GOOD, GOOD + TESTED):
        pixels, defect = picture(number, with_defect=True)
        score = template.score(pixels, SLOW_S)
        assert defect is not None
        is_near = np.hypot(score.x_px - defect.x_px, score.y_px - defect.y_px) < 12
        found += score.score > cut_off and is_near
    assert found >= 0.9 * TESTED


@pytest.mark.real
def test_good_castings_are_below_the_cut_off() -> None:
    template, cut_off = learn()
    assert sum(template.score(picture(number)[0], SLOW_S).score > cut_off for number in range(GOOD, GOOD + TESTED)) <= 1


@pytest.mark.real
def test_strips_change_the_memory_and_not_the_result() -> None:
    template, _ = learn()
    pixels = picture(0)[0]
    part = find_part(pixels)
    assert part is not None
    memory, results = [], []
    for strip_rings in (32, template.grid.rings):
        tracemalloc.start()
        results.append(measure_rings(pixels, part, template.grid, strip_rings=strip_rings))
        memory.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    strips, whole = results
    assert strips is not None
    assert whole is not None
    assert np.allclose(strips.extremes, whole.extremes, rtol=1e-3, atol=1e-4)
    assert memory[0] < 0.3 * memory[1]


def test_a_ring_that_is_overexposed_in_every_picture_has_finite_scores() -> None:
    """Such a ring has no texture and no differences, and 0 must not be divided by 0."""
    random, shape = np.random.default_rng(1), (2, len(SMOOTHING_STEPS), 40)
    grid = PolarGrid(40, 160, INNER_RADIUS, OUTER_RADIUS)
    measures = []
    for _ in range(20):
        texture, extremes = random.uniform(0.01, 0.02, shape[1:]), random.uniform(0.02, 0.1, shape)
        texture[:, 10:20], extremes[:, :, 10:20] = 0, 0
        measures.append(RingMeasures(texture.astype(np.float32), extremes.astype(np.float32), np.zeros(shape, np.int32)))
    scores = cross_fit_detail_scores(measures, np.arange(20, dtype=np.int32), grid, 300)
    template = learn_detail_template(measures, grid, 300)
    assert np.isfinite(scores).all()
    assert np.isfinite(template.limits).all()
    stained = replace(measures[0], extremes=measures[0].extremes + np.float32(0.1))
    assert np.isfinite(template.compare(stained)).all()
    assert template.compare(stained).max() > 5 * scores.max()


def test_the_noise_of_the_places_beside_a_small_defect_hides_less_of_the_defect() -> None:
    polar = np.random.default_rng(8).normal(0, 1, (120, 2000)).astype(np.float32)
    defective = polar.copy()
    defective[58:62, 998:1002] += 4
    shares = []
    for spread in (0, SPREAD):
        good, found = (compare_places(levels, (22, 45), (11, 22), spread) for levels in (polar, defective))
        shares.append((found - good)[0, 58:62, 998:1002].mean() / measure_texture(good)[0].mean())
    single, averaged = shares
    assert averaged > 1.1 * single


def test_a_point_of_a_small_part_is_never_compared_with_itself() -> None:
    polar = np.zeros((60, 600), np.float32)
    polar[28:32, 298:302] = 1
    differences = compare_places(polar, (8, 16), (8, 16), 50)
    assert differences[0, 29:31, 299:301].min() > 0.99


def test_the_number_of_rings_has_a_limit_so_time_and_memory_have_one() -> None:
    small, large = choose_detail_grid(1000), choose_detail_grid(20_000)
    assert large.rings == 2000
    assert large.angles < 2.2 * small.angles


@pytest.mark.real
def test_a_picture_that_cannot_be_inspected_gets_the_highest_score_and_a_reason() -> None:
    template, _ = learn()
    pixels = picture(0)[0]
    noise = np.random.default_rng(1).integers(0, 255, (SIDE_PX, SIDE_PX), np.uint8)
    coarse = np.asarray(Image.fromarray(pixels).resize((SIDE_PX // 2, SIDE_PX // 2)))
    scores = [template.score(noise, SLOW_S), template.score(coarse, SLOW_S), template.score(pixels, 0)]
    assert [score.skipped for score in scores] == ["no-part", "too-coarse", "too-slow"]
    assert {score.score for score in scores} == {NO_PART_SCORE}


@pytest.mark.real
@pytest.mark.parametrize(("blur_px", "most_px"), [(0, 3.5), (2, 12), (3, 12), (4, 12)])
def test_the_outline_is_moved_to_the_rim(blur_px: int, most_px: float) -> None:
    """The part finder works at 160 px, so its outline is up to 15 px beside the rim in a picture of 1000 px (casting 5).

    In castings 5, 7 and 13, a soft shadow inside the rim is a stronger edge than the rim. In blurred pictures the outline moves to this
    shadow. The shadow of casting 5 is 22 px inside the rim, so casting 5 is left out there.
    """
    for number in range(GOOD):
        if blur_px >= 3 and number == 5:
            continue
        pixels = picture(number)[0]
        if blur_px:
            pixels = add_blur_and_noise(pixels, blur_px, np.random.default_rng([6, number]))
        assert measure_distance_from_rim(casting(number).view, pixels) < most_px


def add_blur_and_noise(pixels: Pixels, blur_px: int, rng: np.random.Generator) -> Pixels:
    blurred = gaussian_filter(pixels.astype(np.float32), blur_px) + rng.normal(0, 2, pixels.shape)
    noisy: Pixels = np.clip(np.rint(blurred), 0, 255).astype(np.uint8)
    return noisy


def measure_distance_from_rim(view: CameraView, pixels: Pixels) -> float:
    """Returns the largest distance between the outline that was moved to the rim and the real rim, in pixels."""
    part = find_part(pixels)
    assert part is not None
    refined = refine_outline(pixels, part)
    centre_px = np.array((refined.centre_x_px, refined.centre_y_px))
    rim_px = [find_rim_point(view, direction) - centre_px for direction in np.linspace(0, 2 * np.pi, 90)]
    radii = np.hypot(*np.linalg.solve(circle_to_ellipse(refined), np.transpose(rim_px)))
    return float(np.abs(radii - 1).max() * view.radius_px)


def find_rim_point(view: CameraView, direction: float) -> npt.NDArray[np.float64]:
    """Returns x and y of the point of the rim in this direction, in pixels."""
    cos, sin = np.cos(view.tilt), np.sin(view.tilt)
    short, long = np.cos(direction - view.tilt) * view.squash, np.sin(direction - view.tilt)
    return np.array(view.centre_px) + view.radius_px * np.array((short * cos - long * sin, -(short * sin + long * cos)))


@pytest.mark.real
def test_a_ring_that_is_nearly_black_is_compared_with_the_texture_of_good_parts() -> None:
    template, _ = learn()
    pixels = picture(0)[0]
    part = find_part(pixels)
    assert part is not None
    measures = measure_rings(pixels, refine_outline(pixels, part), template.grid)
    assert measures is not None
    usual, black = replace(measures, texture=template.texture), replace(measures, texture=template.texture / np.float32(10))
    assert np.array_equal(template.compare(black), template.compare(usual))


def test_parts_that_are_small_in_the_picture_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 200 px"):
        choose_detail_grid(150)


@pytest.mark.real
def test_a_template_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    template, _ = learn()
    path = tmp_path / template.save(tmp_path)
    again = DetailTemplate.load(path)
    assert again.grid == template.grid
    assert again.score(picture(1)[0], SLOW_S) == template.score(picture(1)[0], SLOW_S)
    arrays = load_arrays(path, ("format", "shape", "texture", "limits"))
    save_arrays(path, {**arrays, "limits": arrays["limits"] * 0})
    with pytest.raises(ModelError, match="impossible numbers"):
        DetailTemplate.load(path)
    save_arrays(path, {**arrays, "limits": arrays["limits"][0]})
    with pytest.raises(ModelError, match="does not hold a detail template"):
        DetailTemplate.load(path)


@pytest.mark.real
@pytest.mark.parametrize("written", [None, FORMAT - 1, FORMAT + 1])
def test_a_template_of_another_release_is_refused_and_the_error_names_the_command(tmp_path: Path, written: int | None) -> None:
    """The limits of such a template belong to residuals that another release computed in another way."""
    template, _ = learn()
    path = tmp_path / template.save(tmp_path)
    arrays = load_arrays(path, ("format", "shape", "texture", "limits"))
    former = {} if written is None else {"format": np.array(written)}
    save_arrays(path, {**{name: arrays[name] for name in ("shape", "texture", "limits")}, **former})
    with pytest.raises(ModelError, match=r"detail-template.npz .* another release.*castline train --details"):
        DetailTemplate.load(path)


def test_an_arc_and_a_distance_are_counted_in_angles_and_rings() -> None:
    grid = PolarGrid(101, 628, 0.0, 1.0)
    assert grid.count_angles((0.1, 0.2)) == (10, 20)
    assert grid.count_rings((0.1, 0.2)) == (10, 20)
