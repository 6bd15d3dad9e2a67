"""A folder replayed as a camera: for the demo, the tests and for judging old pictures again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event

from agents.gateway.camera import NO_PICTURE, Frame, RefusedError, Taken
from streams import metrics
from streams.errors import CastlineError, SettingsError, SpoolFullError
from streams.identity import PartId
from streams.settings import CameraSettings

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp"})
_WAIT_FULL_S = 1.0


def truth_of(file: Path, root: Path) -> str | None:
    """`ok` for a file in a folder called ok…, `defect` in any other folder below `root`, None in `root` itself."""
    if file.parent == root:
        return None
    return "ok" if file.parent.name.lower().startswith("ok") else "defect"


class FolderCamera:
    """Gives the folder's pictures at a rate, or one upon each trigger. Their headers carry the `truth` that folders tell."""

    def __init__(self, line: str, settings: CameraSettings) -> None:
        """Raises SettingsError: when the folder has no picture."""
        root = settings.path
        assert root is not None  # settings see to it
        self._root = root
        self._settings = settings
        self._files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not self._files:
            raise SettingsError(f"lines.camera.path: expected pictures ({', '.join(sorted(SUFFIXES))}) for {line} in {root}, found none")
        self._random = random.Random(f"{line}:{settings.seed}")
        self._answers: dict[Frame, Future[Taken]] = {}
        self._triggers: SimpleQueue[tuple[PartId, datetime, Future[Taken]]] = SimpleQueue()
        self._full = False

    def frames(self, stopping: Event) -> Iterator[Frame]:
        return self._triggered(stopping) if self._settings.trigger == "board" else self._free(stopping)

    def trigger(self, part: PartId, captured_at: datetime) -> Future[Taken]:
        answer: Future[Taken] = Future()
        self._triggers.put((part, captured_at, answer))
        return answer

    def done(self, frame: Frame, taken: Taken) -> None:
        self._full = False
        if answer := self._answers.pop(frame, None):
            answer.set_result(taken)

    def refused(self, frame: Frame, error: CastlineError) -> None:
        self._full = isinstance(error, SpoolFullError)
        if answer := self._answers.pop(frame, None):
            answer.set_exception(error)

    def _order(self) -> Iterator[Path]:
        while True:
            files = list(self._files)
            if self._settings.shuffle:
                self._random.shuffle(files)
            yield from files
            if not self._settings.loop:
                return

    def _frame(self, file: Path, part: PartId | None = None, captured_at: datetime | None = None) -> Frame:
        return Frame(file.read_bytes(), captured_at or datetime.now(UTC), truth=truth_of(file, self._root), part=part)

    def _free(self, stopping: Event) -> Iterator[Frame]:
        period_s, jitter = 1 / self._settings.rate_per_s, self._settings.jitter
        due = time.monotonic()
        for file in self._order():
            if stopping.wait(max(0.0, due + period_s * jitter * self._random.uniform(-0.5, 0.5) - time.monotonic())):
                return
            # Behind by seconds (the machine slept, the spool was full): go on from now instead of catching up in a burst.
            due = max(due, time.monotonic() - 1) + period_s
            yield self._frame(file)
            while self._full:
                if stopping.wait(_WAIT_FULL_S):
                    return
                yield self._frame(file)

    def _triggered(self, stopping: Event) -> Iterator[Frame]:
        order = self._order()
        while not stopping.is_set():
            try:
                part, captured_at, answer = self._triggers.get(timeout=0.2)
            except Empty:
                continue
            file = next(order, None)
            if file is None:
                metrics.unmatched_parts.labels(part.line).inc()
                answer.set_exception(RefusedError(NO_PICTURE, f"expected another picture for part {part}, the folder is at its end"))
                continue
            # The picture cannot be older than its trigger, nor from the future by a clock that is ahead.
            frame = self._frame(file, part, min(captured_at, datetime.now(UTC)))
            self._answers[frame] = answer
            yield frame
