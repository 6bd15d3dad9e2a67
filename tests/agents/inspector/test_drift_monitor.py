"""The drift monitor: from judged images to the metrics and log lines about cameras and drift."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client import REGISTRY

from agents.inspector.drift_monitor import BRIGHTNESS, DRIFT_QUANTITIES, PROBABILITY, SHARPNESS, DriftMonitor
from models.inference.camera_condition import FROZEN, GAP, STATES
from models.inference.drift import MIN_PICTURES
from models.registry import Version, locate_version
from tests.agents.inspector.images import make_judged_image
from tests.log_lines import castline_records
from tests.rendered_pictures import PICTURE_COUNT, Pixels, dim, pictures


@pytest.fixture(scope="module")
def demo_version() -> Version:
    return locate_version("demo")


def read_states(line: str) -> set[str]:
    return {state for state in STATES if REGISTRY.get_sample_value("castline_camera_state", {"line": line, "state": state}) == 1}


def read_drift(line: str, quantity: str) -> float:
    index = REGISTRY.get_sample_value("castline_drift_psi", {"line": line, "of": quantity})
    assert index is not None
    return index


def add_pictures(monitor: DriftMonitor, line: str, frames: Sequence[Pixels], version: Version, start_s: float = 0.0) -> None:
    """Adds pictures at five a second, with probabilities like those of the version on its own good parts."""
    probabilities = np.random.default_rng(1).exponential(0.008, len(frames)).clip(0, 1)
    for number, pixels in enumerate(frames, 1):
        monitor.add(make_judged_image(line, number, pixels, float(probabilities[number - 1])), version, start_s + number / 5)


def repeat_pictures(count: int) -> list[Pixels]:
    return [pictures()[number % PICTURE_COUNT] for number in range(count)]


@pytest.mark.asyncio
async def test_a_faulty_camera_shows_its_state_and_is_logged_once_with_the_reason(
    demo_version: Version, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = DriftMonitor(["belt-1", "belt-2"])
    add_pictures(monitor, "belt-1", [*pictures()[:10], *[pictures()[10]] * 6], demo_version)
    add_pictures(monitor, "belt-2", pictures()[:16], demo_version)
    add_pictures(monitor, "uploads", [pictures()[10]] * 6, demo_version)
    monitor.update_camera_states(4.0)
    monitor.update_camera_states(5.0)
    assert (read_states("belt-1"), read_states("belt-2"), read_states("uploads")) == ({FROZEN}, set(), set())
    (message,) = (record.message for record in castline_records(caplog))
    assert "belt-1" in message
    assert "the last 6 pictures are the same, pixel by pixel" in message
    assert REGISTRY.get_sample_value("castline_camera_state", {"line": "uploads", "state": FROZEN}) is None
    monitor.update_camera_states(60.0)
    assert read_states("belt-2") == {GAP}


@pytest.mark.asyncio
async def test_drift_is_shown_once_there_are_enough_pictures_and_rises_when_the_light_changes(demo_version: Version) -> None:
    monitor = DriftMonitor(["belt-3"])
    frames = repeat_pictures(MIN_PICTURES)
    add_pictures(monitor, "belt-3", frames[:-1], demo_version)
    monitor.update_drift()
    assert all(math.isnan(read_drift("belt-3", quantity)) for quantity in DRIFT_QUANTITIES)
    add_pictures(monitor, "belt-3", frames[-1:], demo_version, 100.0)
    monitor.update_drift()
    assert all(read_drift("belt-3", quantity) < 0.5 for quantity in (BRIGHTNESS, SHARPNESS)), "the same 64 pictures are repeated"
    assert read_drift("belt-3", PROBABILITY) < 0.25
    add_pictures(monitor, "belt-3", [dim(0.8)(pixels) for pixels in frames], demo_version, 200.0)
    monitor.update_drift()
    assert read_drift("belt-3", BRIGHTNESS) > 0.5


@pytest.mark.asyncio
async def test_at_most_ten_pictures_a_second_are_measured(demo_version: Version) -> None:
    monitor = DriftMonitor(["belt-5"])
    for number, pixels in enumerate(repeat_pictures(100)):
        monitor.add(make_judged_image("belt-5", number + 1, pixels), demo_version, number / 100)
    assert 8 <= len(monitor._lines["belt-5"].brightness) <= 10


@pytest.mark.asyncio
async def test_an_undecodable_picture_and_a_version_without_a_reference_show_no_drift(demo_version: Version) -> None:
    monitor = DriftMonitor(["belt-4"])
    manifest = demo_version.manifest.model_copy(update={"version": "older", "reference": None})
    version = Version(demo_version.folder, manifest)
    monitor.add(make_judged_image("belt-4", 1, None), version, 0.0)
    add_pictures(monitor, "belt-4", repeat_pictures(MIN_PICTURES), version)
    monitor.update_camera_states(1.0)
    monitor.update_drift()
    assert read_states("belt-4") == set()
    assert all(math.isnan(read_drift("belt-4", quantity)) for quantity in DRIFT_QUANTITIES)
