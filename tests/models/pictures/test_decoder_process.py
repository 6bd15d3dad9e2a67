"""Uploads are decoded in a process that can be killed: what a picture does there harms no other picture."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from models.pictures.decoder import PictureLimits, decode_picture
from models.pictures.decoder_process import DecoderProcess
from models.pictures.display import encode_for_browser, encode_heat_map_layer, encode_thumbnail
from models.pictures.refusal import RefusalReason
from streams.errors import DecoderProcessError, PictureError
from tests.bad_pictures import make_bad_pictures
from tests.encoded_pictures import encode, make_large_png, make_png
from tests.rendered_pictures import camera_pictures

pytestmark = pytest.mark.real

SIDE_PX = 96
LIMITS = PictureLimits(max_pixels=20_000_000)
GOOD = encode(camera_pictures(1)[0], "JPEG")


@pytest.fixture
def process() -> Iterator[DecoderProcess]:
    decoder = DecoderProcess(memory_bytes=2**29, time_s=60)
    yield decoder
    decoder.close()


def test_a_picture_has_the_same_pixels_and_refusals_as_in_this_process(process: DecoderProcess) -> None:
    for name, value, _ in make_bad_pictures():
        outcomes: list[object] = []
        for decode in (decode_picture, process.decode_picture):
            try:
                picture = decode(value, SIDE_PX, LIMITS, None)
                outcomes.append((picture.pixels.tobytes(), picture.width_px, picture.height_px))
            except PictureError as error:
                outcomes.append((error.reason, str(error)))
        assert outcomes[0] == outcomes[1], name
    depth_12 = make_png(np.round(camera_pictures(1)[0] * (4095 / 255)).astype(np.uint16))
    assert np.array_equal(
        process.decode_picture(depth_12, SIDE_PX, LIMITS, 12).pixels, decode_picture(depth_12, SIDE_PX, LIMITS, 12).pixels
    )


def test_the_original_pixels_come_along_only_if_they_are_asked_for(process: DecoderProcess) -> None:
    for decode in (decode_picture, process.decode_picture):
        picture = decode(GOOD, SIDE_PX, LIMITS, None, keep_original=True)
        assert picture.original is not None
        assert np.array_equal(picture.original, np.asarray(Image.open(io.BytesIO(GOOD)).convert("L")))
        assert decode(GOOD, SIDE_PX, LIMITS, None).original is None


def test_pictures_for_browsers_are_the_same_as_in_this_process(process: DecoderProcess) -> None:
    colour = encode(np.dstack([camera_pictures(1)[0]] * 3), "TIFF")
    assert process.encode_for_browser(colour, LIMITS) == encode_for_browser(colour, LIMITS)
    assert process.encode_thumbnail(colour, LIMITS, 64) == encode_thumbnail(colour, LIMITS, 64)
    assert process.encode_heat_map_layer(GOOD, LIMITS) == encode_heat_map_layer(GOOD, LIMITS)
    with pytest.raises(PictureError, match="at most 10 are accepted"):
        process.encode_for_browser(GOOD, PictureLimits(max_bytes=10))


def test_a_picture_that_needs_too_much_memory_is_refused_and_the_next_one_is_decoded() -> None:
    process = DecoderProcess(memory_bytes=2**25, time_s=60)
    try:
        process.decode_picture(GOOD, SIDE_PX, LIMITS)
        with pytest.raises(PictureError) as refusal:
            process.decode_picture(make_large_png(8192), SIDE_PX, PictureLimits(max_pixels=10**8))
        assert not isinstance(refusal.value, DecoderProcessError)
        assert refusal.value.reason == RefusalReason.DECODER_LIMITS
        assert process.decode_picture(GOOD, SIDE_PX, LIMITS).width_px == 300
    finally:
        process.close()


def test_a_heat_map_whose_layer_needs_too_much_memory_is_refused() -> None:
    """The heat map itself takes 25 MB, and its layer with four channels takes 100 MB."""
    process = DecoderProcess(memory_bytes=2**27, time_s=60)
    try:
        heat_map = encode(np.tile(np.arange(250, dtype=np.uint8), (5000, 20)), "PNG", compress_level=1)
        with pytest.raises(PictureError, match="more memory") as refusal:
            process.encode_heat_map_layer(heat_map, PictureLimits(max_pixels=10**8))
        assert not isinstance(refusal.value, DecoderProcessError)
        assert refusal.value.reason == RefusalReason.DECODER_LIMITS
        assert process.encode_heat_map_layer(GOOD, LIMITS) == encode_heat_map_layer(GOOD, LIMITS)
    finally:
        process.close()


def test_a_file_that_is_larger_than_the_memory_is_refused_and_the_next_picture_is_decoded() -> None:
    process = DecoderProcess(memory_bytes=2**25, time_s=60)
    try:
        with pytest.raises(PictureError, match="at most 33554432 bytes") as refusal:
            process.decode_picture(GOOD + bytes(2**26), SIDE_PX, PictureLimits(max_bytes=2**27))
        assert not isinstance(refusal.value, DecoderProcessError)
        assert refusal.value.reason == RefusalReason.DECODER_LIMITS
        assert process.decode_picture(GOOD, SIDE_PX, LIMITS).width_px == 300
    finally:
        process.close()


def test_a_picture_that_takes_too_long_is_refused_its_process_killed_and_the_next_one_decoded() -> None:
    process = DecoderProcess(memory_bytes=2**30, time_s=0.1)
    try:
        large, refusal = make_large_png(13_312), PictureError("", "")
        # While other tests keep the processors busy, the process gets too little processor time, and this is not the fault of the picture.
        for _ in range(20):
            with pytest.raises(PictureError) as raised:
                process.decode_picture(large, SIDE_PX, PictureLimits(max_bytes=2**28, max_pixels=10**9))
            refusal = raised.value
            assert process.pid is None
            if not isinstance(refusal, DecoderProcessError):
                break
        assert refusal.reason == RefusalReason.DECODER_LIMITS
        assert "more than 0.1 s" in str(refusal)
    finally:
        process.close()
    patient = DecoderProcess(memory_bytes=2**29, time_s=60)
    assert patient.decode_picture(GOOD, SIDE_PX, LIMITS).width_px == 300
    patient.close()


def test_a_process_that_was_killed_between_two_pictures_is_started_again(process: DecoderProcess) -> None:
    process.decode_picture(GOOD, SIDE_PX, LIMITS)
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    psutil.Process(first).wait(30)
    assert process.decode_picture(GOOD, SIDE_PX, LIMITS).width_px == 300
    assert process.pid != first


def test_the_process_knows_no_secrets_and_has_not_loaded_tensorflow(process: DecoderProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTLINE_KAFKA__PASSWORD", "long and random")
    process.decode_picture(GOOD, SIDE_PX, LIMITS)
    child = psutil.Process(process.pid)
    assert not [name for name in child.environ() if name.startswith("CASTLINE_")]
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    assert "numpy" in loaded
    assert "tensorflow" not in loaded


def test_the_process_takes_only_the_processor_time_that_others_leave(process: DecoderProcess) -> None:
    process.decode_picture(GOOD, SIDE_PX, LIMITS)
    assert process.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19 > os.getpriority(os.PRIO_PROCESS, 0)


def test_the_process_ends_with_a_parent_that_is_killed() -> None:
    script = """
        import sys, time
        from models.pictures.decoder import PictureLimits
        from models.pictures.decoder_process import DecoderProcess
        process = DecoderProcess(2**29, 60)
        try:
            process.decode_picture(b"x", 96, PictureLimits())
        except Exception:
            pass
        print(process.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
    finally:
        parent.kill()
        parent.wait(30)
        if parent.stdout is not None:
            parent.stdout.close()
    deadline_s = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, "the decoder outlived its parent"
        time.sleep(0.1)


def test_a_process_that_cannot_start_refuses_no_picture_and_the_next_one_is_decoded(
    process: DecoderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in (shutil.which("false"), "/nonexistent/python"):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", program)
            with pytest.raises(DecoderProcessError, match="it could not start") as failure:
                process.decode_picture(GOOD, SIDE_PX, LIMITS)
        assert failure.value.reason == RefusalReason.DECODER_LIMITS
        assert process.pid is None
    assert process.decode_picture(GOOD, SIDE_PX, LIMITS).pixels.shape == (SIDE_PX, SIDE_PX)


def test_a_process_that_gets_no_processor_time_refuses_no_picture() -> None:
    process = DecoderProcess(memory_bytes=2**29, time_s=0.5)
    try:
        process.decode_picture(GOOD, SIDE_PX, LIMITS)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(DecoderProcessError, match="too little processor time in 1 s"):
            process.decode_picture(GOOD, SIDE_PX, LIMITS)
        assert process.decode_picture(GOOD, SIDE_PX, LIMITS).width_px == 300
    finally:
        process.close()


@pytest.mark.parametrize(("ending", "is_failure"), [(signal.SIGKILL, True), (signal.SIGSEGV, False)])
def test_a_killed_process_refuses_no_picture_but_a_crash_of_the_decoder_does(
    process: DecoderProcess, ending: signal.Signals, is_failure: bool
) -> None:
    process.decode_picture(GOOD, SIDE_PX, LIMITS)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    large = make_png(np.random.default_rng(1).integers(0, 256, (600, 600), dtype=np.uint8))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(process.decode_picture, large, SIDE_PX, LIMITS)
        time.sleep(0.5)  # Then the pipe, which holds 64 KiB, is full.
        os.kill(process.pid, ending)
        os.kill(process.pid, signal.SIGCONT)
        with pytest.raises(PictureError, match="its process ended") as failure:
            waiting.result(30)
    assert isinstance(failure.value, DecoderProcessError) == is_failure
    assert failure.value.reason == RefusalReason.DECODER_LIMITS
