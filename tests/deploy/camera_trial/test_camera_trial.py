"""What a trial measures of one picture: size, mode, depth, brightness and time offset, or the reason of its refusal."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from agents.gateway.intake import CameraFrame
from deploy.camera_trial.camera_trial import measure_frame
from deploy.camera_trial.trial_page import make_page
from streams.settings import LineSettings, Settings
from tests.encoded_pictures import make_png
from tests.rendered_pictures import camera_pictures

GREY = camera_pictures(1)[0]
RGB_12 = make_png(np.repeat(np.round(GREY * (4095 / 255)).astype(np.uint16)[..., np.newaxis], 3, axis=2))


def test_a_picture_of_a_12_bit_colour_camera_is_measured_as_the_gateway_and_the_inspector_see_it() -> None:
    """The camera's clock is 2 s slow, and the file lay in the folder for half a second."""
    frame = CameraFrame(RGB_12, datetime.now(UTC) - timedelta(seconds=2.5), waited_s=0.5)
    picture = measure_frame(frame, 7, LineSettings(name="line-1", depth_bits=12), Settings())
    assert (picture.number, picture.refusal, picture.size_bytes, picture.content_type) == (7, "", len(RGB_12), "image/png")
    assert (picture.width_px, picture.height_px, picture.mode, picture.depth_bits) == (GREY.shape[1], GREY.shape[0], "RGB", 16)
    assert picture.offset_s == pytest.approx(2.0, abs=0.5)
    assert picture.mean == pytest.approx(GREY.mean(), abs=2)
    assert picture.darkest == pytest.approx(int(GREY.min()), abs=15)
    assert picture.brightest == pytest.approx(int(GREY.max()), abs=15)
    with Image.open(io.BytesIO(picture.thumbnail)) as thumbnail:
        assert np.asarray(thumbnail.convert("L")).mean() == pytest.approx(GREY.mean(), abs=3)
    page = make_page("line-1", "uploads", [picture], [], datetime.now(UTC))
    for fact in (
        f"{GREY.shape[1]} × {GREY.shape[0]} px",
        "RGB, 16 bits a sample",
        f"{picture.offset_s:+.2f} s",
        f"<dd>{picture.darkest} … {picture.brightest}, mean {picture.mean:.0f}</dd>",
    ):
        assert fact in page


def test_a_picture_that_the_inspector_would_refuse_is_shown_with_the_setting_that_is_missing() -> None:
    picture = measure_frame(CameraFrame(RGB_12, datetime.now(UTC)), 1, LineSettings(name="line-1"), Settings())
    assert picture.refusal.startswith("depth: ")
    assert "depth_bits" in picture.refusal
    assert picture.mean is None
