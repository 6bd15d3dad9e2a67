"""What is wrong with a camera, by rendered pictures spoiled as a plant spoils them; and drift against a version's reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter
from prometheus_client import REGISTRY

from agents.inspector.decoding import Decoded, receive
from agents.inspector.drift_watch import BRIGHTNESS, OF, PROBABILITY, SHARPNESS, DriftWatch
from agents.inspector.judging import Judged
from models.inference.camera_condition import BLURRED, BRIGHT, DARK, FROZEN, GAP, STATES, CameraCondition
from models.inference.drift import (
    MIN_PICTURES,
    bin_shares,
    compute_prediction_drift,
    compute_stability_index,
    make_drift_reference,
    measure_picture,
)
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from models.registry import Version, add_drift_reference, locate_version
from models.registry.manifest import DriftReference
from models.synthetic import render_series
from streams.errors import ModelError, PictureError
from streams.record_producer import ConsumedRecord
from streams.settings import LineSettings

SIDE = 160
Pixels = npt.NDArray[np.uint8]
RENDERED = 64


@cache
def taken() -> tuple[Pixels, ...]:
    """As a camera takes them, 300 px."""
    return tuple(casting.pixels for casting in render_series(RENDERED, seed=99))


@cache
def pictures() -> tuple[Pixels, ...]:
    """As the networks take them."""
    return tuple(map(shown, taken()))


def spoiled(spoil: Callable[[Pixels], Pixels], few: slice) -> list[Pixels]:
    return [shown(spoil(pixels)) for pixels in taken()[few]]


def shown(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


@cache
def demo() -> Version:
    return locate_version("demo")


def reference() -> DriftReference:
    found = demo().manifest.reference
    assert found is not None
    return found


def dimmed(share: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: (pixels * share).astype(np.uint8)


def overexposed(pixels: Pixels) -> Pixels:
    return np.minimum(pixels.astype(np.uint16) * 2, 255).astype(np.uint8)


def out_of_focus(pixels: Pixels) -> Pixels:
    """By 2 px, and the sensor's noise after it."""
    soft = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)), np.float32)
    noise = np.random.default_rng(int(pixels[0, 0])).normal(0, 1.5, pixels.shape)
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


def smeared(pixels: Pixels) -> Pixels:
    """By the belt's movement while the shutter was open: along one direction alone."""
    moved: Pixels = np.mean([np.roll(pixels.astype(np.float32), step, axis=1) for step in range(15)], axis=0).astype(np.uint8)
    return moved


def same(pixels: Pixels) -> Pixels:
    return taken()[0]


def camera_that_saw(seen: Iterable[Pixels], every_s: float = 0.5) -> tuple[CameraCondition, float]:
    """And the time at which it saw the last."""
    camera, at_s = CameraCondition(), 0.0
    for at_s, pixels in enumerate(seen):
        camera.add(at_s * every_s, measure_picture(pixels))
    return camera, at_s * every_s


@pytest.mark.parametrize(
    ("spoil", "state", "words"),
    [
        (same, FROZEN, "are the same, pixel by pixel"),
        (dimmed(0.3), DARK, "have a mean grey of"),
        (overexposed, BRIGHT, "expected at most"),
        (out_of_focus, BLURRED, "have a sharpness of"),
        (smeared, BLURRED, "have a sharpness of"),
    ],
)
def test_a_camera_in_trouble_is_found_by_name_after_ten_pictures(spoil: Callable[[Pixels], Pixels], state: str, words: str) -> None:
    camera, at_s = camera_that_saw([*pictures()[:20], *spoiled(spoil, slice(20, 30))])
    wrong = camera.find_faults(at_s, reference())
    assert set(wrong) == {state}
    assert words in wrong[state]


def test_every_sound_picture_keeps_quiet_good_or_bad_in_any_order() -> None:
    for turn in range(20):
        order = np.random.default_rng(turn).permutation(RENDERED)
        camera, at_s = CameraCondition(), 0.0
        for place in order:
            at_s += 0.5
            camera.add(at_s, measure_picture(pictures()[place]))
            assert camera.find_faults(at_s, reference()) == {}


