"""The camera of kind `video`: reads a V4L2 device or an RTSP stream with OpenCV, which `castline[video]` installs.

A thread grabs pictures without a pause, because a stream that is read too slowly gives old pictures.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Any, Protocol

from agents.gateway.intake import CameraFrame
from agents.gateway.spool import PictureReceipt
from agents.gateway.trigger_queue import TriggerQueue
from streams import metrics
from streams.backoff import Backoff
from streams.complaints import Complaints
from streams.errors import SettingsError
from streams.identity import PartId
from streams.secrets import mask_address
from streams.settings import CameraSettings
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

# A triggered camera keeps this many of the last pictures, because the report of a part arrives a little later than the part.
_REMEMBERED_FRAMES = 8
# If this many threads hang in a call of OpenCV, no further thread is started.
_MAX_HANGING_READERS = 3
# If a call of OpenCV takes longer than `stall_s` times this factor, the call counts as hanging. OpenCV's own time-out is `stall_s`, so
# OpenCV has time to end the call itself.
_HANG_FACTOR = 2.0
_WAIT_S = 0.2


class VideoPicture(Protocol):
    """A decoded picture of a video stream."""

    @property
    def size_bytes(self) -> int:
        """The memory that the decoded picture needs, in bytes."""

    def encode(self) -> bytes | None:
        """Returns the picture as PNG, or None if it cannot be encoded. May be called from any thread."""


class FrameGrabber(Protocol):
    """An open video stream. All methods are called by one thread."""

    def grab(self) -> bool:
        """Waits for the next picture. Returns False if the stream has broken."""

    def retrieve(self) -> VideoPicture | None:
        """Returns the picture that was grabbed last, or None if it is damaged."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class OpenCvPicture:
    """A picture that OpenCV has decoded. It is encoded as PNG, because PNG loses no detail."""

    cv2: Any
    pixels: Any

    @property
    def size_bytes(self) -> int:
        return int(self.pixels.nbytes)

    def encode(self) -> bytes | None:
        is_encoded, value = self.cv2.imencode(".png", self.pixels, [self.cv2.IMWRITE_PNG_COMPRESSION, 1])
        return bytes(value) if is_encoded else None


class OpenCvGrabber:
    """A video stream that OpenCV reads. `address` is a device number, a device file or a URL.

    `timeout_s` limits the wait for data of a network stream.
    """

    def __init__(self, cv2: Any, address: str, timeout_s: float) -> None:
        """Raises OSError if the address cannot be opened."""
        self._cv2 = cv2
        if "://" in address:
            timeout_ms = round(timeout_s * 1000)
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
            self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
        else:
            self._capture = cv2.VideoCapture(int(address) if address.isdigit() else address)
        if not self._capture.isOpened():
            self._capture.release()
            raise OSError(f"expected a video stream at {mask_address(address)}, but it cannot be opened")
        # With a buffer of one picture the stream gives its newest picture. With a longer buffer it would give pictures of earlier parts.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def grab(self) -> bool:
        return bool(self._capture.grab())

    def retrieve(self) -> VideoPicture | None:
        is_read, pixels = self._capture.retrieve()
        return OpenCvPicture(self._cv2, pixels) if is_read else None

    def close(self) -> None:
        self._capture.release()


def make_stream_opener(address: str, timeout_s: float) -> Callable[[], FrameGrabber]:
    """Returns a function that opens the video stream at `address`. The function raises SettingsError if OpenCV is not installed."""

    def open_stream() -> FrameGrabber:
        # OpenCV is loaded only when the stream is opened. If OpenCV is not installed, the lines without a video camera still work.
        try:
            cv2 = importlib.import_module("cv2")
        except ImportError:
            raise SettingsError(
                "lines.camera.kind: expected OpenCV for a camera of kind video, found none; install castline[video]"
            ) from None
        return OpenCvGrabber(cv2, address, timeout_s)

    return open_stream


@dataclass(frozen=True)
class _GrabbedPicture:
    picture: VideoPicture
    grabbed_at: datetime


