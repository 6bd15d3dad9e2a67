"""The video camera on a real stream: OpenCV reads motion JPEG over HTTP, as network cameras send it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agents.gateway.video_camera import VideoCamera, open_cv
from models.pictures.decoder import decode_picture
from models.synthetic import render_series
from streams.settings import CameraSettings

PICTURES = [casting.to_jpeg() for casting in render_series(4, seed=5)]


class NetworkCamera(BaseHTTPRequestHandler):
    """Sends pictures without end, 25 a second, until it is switched off."""

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
            return  # the reader has gone

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


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


def test_a_network_cameras_pictures_come_through_whole(address: str) -> None:
    settings = CameraSettings(kind="video", address=address, rate_per_s=20)
    stopping = threading.Event()
    frames = VideoCamera("line-1", settings, open_cv(address)).frames(stopping)
    found = [next(frames) for _ in range(5)]
    stopping.set()
    assert list(frames) == []
    assert {frame.content_type for frame in found} == {"image/png"}
    sizes = {(picture.width_px, picture.height_px) for picture in (decode_picture(frame.value, 64) for frame in found)}
    assert sizes == {(300, 300)}
    times = [frame.captured_at for frame in found]
    assert times == sorted(times)


def test_an_address_without_a_camera_is_said() -> None:
    with pytest.raises(OSError, match="cannot be opened"):
        open_cv("/dev/video99")()