def test_a_single_odd_picture_is_no_trouble_of_the_camera() -> None:
    black, (grey,) = np.zeros((SIDE, SIDE), np.uint8), spoiled(out_of_focus, slice(3, 4))
    camera, at_s = camera_that_saw([*pictures()[:10], black, *pictures()[10:13], grey, pictures()[0], pictures()[0], *pictures()[13:15]])
    assert camera.find_faults(at_s, reference()) == {}


def test_a_camera_that_is_mended_is_well_again() -> None:
    camera, at_s = camera_that_saw([*spoiled(dimmed(0.3), slice(10)), *pictures()[10:18]])
    assert camera.find_faults(at_s, reference()) == {}


@pytest.mark.parametrize(("every_s", "breaks_off_s"), [(0.2, 30), (6.0, 120)])
def test_a_gap_is_told_by_the_lines_own_pace_and_ends_with_the_next_picture_or_the_shift(every_s: float, breaks_off_s: float) -> None:
    camera, last_s = camera_that_saw(pictures()[:25], every_s)
    assert GAP not in camera.find_faults(last_s + breaks_off_s - 1, reference())
    assert "no picture for" in camera.find_faults(last_s + breaks_off_s + 1, reference())[GAP]
    assert GAP not in camera.find_faults(last_s + breaks_off_s + 3601, reference()), "the line is taken to stand"
    camera.add(last_s + breaks_off_s + 2, measure_picture(pictures()[30]))
    assert GAP not in camera.find_faults(last_s + breaks_off_s + 3, reference())


def test_a_line_that_had_no_picture_has_no_gap() -> None:
    assert CameraCondition().find_faults(1e6, reference()) == {}


def test_without_a_reference_darkness_is_told_and_blur_is_not() -> None:
    assert set(camera_that_saw(spoiled(dimmed(0.1), slice(10)))[0].find_faults(5, None)) == {DARK}
    assert camera_that_saw(spoiled(out_of_focus, slice(10)))[0].find_faults(5, None) == {}


