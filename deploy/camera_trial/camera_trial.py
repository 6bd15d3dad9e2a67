"""Takes some pictures from the camera of a line with the gateway's own classes, and measures them. Stores and sends nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
from pydantic import SecretStr

from agents.gateway.drop_camera import DropCamera
from agents.gateway.drop_folder import DropFolder
from agents.gateway.folder_camera import FolderCamera
from agents.gateway.intake import CameraFrame, GatewayCamera, PictureRefusedError, check_picture
from agents.gateway.spool import PictureReceipt
from agents.gateway.upload_camera import LineEndpoint, UploadCamera, build_app
from agents.gateway.video_camera import VideoCamera, make_stream_opener
from agents.gateway.web_server import start_site
from models.pictures.decoder import PictureLimits, decode_picture, open_picture
from models.pictures.display import encode_thumbnail
from streams.errors import PictureError, SettingsError
from streams.identity import PartId
from streams.settings import CameraSettings, LineSettings, Settings
from streams.supervision import SupervisedThread

THUMBNAIL_PX = 320
# The picture is reduced to this number of pixels on its longer side before its brightness is measured. So a defective pixel of the camera
# hardly changes the result.
_MEASURED_PX = 256
# The camera trial also reads files that are too large for the gateway, so that it can report them.
_LARGEST_BYTES = 2**28


@dataclass(frozen=True)
class TriedPicture:
    """One picture of a trial. A value that could not be measured is None.

    - `name`: the file name of a picture from a drop folder, otherwise "".
    - `refusal`: why the gateway or the inspector would refuse the picture, or "" if they would accept it.
    - `offset_s`: seconds from capture to arrival.
    - `mean`, `darkest`, `brightest`: grey levels, 0 (black) to 255 (white).
    - `thumbnail`: a JPEG, or b"" for a picture that cannot be decoded.
    """

    number: int
    name: str
    size_bytes: int
    content_type: str
    offset_s: float | None
    refusal: str = ""
    width_px: int | None = None
    height_px: int | None = None
    mode: str | None = None
    depth_bits: int | None = None
    mean: float | None = None
    darkest: int | None = None
    brightest: int | None = None
    thumbnail: bytes = b""


class _UntouchedFolder(DropFolder):
    """A drop folder for the camera trial, which reads the files but never moves or deletes them."""

    def move(self, path: str, folder: str, reason: str = "") -> str:
        return path

    def move_back(self, path: str) -> str:
        return path

    def delete_old(self, folder: str, max_age_s: float, max_bytes: int) -> int:
        return 0


@contextmanager
def open_trial_camera(line: LineSettings, settings: Settings, say: Callable[[str], object]) -> Iterator[GatewayCamera]:
    """Yields the camera of `line` for a `with` block. The camera takes pictures without the trigger of a board.

    `say` is called with sentences for the user, such as the address for uploads. Raises SettingsError if the camera cannot be opened.
    """
    assert line.camera is not None
    camera = line.camera.model_copy(update={"trigger": "free"})
    if camera.kind == "http":
        uploads = UploadCamera()
        with _serve_uploads(line, settings, uploads, say):
            yield uploads
    else:
        yield _build_camera(line.name, camera)


def _build_camera(line: str, camera: CameraSettings) -> GatewayCamera:
    if camera.kind == "folder":
        return FolderCamera(line, camera)
    if camera.kind == "video":
        return VideoCamera(line, camera, make_stream_opener(camera.address.get_secret_value(), camera.stall_s))
    assert camera.path is not None
    folder = _UntouchedFolder(camera.path)
    try:
        folder.scan()
    except OSError as error:
        raise SettingsError(
            f"lines.camera.path: The folder {camera.path} of {line} cannot be read: {error.strerror}. Mount the share, or correct the path."
        ) from None
    return DropCamera(line, camera, _LARGEST_BYTES, forget_key=lambda key: None, folder=folder)


@contextmanager
def _serve_uploads(line: LineSettings, settings: Settings, uploads: UploadCamera, say: Callable[[str], object]) -> Iterator[None]:
    endpoint = LineEndpoint(line.name, line.token, uploads, triggered=None, part_intake=None)
    app = build_app({line.name: endpoint}, settings.pictures.max_bytes, SecretStr(""))
    loop = asyncio.new_event_loop()
    thread = SupervisedThread("uploads", loop.run_forever)
    thread.start()
    try:
        runner, address = asyncio.run_coroutine_threadsafe(start_site(app, settings.gateway.host, settings.gateway.port), loop).result(10)
        say(f"Send pictures to {address}/lines/{line.name}/pictures with the token of the line.")
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def try_camera(line: LineSettings, settings: Settings, camera: GatewayCamera, count: int, wait_s: float) -> Iterator[TriedPicture]:
    """Yields up to `count` pictures as they arrive. Ends earlier if no picture comes for `wait_s` seconds.

    Raises SettingsError if no picture comes at all.
    """
    stopping = threading.Event()
    frames: SimpleQueue[CameraFrame | Exception] = SimpleQueue()
    thread = SupervisedThread("camera", partial(_read_frames, camera, stopping, frames), stopping)
    thread.start()
    try:
        for number in range(1, count + 1):
            frame = _wait_for_frame(frames, thread, lambda: _find_fault(line, camera), wait_s)
            if frame is None:
                if number == 1:
                    raise SettingsError(_describe_silence(line, camera, wait_s))
                return
            picture = measure_frame(frame, number, line, settings)
            _answer(frame, picture, line.name)
            yield picture
    finally:
        stopping.set()
        thread.join(3)


def _read_frames(camera: GatewayCamera, stopping: threading.Event, frames: SimpleQueue[CameraFrame | Exception]) -> None:
    try:
        for frame in camera.frames(stopping):
            if not frame.abandoned_sha256:
                frames.put(frame)
    except Exception as error:  # noqa: BLE001  The thread that waits for pictures reports the error.
        frames.put(error)


def _wait_for_frame(
    frames: SimpleQueue[CameraFrame | Exception], thread: SupervisedThread, find_fault: Callable[[], str], wait_s: float
) -> CameraFrame | None:
    """Returns the next frame. Returns None if no frame comes within `wait_s` seconds, or if the camera has no more frames."""
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s and not find_fault():
        is_running = thread.is_alive()
        try:
            found = frames.get(timeout=0.2)
        except Empty:
            if not is_running:
                return None
            continue
        if isinstance(found, Exception):
            raise SettingsError(
                f"The camera was interrupted by an error: {found}. Try again. If the error occurs again, report this message as a bug."
            ) from found
        return found
    return None


def _find_fault(line: LineSettings, camera: GatewayCamera) -> str:
    """Returns what perhaps keeps the camera from sending pictures, or "" if no such reason is known.

    For a video stream, returns all problems that the camera has reported. For other cameras, returns why the camera cannot be reached.
    """
    assert line.camera is not None
    return "; ".join(camera.list_complaints()) if line.camera.kind == "video" else camera.find_outage()


def _describe_silence(line: LineSettings, camera: GatewayCamera, wait_s: float) -> str:
    complaints = "; ".join(camera.list_complaints())
    return complaints or (
        f"No picture of {line.name} came within {wait_s:g} s. Let the camera take pictures, and stop the gateway of this line, because it "
        "takes the pictures first."
    )


def _answer(frame: CameraFrame, picture: TriedPicture, line: str) -> None:
    """Confirms the picture of `frame`. A camera that uploads pictures over HTTP gets the response that the gateway would send."""
    receipt: Future[PictureReceipt] = frame.receipt
    receipt.set_result(PictureReceipt(PartId(line, 1, picture.number)))


def measure_frame(frame: CameraFrame, number: int, line: LineSettings, settings: Settings) -> TriedPicture:
    """Measures the picture in `frame`. If the gateway or the inspector would refuse the picture, the result holds the reason."""
    offset_s = None if frame.waited_s is None else (datetime.now(UTC) - frame.captured_at).total_seconds() - frame.waited_s
    size, name = len(frame.value), _find_name(frame)
    try:
        checked = check_picture(frame, settings.pictures.max_bytes)
    except PictureRefusedError as error:
        return TriedPicture(number, name, size, "", offset_s, f"{error.reason}: {error}")
    limits = PictureLimits.from_settings(settings.pictures)
    try:
        decoded = decode_picture(frame.value, _MEASURED_PX, limits, line.depth_bits)
        mode, depth_bits = _read_mode(frame.value, limits)
        thumbnail = encode_thumbnail(frame.value, limits, THUMBNAIL_PX, line.depth_bits).value
    except PictureError as error:
        return TriedPicture(number, name, size, checked.content_type, offset_s, f"{error.reason}: {error}")
    return TriedPicture(
        number,
        name,
        size,
        checked.content_type,
        offset_s,
        "",
        decoded.width_px,
        decoded.height_px,
        mode,
        depth_bits,
        round(float(np.mean(decoded.pixels)), 1),
        int(decoded.pixels.min()),
        int(decoded.pixels.max()),
        thumbnail,
    )


def _find_name(frame: CameraFrame) -> str:
    """Returns the file name of a picture from a drop folder, or "" for a picture from another kind of camera."""
    kind, _, rest = frame.idempotency_key.partition(":")
    return rest.rsplit(":", 2)[0] if kind == "file" else ""


def _read_mode(value: bytes, limits: PictureLimits) -> tuple[str, int]:
    """Returns Pillow's name for the mode of a picture, such as "RGB", and the number of bits per colour value."""
    with open_picture(value, limits) as file:
        return file.header.mode, file.header.sample_bits
