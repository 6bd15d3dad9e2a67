"""The camera of kind `folder`: replays the pictures of a folder, for the demo, for tests and for judging old pictures again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event

from agents.gateway.intake import NO_PICTURE, CameraFrame, PictureRefusedError
from agents.gateway.spool import PictureReceipt
from streams import metrics
from streams.errors import SettingsError, SpoolFullError
from streams.identity import PartId
from streams.settings import CameraSettings

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp"})
_FULL_SPOOL_RETRY_S = 1.0


def find_truth(file: Path, root: Path) -> str | None:
    """Returns the class of a picture from its folder: `ok` if the folder's name begins with "ok", else `defect`.

    Returns None for a picture that lies in `root` itself.
    """
    if file.parent == root:
        return None
    return "ok" if file.parent.name.lower().startswith("ok") else "defect"


class FolderCamera:
    """Gives the pictures of a folder at a fixed rate, or one picture for each part that the board counts.

    The pictures carry their class as `truth`, taken from the names of their folders.
    """

    def __init__(self, line: str, settings: CameraSettings) -> None:
        """Raises SettingsError if the folder holds no picture."""
        root = settings.path
        assert root is not None  # CameraSettings requires a path for this kind of camera.
        self._root = root
        self._settings = settings
        self._files = sorted(file for file in root.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file())
        if not self._files:
            raise SettingsError(
                f"lines.camera.path: expected pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) for {line} in {root}, found none"
            )
        self._random = random.Random(f"{line}:{settings.seed}")
        self._triggers: SimpleQueue[tuple[PartId, datetime, Future[PictureReceipt]]] = SimpleQueue()

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        return self._play_triggered(stopping) if self._settings.trigger == "board" else self._play_at_rate(stopping)

    def trigger(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        receipt: Future[PictureReceipt] = Future()
        self._triggers.put((part, captured_at, receipt))
        return receipt

    def _files_in_order(self) -> Iterator[Path]:
        while True:
            files = list(self._files)
            if self._settings.shuffle:
                self._random.shuffle(files)
            yield from files
            if not self._settings.loop:
                return

    def _read_frame(self, file: Path) -> CameraFrame:
        return CameraFrame(file.read_bytes(), datetime.now(UTC), truth=find_truth(file, self._root))

    def _play_at_rate(self, stopping: Event) -> Iterator[CameraFrame]:
        period_s, jitter = 1 / self._settings.rate_per_s, self._settings.jitter
        due_s = time.monotonic()
        for file in self._files_in_order():
            delay_s = period_s * jitter * self._random.uniform(-0.5, 0.5)
            if stopping.wait(max(0.0, due_s + delay_s - time.monotonic())):
                return
            # If the camera is late by more than a second, because the machine slept or the spool was full, it does not catch up in a burst.
            due_s = max(due_s, time.monotonic() - 1) + period_s
            yield (frame := self._read_frame(file))
            while _is_spool_full(frame):
                if stopping.wait(_FULL_SPOOL_RETRY_S):
                    return
                yield (frame := self._read_frame(file))

    def _play_triggered(self, stopping: Event) -> Iterator[CameraFrame]:
        files = self._files_in_order()
        while not stopping.is_set():
            try:
                part, captured_at, receipt = self._triggers.get(timeout=0.2)
            except Empty:
                continue
            file = next(files, None)
            if file is None:
                metrics.unmatched_parts.labels(part.line).inc()
                receipt.set_exception(
                    PictureRefusedError(NO_PICTURE, f"expected another picture for part {part}, the folder is at its end")
                )
                continue
            # The board's clock may be ahead of this one, but a picture must not come from the future.
            captured_at = min(captured_at, datetime.now(UTC))
            yield CameraFrame(file.read_bytes(), captured_at, truth=find_truth(file, self._root), part=part, receipt=receipt)


def _is_spool_full(frame: CameraFrame) -> bool:
    """Returns whether the intake refused the frame because the spool is full. The intake does so before it asks for the next frame."""
    return frame.receipt.done() and isinstance(frame.receipt.exception(), SpoolFullError)