class VideoCamera:
    """Yields the newest picture of a video stream at a fixed rate, or one picture for each part that the board counts.

    A stream without pictures for `stall_s` seconds is reported and opened again.
    """

    def __init__(self, line: str, settings: CameraSettings, open_stream: Callable[[], FrameGrabber], buffer_bytes: int = 2**25) -> None:
        """`buffer_bytes` limits the decoded pictures that a triggered camera keeps. The newest picture is always kept."""
        self._line = line
        self._buffer_bytes = buffer_bytes
        self._settings = settings
        self._open_stream = open_stream
        self._is_triggered = settings.trigger == "board"
        # Pictures that the camera has taken and the gateway has not used yet, oldest first. Without a trigger, only one is kept.
        self._pictures: deque[_GrabbedPicture] = deque(maxlen=_REMEMBERED_FRAMES if self._is_triggered else 1)
        self._pictures_changed = threading.Condition()
        self._is_asked = Event()
        self._triggers = TriggerQueue()
        self._complaints = Complaints()
        # The monotonic time of the last picture, or the time at which the camera started if there was no picture yet.
        self._alive_s = time.monotonic()
        self._last_error = "the stream sends no data"
        self._is_running = False
        # The monotonic time at which the current call of OpenCV began, or None while the reader waits before it opens the stream again.
        self._busy_since_s: float | None = None
        self._backoff = Backoff(first_s=0.5, longest_s=10.0)
        self._hanging: list[SupervisedThread] = []

    def find_outage(self) -> str:
        silent_s = time.monotonic() - self._alive_s
        if not self._is_running or silent_s <= self._settings.stall_s:
            return ""
        address = str(self._settings.address)
        silence = f"the camera of {self._line} at {address} has given no picture for {silent_s:.0f} s: {self._last_error}"
        return f"{silence}; check its power, its network and lines.camera.address"

    def list_complaints(self) -> list[str]:
        outage = self.find_outage()
        return [*([outage] if outage else []), *self._complaints.list_texts()]

    def trigger(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        return self._triggers.put(part, captured_at)

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        # When this method ends, its threads must end, too. Otherwise, the next call of `frames` would start a second reader of the stream.
        is_over = Event()
        watch = SupervisedThread(f"video-watch-{self._line}", partial(self._watch_reader, is_over), is_over)
        self._is_running = True
        self._alive_s = time.monotonic()
        watch.start()
        try:
            yield from self._take_triggered(stopping) if self._is_triggered else self._take_at_rate(stopping)
        finally:
            is_over.set()
            watch.join(2)

    def _watch_reader(self, stopping: Event) -> None:
        """Runs a thread that reads the stream. If the thread hangs in OpenCV, abandons it and starts another one."""
        while not stopping.is_set():
            abandoned = Event()
            self._busy_since_s = None
            reader = SupervisedThread(f"video-{self._line}", partial(self._read_stream, stopping, abandoned), stopping)
            reader.start()
            while not stopping.wait(_WAIT_S) and not self._is_hanging(reader):
                continue
            abandoned.set()
            if stopping.is_set():
                reader.join(2)

    def _is_hanging(self, reader: SupervisedThread) -> bool:
        """Returns whether `reader` hangs in a call of OpenCV and has to be replaced. Returns False if too many threads hang already."""
        busy_since_s = self._busy_since_s
        if busy_since_s is None or time.monotonic() - busy_since_s <= _HANG_FACTOR * self._settings.stall_s:
            return False
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= _MAX_HANGING_READERS:
            return False
        self._hanging.append(reader)
        self._last_error = "OpenCV does not return from reading the stream"
        metrics.camera_failures.labels(self._line).inc()
        log.warning("The camera of %s: %s. The gateway starts another thread to read the stream.", self._line, self._last_error)
        return True

    def _read_stream(self, stopping: Event, abandoned: Event) -> None:
        """Opens and reads the stream, and opens it again whenever it breaks, until `stopping` or `abandoned` is set."""
        while not (stopping.is_set() or abandoned.is_set()):
            try:
                self._busy_since_s = time.monotonic()
                stream = self._open_stream()
                try:
                    self._grab_pictures(stream, stopping, abandoned)
                finally:
                    stream.close()
                error = "the stream broke"
            except Exception as failure:  # noqa: BLE001  OpenCV raises its own errors for whatever a stream holds.
                error = str(failure).strip() or repr(failure)
            if stopping.is_set() or abandoned.is_set():
                return
            self._busy_since_s = None
            self._last_error = error
            metrics.camera_failures.labels(self._line).inc()
            wait_s = self._backoff.failed()
            log.warning("The camera of %s: %s. The gateway opens the stream again in %.1f s.", self._line, error, wait_s)
            stopping.wait(wait_s)

    def _grab_pictures(self, stream: FrameGrabber, stopping: Event, abandoned: Event) -> None:
        """Grabs pictures from an open stream until the stream breaks, or until `stopping` or `abandoned` is set."""
        while stream.grab():
            grabbed_at = datetime.now(UTC)
            if stopping.is_set() or abandoned.is_set():
                return
            self._alive_s = self._busy_since_s = time.monotonic()
            self._backoff.succeeded()
            if not self._is_triggered and not self._is_asked.is_set():
                continue
            picture = stream.retrieve()
            if picture is None:
                raise OSError("OpenCV cannot decode a picture of the stream")
            with self._pictures_changed:
                self._pictures.append(_GrabbedPicture(picture, grabbed_at))
                while len(self._pictures) > 1 and sum(kept.picture.size_bytes for kept in self._pictures) > self._buffer_bytes:
                    self._pictures.popleft()
                self._is_asked.clear()
                self._pictures_changed.notify_all()

    def _encode(self, grabbed: _GrabbedPicture, part: PartId | None = None) -> CameraFrame | None:
        """Returns a picture as a frame. If the picture cannot be encoded, adds a complaint and returns None."""
        try:
            value, error = grabbed.picture.encode(), "OpenCV gives no reason"
        except Exception as failure:  # noqa: BLE001  One picture must not end the camera. The failure is counted and shown.
            value, error = None, str(failure)
        if value is None:
            metrics.camera_failures.labels(self._line).inc()
            log.error("A picture of %s cannot be encoded: %s", self._line, error)
            text = f"a picture of {self._line} cannot be encoded: {error}; choose another pixel format at the camera"
            self._complaints.add_event("encoding", text)
            return None
        return CameraFrame(value, grabbed.grabbed_at, "image/png", part=part)

    def _take_newest(self, timeout_s: float) -> _GrabbedPicture | None:
        """Returns the newest picture that was not yet given to the intake. If none comes within `timeout_s` seconds, returns None."""
        with self._pictures_changed:
            if not self._pictures:
                self._is_asked.set()
            self._pictures_changed.wait_for(lambda: bool(self._pictures), timeout_s)
            return self._pictures.pop() if self._pictures else None

    def _take_at_rate(self, stopping: Event) -> Iterator[CameraFrame]:
        due_s = time.monotonic()
        while not stopping.wait(max(0.0, due_s - time.monotonic())):
            if grabbed := self._take_newest(_WAIT_S):
                due_s = max(due_s, time.monotonic() - 1) + 1 / self._settings.rate_per_s
                if frame := self._encode(grabbed):
                    yield frame

    def _take_triggered(self, stopping: Event) -> Iterator[CameraFrame]:
        window_s = self._settings.match_window_s
        while not stopping.is_set():
            if (trigger := self._triggers.get(_WAIT_S)) is None:
                continue
            grabbed = self._take_near(trigger.captured_at, window_s)
            frame = self._encode(grabbed, trigger.part) if grabbed else None
            if frame is None:
                metrics.unmatched_parts.labels(self._line).inc()
                trigger.refuse(f"expected a picture within {window_s} s of part {trigger.part}, found none")
                continue
            yield replace(frame, receipt=trigger.receipt)

    def _take_near(self, captured_at: datetime, window_s: float) -> _GrabbedPicture | None:
        """Returns the picture nearest to `captured_at`. Returns None if this picture is more than `window_s` away.

        The method first waits at most `window_s` for a picture that was grabbed at `captured_at` or later.
        """

        def is_later_one_there() -> bool:
            return bool(self._pictures) and self._pictures[-1].grabbed_at >= captured_at

        with self._pictures_changed:
            self._pictures_changed.wait_for(is_later_one_there, window_s)
            found = min(self._pictures, key=lambda grabbed: abs(grabbed.grabbed_at - captured_at), default=None)
            if found is None or abs((found.grabbed_at - captured_at).total_seconds()) > window_s:
                return None
            # The picture of the next part is newer than `found`. So `found` and all older pictures are no longer needed.
            while self._pictures and self._pictures[0].grabbed_at <= found.grabbed_at:
                self._pictures.popleft()
        return found
