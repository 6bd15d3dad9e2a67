"""A V4L2 device or an RTSP stream through OpenCV, the extra `video`. A stream that breaks is opened again."""

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

from agents.gateway.camera import NO_PICTURE, Frame, RefusedError, Taken
from streams import metrics
from streams.errors import CastlineError, SettingsError
from streams.identity import PartId
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

_BACK_OFF_S = (0.5, 10.0)


class Grabber(Protocol):
    """An open stream."""

    def grab(self) -> bytes | None:
        """The next picture, encoded; waits for it. None: the stream has broken."""

    def close(self) -> None: ...


class OpenCvGrabber:
    """`address` is a device number, a device file or a URL. Pictures are encoded as PNG: nothing is lost to compression."""

    def __init__(self, cv2: Any, address: str) -> None:
        """Raises OSError: when the address cannot be opened."""
        self._cv2 = cv2
        self._capture = cv2.VideoCapture(int(address) if address.isdigit() else address)
        if not self._capture.isOpened():
            raise OSError(f"expected a video stream at {address}, it cannot be opened")
        # The newest picture counts: a buffer of old ones would show the part before.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def grab(self) -> bytes | None:
        found, pixels = self._capture.read()
        if not found:
            return None
        encoded, value = self._cv2.imencode(".png", pixels, [self._cv2.IMWRITE_PNG_COMPRESSION, 1])
        return bytes(value) if encoded else None

    def close(self) -> None:
        self._capture.release()


def open_cv(address: str) -> Callable[[], Grabber]:
    """Opens `address` when called. Raises SettingsError: when OpenCV is not installed."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise SettingsError("lines.camera.kind: expected OpenCV for a camera of kind video, found none; install castline[video]") from None
    return lambda: OpenCvGrabber(cv2, address)


class VideoCamera:
    """The stream is read all the time and the newest picture is given: at a rate, or upon each trigger."""

    def __init__(self, line: str, settings: CameraSettings, open_stream: Callable[[], Grabber]) -> None:
        self._line = line
        self._settings = settings
        self._open = open_stream
        self._newest: Frame | None = None
        self._fresh = threading.Condition()
        self._triggers: SimpleQueue[tuple[PartId, datetime, Future[Taken]]] = SimpleQueue()
        self._answers: dict[Frame, Future[Taken]] = {}

    def trigger(self, part: PartId, captured_at: datetime) -> Future[Taken]:
        answer: Future[Taken] = Future()
        self._triggers.put((part, captured_at, answer))
        return answer

    def done(self, frame: Frame, taken: Taken) -> None:
        if answer := self._answers.pop(frame, None):
            answer.set_result(taken)

    def refused(self, frame: Frame, error: CastlineError) -> None:
        # A moving belt cannot be asked again: the picture is counted as refused and gone.
        if answer := self._answers.pop(frame, None):
            answer.set_exception(error)

    def frames(self, stopping: Event) -> Iterator[Frame]:
        reader = threading.Thread(target=self._read, args=(stopping,), name=f"video-{self._line}", daemon=True)
        reader.start()
        yield from self._triggered(stopping) if self._settings.trigger == "board" else self._free(stopping)
        reader.join(2)

    def _read(self, stopping: Event) -> None:
        wait_s = _BACK_OFF_S[0]
        while not stopping.is_set():
            try:
                stream = self._open()
            except OSError as error:
                log.warning("camera of %s: %s; next try in %.1f s", self._line, error, wait_s)
                stopping.wait(wait_s)
                wait_s = min(2 * wait_s, _BACK_OFF_S[1])
                continue
            try:
                while not stopping.is_set() and (value := stream.grab()) is not None:
                    wait_s = _BACK_OFF_S[0]
                    with self._fresh:
                        self._newest = Frame(value, datetime.now(UTC), "image/png")
                        self._fresh.notify_all()
            finally:
                stream.close()
            if not stopping.is_set():
                log.warning("camera of %s: the stream broke; opened again in %.1f s", self._line, wait_s)
                stopping.wait(wait_s)
                wait_s = min(2 * wait_s, _BACK_OFF_S[1])

    def _take(self, wait_s: float) -> Frame | None:
        """The newest picture not given yet, waited for."""
        with self._fresh:
            self._fresh.wait_for(lambda: self._newest is not None, wait_s)
            frame, self._newest = self._newest, None
        return frame

    def _free(self, stopping: Event) -> Iterator[Frame]:
        due = time.monotonic()
        while not stopping.wait(max(0.0, due - time.monotonic())):
            if frame := self._take(0.2):
                due = max(due, time.monotonic() - 1) + 1 / self._settings.rate_per_s
                yield frame

    def _triggered(self, stopping: Event) -> Iterator[Frame]:
        while not stopping.is_set():
            try:
                part, captured_at, answer = self._triggers.get(timeout=0.2)
            except Empty:
                continue
            frame = self._near(captured_at)
            if frame is None:
                metrics.unmatched_parts.labels(part.line).inc()
                answer.set_exception(
                    RefusedError(NO_PICTURE, f"expected a picture within {self._settings.match_window_s} s of part {part}")
                )
                continue
            stamped = Frame(frame.value, frame.captured_at, frame.content_type, part=part)
            self._answers[stamped] = answer
            yield stamped

    def _near(self, captured_at: datetime) -> Frame | None:
        until = time.monotonic() + self._settings.match_window_s
        while (left_s := until - time.monotonic()) > 0:
            frame = self._take(left_s)
            if frame and abs((frame.captured_at - captured_at).total_seconds()) <= self._settings.match_window_s:
                return frame
        return None
