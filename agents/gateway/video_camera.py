"""The camera of kind `video`: reads a V4L2 device or an RTSP stream with OpenCV, which the extra `video` installs."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any, Protocol

from agents.gateway.intake import NO_PICTURE, CameraFrame, PictureRefusedError
from agents.gateway.spool import PictureReceipt
from streams import metrics
from streams.backoff import Backoff
from streams.errors import SettingsError
from streams.identity import PartId
from streams.settings import CameraSettings

log = logging.getLogger(__name__)


class FrameGrabber(Protocol):
    """An open video stream."""

    def grab(self) -> bytes | None:
        """Waits for the next picture and returns it encoded. Returns None if the stream has broken."""

    def close(self) -> None: ...


class OpenCvGrabber:
    """A video stream that OpenCV reads. Pictures are encoded as PNG, so that no detail is lost to compression.

    `address` is a device number, a device file or a URL.
    """

    def __init__(self, cv2: Any, address: str) -> None:
        """Raises OSError if the address cannot be opened."""
        self._cv2 = cv2
        self._capture = cv2.VideoCapture(int(address) if address.isdigit() else address)
        if not self._capture.isOpened():
            raise OSError(f"expected a video stream at {address}, it cannot be opened")
        # With a buffer of one picture the stream gives its newest one. A longer buffer would give older pictures of earlier parts.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def grab(self) -> bytes | None:
        is_read, pixels = self._capture.read()
        if not is_read:
            return None
        is_encoded, value = self._cv2.imencode(".png", pixels, [self._cv2.IMWRITE_PNG_COMPRESSION, 1])
        return bytes(value) if is_encoded else None

    def close(self) -> None:
        self._capture.release()


def make_stream_opener(address: str) -> Callable[[], FrameGrabber]:
    """Returns a function that opens the video stream at `address`. Raises SettingsError if OpenCV is not installed."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise SettingsError("lines.camera.kind: expected OpenCV for a camera of kind video, found none; install castline[video]") from None
    return lambda: OpenCvGrabber(cv2, address)


class VideoCamera:
    """Reads a video stream all the time and gives its newest picture, at a fixed rate or for each part that the board counts.

    A stream that breaks is opened again.
    """

    def __init__(self, line: str, settings: CameraSettings, open_stream: Callable[[], FrameGrabber]) -> None:
        self._line = line
        self._settings = settings
        self._open_stream = open_stream
        # The newest picture that was not given yet.
        self._newest: CameraFrame | None = None
        self._newest_changed = threading.Condition()
        self._triggers: SimpleQueue[tuple[PartId, datetime, Future[PictureReceipt]]] = SimpleQueue()

    def trigger(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        receipt: Future[PictureReceipt] = Future()
        self._triggers.put((part, captured_at, receipt))
        return receipt

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        reader = threading.Thread(target=self._read_stream, args=(stopping,), name=f"video-{self._line}", daemon=True)
        reader.start()
        yield from self._take_triggered(stopping) if self._settings.trigger == "board" else self._take_at_rate(stopping)
        reader.join(2)

    def _read_stream(self, stopping: Event) -> None:
        """Keeps `_newest` up to date until `stopping` is set."""
        backoff = Backoff(first_s=0.5, longest_s=10.0)
        while not stopping.is_set():
            try:
                stream = self._open_stream()
            except OSError as error:
                wait_s = backoff.failed()
                log.warning("The camera of %s cannot be opened: %s. The next attempt follows in %.1f s.", self._line, error, wait_s)
                stopping.wait(wait_s)
                continue
            try:
                while not stopping.is_set() and (value := stream.grab()) is not None:
                    backoff.succeeded()
                    with self._newest_changed:
                        self._newest = CameraFrame(value, datetime.now(UTC), "image/png")
                        self._newest_changed.notify_all()
            finally:
                stream.close()
            if not stopping.is_set():
                wait_s = backoff.failed()
                log.warning("The stream of the camera of %s broke. It is opened again in %.1f s.", self._line, wait_s)
                stopping.wait(wait_s)

    def _take_newest(self, timeout_s: float) -> CameraFrame | None:
        """Waits for a picture that was not given yet and returns it, or None after `timeout_s`."""
        with self._newest_changed:
            self._newest_changed.wait_for(lambda: self._newest is not None, timeout_s)
            frame, self._newest = self._newest, None
        return frame

    def _take_at_rate(self, stopping: Event) -> Iterator[CameraFrame]:
        due_s = time.monotonic()
        while not stopping.wait(max(0.0, due_s - time.monotonic())):
            if frame := self._take_newest(0.2):
                due_s = max(due_s, time.monotonic() - 1) + 1 / self._settings.rate_per_s
                yield frame

    def _take_triggered(self, stopping: Event) -> Iterator[CameraFrame]:
        window_s = self._settings.match_window_s
        while not stopping.is_set():
            try:
                part, captured_at, receipt = self._triggers.get(timeout=0.2)
            except Empty:
                continue
            frame = self._take_near(captured_at, window_s)
            if frame is None:
                metrics.unmatched_parts.labels(part.line).inc()
                receipt.set_exception(PictureRefusedError(NO_PICTURE, f"expected a picture within {window_s} s of part {part}"))
                continue
            yield CameraFrame(frame.value, frame.captured_at, frame.declared_type, part=part, receipt=receipt)

    def _take_near(self, captured_at: datetime, window_s: float) -> CameraFrame | None:
        """Waits at most `window_s` for a picture that was taken within `window_s` of `captured_at`."""
        until_s = time.monotonic() + window_s
        while (timeout_s := until_s - time.monotonic()) > 0:
            frame = self._take_newest(timeout_s)
            if frame and abs((frame.captured_at - captured_at).total_seconds()) <= window_s:
                return frame
        return None
