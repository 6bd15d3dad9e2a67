"""The video camera: reconnecting, triggers, and a real stream of motion JPEG over HTTP, as network cameras send it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest
from prometheus_client import REGISTRY

from agents.gateway.intake import PictureRefusedError
from agents.gateway.video_camera import FrameGrabber, VideoCamera, VideoPicture, make_stream_opener
from models.pictures.decoder import decode_picture
from models.synthetic import render_series
from streams.identity import PartId
from streams.settings import CameraSettings
from tests.agents.gateway.camera_line import CameraLine, wait_until

PICTURES = [casting.to_jpeg() for casting in render_series(4, seed=5)]


class NetworkCamera(BaseHTTPRequestHandler):
    """Sends 25 pictures a second until `off` is set."""

    off = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        sent = 0
        try:
            while not self.off.wait(0.04):
                picture = PICTURES[sent % len(PICTURES)]
                self.wfile.write(b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
                self.wfile.write(picture + b"\r\n")
                sent += 1
        except OSError:
            return  # The client has closed the connection.

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), NetworkCamera)
    NetworkCamera.off.clear()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/stream.mjpg"
    NetworkCamera.off.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_the_pictures_of_a_network_camera_arrive_complete(address: str) -> None:
    settings = CameraSettings(kind="video", address=address, rate_per_s=20)
    stopping = threading.Event()
    frames = VideoCamera("line-1", settings, make_stream_opener(address, 5)).frames(stopping)
    received = [next(frames) for _ in range(5)]
    stopping.set()
    assert list(frames) == []
    assert {frame.declared_type for frame in received} == {"image/png"}
    sizes = {(picture.width_px, picture.height_px) for picture in (decode_picture(frame.value, 64) for frame in received)}
    assert sizes == {(300, 300)}
    times = [frame.captured_at for frame in received]
    assert times == sorted(times)


def test_an_address_without_a_camera_is_an_error() -> None:
    with pytest.raises(OSError, match="cannot be opened"):
        make_stream_opener("/dev/video99", 5)()


@dataclass(frozen=True)
class RecordedPicture:
    value: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.value)

    def encode(self) -> bytes:
        return self.value


class RecordedStream:
    """A stream of numbered pictures that breaks after `length` pictures."""

    def __init__(self, name: str, length: int) -> None:
        self._name = name
        self._left = length

    def grab(self) -> bool:
        time.sleep(0.01)
        self._left -= 1
        return self._left >= 0

    def retrieve(self) -> VideoPicture:
        return RecordedPicture(f"{self._name}-{self._left}".encode())

    def close(self) -> None:
        self._left = 0


def test_a_broken_stream_is_opened_again(tmp_path: Path) -> None:
    streams: list[FrameGrabber | None] = [RecordedStream("first", 20), None, RecordedStream("second", 10_000)]

    def open_stream() -> FrameGrabber:
        stream = streams.pop(0)
        if stream is None:
            raise OSError("expected a camera at /dev/video7, there is none")
        return stream

    settings = CameraSettings(kind="video", address="/dev/video7", rate_per_s=50)
    line = CameraLine(tmp_path, settings)
    line.start(VideoCamera("line-1", settings, open_stream))
    wait_until(lambda: any(spooled.picture.value.startswith(b"second") for spooled in line.spool.read_after(0, 1000)))
    assert line.spool.read_after(0, 1)[0].picture.value.startswith(b"first")
    line.stop()


def test_a_triggered_video_gives_the_picture_near_the_trigger_or_reports_that_there_is_none(tmp_path: Path) -> None:
    settings = CameraSettings(kind="video", address="0", trigger="board", match_window_s=0.3)
    line = CameraLine(tmp_path, settings)
    camera = VideoCamera("line-1", settings, lambda: RecordedStream("only", 10_000))
    line.start(camera)
    part = PartId("line-1", 2, 1)
    assert camera.trigger(part, datetime.now(UTC)).result(5).part == part
    with pytest.raises(PictureRefusedError, match="expected a picture within"):
        camera.trigger(PartId("line-1", 2, 2), datetime.now(UTC) - timedelta(minutes=1)).result(5)
    line.stop()


def test_a_video_camera_without_opencv_names_the_extra() -> None:
    """Runs in a process that finds no OpenCV, because it is installed here for the tests of a real stream."""
    module = "agents.gateway.video_camera"
    program = f"import sys; sys.modules['cv2'] = None; from {module} import make_stream_opener; make_stream_opener('/dev/video0', 5)()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "SettingsError" in result.stderr
    assert "castline[video]" in result.stderr


class HangingStream(RecordedStream):
    """A stream that gives one picture and then hangs, until `release` is set."""

    def __init__(self, release: threading.Event) -> None:
        super().__init__("hanging", 1)
        self._release = release

    def grab(self) -> bool:
        if super().grab():
            return True
        self._release.wait(20)
        return False


class FaultyStream(RecordedStream):
    """A stream whose pictures cannot be decoded: OpenCV raises an error of its own."""

    def retrieve(self) -> VideoPicture:
        raise cv2.error("the picture is corrupt")


class SlowPicture(RecordedPicture):
    """A picture whose encoding takes much longer than the time between two pictures."""

    def encode(self) -> bytes:
        time.sleep(0.3)
        return self.value


class FastStream(RecordedStream):
    """A stream of pictures with the time at which they were taken, whose encoding is slow."""

    def retrieve(self) -> VideoPicture:
        return SlowPicture(datetime.now(UTC).isoformat().encode())


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_mute_stream_is_a_complaint_within_seconds_that_hides_the_password(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"{scheme}://admin:secret@127.0.0.1:{mute.getsockname()[1]}/stream"
        settings = CameraSettings(kind="video", address=address, stall_s=0.5)
        line = CameraLine(tmp_path, settings)
        line.start(VideoCamera("line-1", settings, make_stream_opener(address, settings.stall_s)))
        wait_until(lambda: "has given no picture for" in line.complaints())
        wait_until(lambda: "it cannot be opened" in line.complaints())
        assert "secret" not in line.complaints()
        line.stop()


def test_a_stream_that_hangs_is_reported_and_opened_again(tmp_path: Path) -> None:
    release = threading.Event()
    streams: list[FrameGrabber] = [HangingStream(release), RecordedStream("second", 10_000)]
    settings = CameraSettings(kind="video", address="/dev/video7", rate_per_s=50, stall_s=0.5)
    line = CameraLine(tmp_path, settings)
    line.start(VideoCamera("line-1", settings, lambda: streams.pop(0)))
    wait_until(lambda: "has given no picture for" in line.complaints())
    wait_until(lambda: any(spooled.picture.value.startswith(b"second") for spooled in line.spool.read_after(0, 1000)))
    assert line.complaints() == ""
    release.set()
    line.stop()


def test_an_error_of_opencv_is_counted_and_the_stream_is_opened_again(tmp_path: Path) -> None:
    before = REGISTRY.get_sample_value("castline_camera_failures_total", {"line": "line-1"}) or 0.0
    streams: list[FrameGrabber] = [FaultyStream("faulty", 10), RecordedStream("second", 10_000)]
    settings = CameraSettings(kind="video", address="/dev/video7", rate_per_s=50)
    line = CameraLine(tmp_path, settings)
    line.start(VideoCamera("line-1", settings, lambda: streams.pop(0)))
    wait_until(lambda: len(line.parts()) > 0)
    assert REGISTRY.get_sample_value("castline_camera_failures_total", {"line": "line-1"}) == before + 1
    line.stop()


def test_a_picture_has_the_time_of_its_grab_however_slow_its_encoding_is(tmp_path: Path) -> None:
    settings = CameraSettings(kind="video", address="0", trigger="board", match_window_s=0.5)
    line = CameraLine(tmp_path, settings)
    camera = VideoCamera("line-1", settings, lambda: FastStream("fast", 10_000))
    line.start(camera)
    times = [datetime.now(UTC)]
    receipts = []
    for number in range(1, 5):
        times.append(datetime.now(UTC))
        receipts.append(camera.trigger(PartId("line-1", 2, number), times[-1]))
        receipts[-1].result(10)
    pictures = [spooled.picture for spooled in line.spool.read_after(0, 10)]
    line.stop()
    assert len(pictures) == 4
    for picture, time_of_part in zip(pictures, times[1:], strict=True):
        taken_at = datetime.fromisoformat(picture.value.decode())
        assert abs((picture.captured_at - taken_at).total_seconds()) < 0.1, "the time is that of the grab"
        assert abs((picture.captured_at - time_of_part).total_seconds()) < 0.2, "the picture is the one nearest to the part"


class CountingStream(RecordedStream):
    """A stream that counts how many of its pictures were grabbed and how many were decoded."""

    def __init__(self) -> None:
        super().__init__("counted", 10_000)
        self.grabbed = 0
        self.decoded = 0

    def grab(self) -> bool:
        self.grabbed += 1
        return super().grab()

    def retrieve(self) -> VideoPicture:
        self.decoded += 1
        return super().retrieve()


def test_a_stream_is_read_without_pause_and_only_pictures_that_are_asked_for_are_decoded(tmp_path: Path) -> None:
    settings, stream = CameraSettings(kind="video", address="0", rate_per_s=5), CountingStream()
    line = CameraLine(tmp_path, settings)
    line.start(VideoCamera("line-1", settings, lambda: stream))
    wait_until(lambda: len(line.parts()) >= 4)
    grabbed, decoded = stream.grabbed, stream.decoded
    line.stop()
    assert grabbed >= 5 * decoded, "some eighty pictures a second are grabbed, and five are decoded"


class CorruptPicture(RecordedPicture):
    """A picture that OpenCV cannot encode: it raises an error of its own."""

    def encode(self) -> bytes:
        raise cv2.error("the pixels are empty")


class CorruptStream(RecordedStream):
    """A stream whose first ten pictures cannot be encoded."""

    def retrieve(self) -> VideoPicture:
        return super().retrieve() if self._left < 9_990 else CorruptPicture(b"")


def test_a_picture_that_cannot_be_encoded_is_named_and_the_next_ones_are_taken(tmp_path: Path) -> None:
    settings = CameraSettings(kind="video", address="0", rate_per_s=50)
    line = CameraLine(tmp_path, settings)
    line.start(VideoCamera("line-1", settings, lambda: CorruptStream("corrupt", 10_000)))
    wait_until(lambda: len(line.parts()) > 0)
    assert "a picture of line-1 cannot be encoded: " in line.complaints()
    line.stop()
