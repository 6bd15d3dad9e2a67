"""Faults of a camera, found from rendered pictures with such faults, and drift against a version's reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest

from models.inference.camera_condition import BLURRED, BRIGHT, DARK, FROZEN, GAP, CameraCondition
from models.inference.drift import bin_shares, compute_prediction_drift, compute_stability_index, make_drift_reference, measure_picture
from models.registry import Version, add_drift_reference, locate_version
from models.registry.manifest import DriftReference
from streams.errors import ModelError
from tests.rendered_pictures import (
    PICTURE_COUNT,
    SIDE_PX,
    Pixels,
    defocus,
    dim,
    freeze,
    overexpose,
    pictures,
    smear,
    spoil_pictures,
)


@cache
def demo_version() -> Version:
    return locate_version("demo")


def demo_reference() -> DriftReference:
    reference = demo_version().manifest.reference
    assert reference is not None
    return reference


def make_camera(frames: Iterable[Pixels], interval_s: float = 0.5) -> tuple[CameraCondition, float]:
    """The condition of a camera after `frames`, and the time of the last frame in seconds."""
    camera, number = CameraCondition(), 0
    for number, pixels in enumerate(frames):
        camera.add(number * interval_s, measure_picture(pixels))
    return camera, number * interval_s


@pytest.mark.parametrize(
    ("spoil", "state", "words"),
    [
        (freeze, FROZEN, "are the same, pixel by pixel"),
        (dim(0.3), DARK, "have a mean grey of"),
        (overexpose, BRIGHT, "expected at most"),
        (defocus, BLURRED, "have a sharpness of"),
        (smear, BLURRED, "have a sharpness of"),
    ],
)
def test_a_camera_in_trouble_is_found_by_name_after_ten_pictures(spoil: Callable[[Pixels], Pixels], state: str, words: str) -> None:
    camera, now_s = make_camera([*pictures()[:20], *spoil_pictures(spoil, slice(20, 30))])
    faults = camera.find_faults(now_s, demo_reference())
    assert set(faults) == {state}
    assert words in faults[state]


def test_sound_pictures_in_any_order_cause_no_fault() -> None:
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(PICTURE_COUNT)
        camera = CameraCondition()
        for number, index in enumerate(order, 1):
            camera.add(number / 2, measure_picture(pictures()[index]))
            assert camera.find_faults(number / 2, demo_reference()) == {}


def test_a_single_odd_picture_is_no_fault_of_the_camera() -> None:
    black, (grey,) = np.zeros((SIDE_PX, SIDE_PX), np.uint8), spoil_pictures(defocus, slice(3, 4))
    camera, now_s = make_camera([*pictures()[:10], black, *pictures()[10:13], grey, pictures()[0], pictures()[0], *pictures()[13:15]])
    assert camera.find_faults(now_s, demo_reference()) == {}


def test_a_repaired_camera_has_no_fault_any_more() -> None:
    camera, now_s = make_camera([*spoil_pictures(dim(0.3), slice(10)), *pictures()[10:18]])
    assert camera.find_faults(now_s, demo_reference()) == {}


@pytest.mark.parametrize(("interval_s", "gap_s"), [(0.2, 30), (6.0, 120)])
def test_a_gap_depends_on_the_lines_own_rate_and_ends_with_the_next_picture_or_after_an_hour(interval_s: float, gap_s: float) -> None:
    camera, last_s = make_camera(pictures()[:25], interval_s)
    assert GAP not in camera.find_faults(last_s + gap_s - 1, demo_reference())
    assert "no picture for" in camera.find_faults(last_s + gap_s + 1, demo_reference())[GAP]
    assert GAP not in camera.find_faults(last_s + gap_s + 3601, demo_reference()), "the line is taken to be stopped"
    camera.add(last_s + gap_s + 2, measure_picture(pictures()[30]))
    assert GAP not in camera.find_faults(last_s + gap_s + 3, demo_reference())


def test_a_line_that_had_no_picture_has_no_gap() -> None:
    assert CameraCondition().find_faults(1e6, demo_reference()) == {}


def test_without_a_reference_darkness_is_found_and_blur_is_not() -> None:
    assert set(make_camera(spoil_pictures(dim(0.1), slice(10)))[0].find_faults(5, None)) == {DARK}
    assert make_camera(spoil_pictures(defocus, slice(10)))[0].find_faults(5, None) == {}


def test_the_stability_index_follows_its_formula() -> None:
    assert compute_stability_index([0.5, 0.5], [0.5, 0.5]) == 0
    assert compute_stability_index([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.25 * math.log(0.5 / 0.25) + 0.25 * math.log(0.75 / 0.5))
    assert list(bin_shares([0.0, 0.1, 0.3, 9.0], [0.1, 0.5])) == [0.25, 0.5, 0.25]


def draw_probabilities(good: int, bad: int, doubtful: int = 0) -> list[float]:
    draw = np.random.default_rng(5)
    return [*draw.uniform(0, 0.06, good), *draw.uniform(0.9, 1, bad), *draw.uniform(0.3, 0.7, doubtful)]


def test_fewer_or_more_defects_are_no_drift_but_doubt_is() -> None:
    reference = make_drift_reference(np.stack(pictures()), np.array(draw_probabilities(32, 32)), np.arange(PICTURE_COUNT) >= 32)
    for bad in (0, 10, 100, 400):
        assert compute_prediction_drift(reference, draw_probabilities(400, bad)) < 0.1
    assert compute_prediction_drift(reference, draw_probabilities(300, 100, doubtful=100)) > 0.25


def test_the_shipped_version_has_the_reference_of_its_castings() -> None:
    reference = demo_reference()
    assert reference.pictures >= 500
    assert reference.brightness.low < measure_picture(pictures()[0]).brightness < reference.brightness.high
    assert reference.good is not None
    assert reference.bad is not None
    assert reference.good.shares[0] > 0.5
    assert reference.bad.shares[-1] > 0.5


def test_an_older_manifest_has_no_reference_and_a_reference_is_written_once() -> None:
    fields = demo_version().manifest.model_dump(by_alias=True)
    del fields["reference"]
    assert type(demo_version().manifest).model_validate(fields).reference is None
    with pytest.raises(ModelError, match="has a drift reference already"):
        add_drift_reference(demo_version(), demo_reference())