def test_the_index_is_what_the_formula_says() -> None:
    assert compute_stability_index([0.5, 0.5], [0.5, 0.5]) == 0
    assert compute_stability_index([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.25 * math.log(0.5 / 0.25) + 0.25 * math.log(0.75 / 0.5))
    assert list(bin_shares([0.0, 0.1, 0.3, 9.0], [0.1, 0.5])) == [0.25, 0.5, 0.25]


def scores(good: int, bad: int, doubtful: int = 0) -> list[float]:
    rng = np.random.default_rng(5)
    return [*rng.uniform(0, 0.06, good), *rng.uniform(0.9, 1, bad), *rng.uniform(0.3, 0.7, doubtful)]


def test_fewer_or_more_defects_are_no_drift_but_doubt_is() -> None:
    made_of = make_drift_reference(np.stack(pictures()), np.array(scores(32, 32)), np.arange(RENDERED) >= 32)
    for bad in (0, 10, 100, 400):
        assert compute_prediction_drift(made_of, scores(400, bad)) < 0.1
    assert compute_prediction_drift(made_of, scores(300, 100, doubtful=100)) > 0.25


def test_the_shipped_version_has_the_reference_of_its_castings() -> None:
    found = reference()
    assert found.pictures >= 500
    assert found.brightness.low < measure_picture(pictures()[0]).brightness < found.brightness.high
    assert found.good.shares[0] > 0.5
    assert found.bad.shares[-1] > 0.5


def test_older_manifests_have_no_reference_and_one_is_written_once() -> None:
    plain = demo().manifest.model_dump(by_alias=True)
    del plain["reference"]
    assert type(demo().manifest).model_validate(plain).reference is None
    with pytest.raises(ModelError, match="has a drift reference already"):
        add_drift_reference(demo(), reference())


def judged(line: str, part: int, pixels: Pixels | None, probability: float = 0.01) -> Judged:
    came = ConsumedRecord(f"castings.images.{line}", 0, part, f"{line}:1:{part}".encode(), b"", {})
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    arrival = receive(came, LineSettings(name=line), at, at)
    if pixels is None:
        error = PictureError("truncated", "half a picture")
        return Judged(Decoded(arrival, "0" * 64, error), error)
    return Judged(Decoded(arrival, "0" * 64, DecodedPicture(pixels, 300, 300)), Prediction("ok", probability, {"alexnet": probability}))


def states(line: str) -> set[str]:
    return {state for state in STATES if REGISTRY.get_sample_value("castline_camera_state", {"line": line, "state": state}) == 1}


def psi(line: str, what: str) -> float:
    found = REGISTRY.get_sample_value("castline_drift_psi", {"line": line, "of": what})
    assert found is not None
    return found


def show(watch: DriftWatch, line: str, seen: Sequence[Pixels], version: Version, begun_s: float = 0.0) -> None:
    probabilities = np.random.default_rng(1).exponential(0.008, len(seen)).clip(0, 1)  # much as of the version's own good ones
    for number, pixels in enumerate(seen, 1):
        watch.see(judged(line, number, pixels, float(probabilities[number - 1])), version, begun_s + number / 5)


@pytest.mark.asyncio
async def test_a_line_in_trouble_is_shown_by_its_state_alone_and_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    watch = DriftWatch(["belt-1", "belt-2"])
    show(watch, "belt-1", [*pictures()[:10], *[pictures()[10]] * 6], demo())
    show(watch, "belt-2", pictures()[:16], demo())
    show(watch, "uploads", [pictures()[10]] * 6, demo())
    watch.judge(4.0)
    watch.judge(5.0)
    assert (states("belt-1"), states("belt-2"), states("uploads")) == ({FROZEN}, set(), set())
    assert [record.message for record in caplog.records] == ["belt-1: camera frozen: the last 6 pictures are the same, pixel by pixel"]
    assert REGISTRY.get_sample_value("castline_camera_state", {"line": "uploads", "state": FROZEN}) is None
    watch.judge(60.0)
    assert states("belt-2") == {GAP}


@pytest.mark.asyncio
async def test_the_indices_are_shown_from_enough_pictures_on_and_rise_when_the_light_changes() -> None:
    watch, version = DriftWatch(["belt-3"]), demo()
    many = [pictures()[place % RENDERED] for place in range(MIN_PICTURES)]
    show(watch, "belt-3", many[:-1], version)
    watch.compare()
    assert all(math.isnan(psi("belt-3", what)) for what in OF)
    show(watch, "belt-3", many[-1:], version, 100.0)
    watch.compare()
    assert all(psi("belt-3", what) < 0.5 for what in (BRIGHTNESS, SHARPNESS)), "64 pictures over and over"
    assert psi("belt-3", PROBABILITY) < 0.25
    show(watch, "belt-3", [dimmed(0.8)(one) for one in many], version, 200.0)
    watch.compare()
    assert psi("belt-3", BRIGHTNESS) > 0.5


@pytest.mark.asyncio
async def test_of_a_burst_of_pictures_some_are_looked_at() -> None:
    watch = DriftWatch(["belt-5"])
    for number in range(100):
        watch.see(judged("belt-5", number + 1, pictures()[number % RENDERED]), demo(), number / 100)
    assert 8 <= len(watch._lines["belt-5"].brightness) <= 10


@pytest.mark.asyncio
async def test_an_unreadable_picture_and_a_version_without_reference_say_nothing() -> None:
    watch = DriftWatch(["belt-4"])
    bare = Version(demo().folder, demo().manifest.model_copy(update={"version": "older", "reference": None}))
    watch.see(judged("belt-4", 1, None), bare, 0.0)
    show(watch, "belt-4", [pictures()[place % RENDERED] for place in range(MIN_PICTURES)], bare)
    watch.judge(1.0)
    watch.compare()
    assert states("belt-4") == set()
    assert all(math.isnan(psi("belt-4", what)) for what in OF)
