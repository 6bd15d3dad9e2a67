"""The camera of kind `folder`: replays the pictures in a folder. It is used for the demo, for tests and to judge old pictures again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from threading import Event

from agents.gateway.drop_folder import make_printable
from agents.gateway.intake import CameraFrame
from agents.gateway.spool import PictureReceipt
from agents.gateway.trigger_queue import TriggerQueue
from streams import metrics
from streams.complaints import Complaints
from streams.errors import SpoolFullError
from streams.identity import PartId
from streams.picture_files import JUDGED_SUFFIXES, is_foreign
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

_FULL_SPOOL_RETRY_S = 1.0
_AWAY_RETRY_S = 1.0
# After a trigger, the camera skips files that it cannot read. If it has skipped this many files in a row, the part gets no picture.
_MAX_TRIES = 10


def find_truth(file: Path, root: Path) -> str | None:
    """Returns the class of a picture from its folder: `ok` if the folder's name begins with "ok", else `defect`.

    Returns None for a picture that lies in `root` itself.
    """
    if file.parent == root:
        return None
    return "ok" if file.parent.name.lower().startswith("ok") else "defect"


class FolderCamera:
    """Yields the pictures in a folder at a fixed rate, or one picture for each part that the board counts.

    The name of a picture's subfolder gives the class of the picture. A file that cannot be read is skipped.
    """

    def __init__(self, line: str, settings: CameraSettings) -> None:
        root = settings.path
        assert root is not None  # The path is never None, because CameraSettings requires a path for this kind of camera.
        self._root = root
        self._settings = settings
        self._line = line
        self._random = random.Random(f"{line}:{settings.seed}")
        # The iterator over the files is kept here. After an error, the camera can then go on with the next file.
        self._next_files: Iterator[Path] | None = None
        self._complaints = Complaints()
        self._outage = ""
        self._triggers = TriggerQueue()

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        if self._next_files is None:
            self._next_files = self._files_in_order(self._find_files(stopping))
        play = self._play_triggered if self._settings.trigger == "board" else self._play_at_rate
        yield from play(stopping, self._next_files)

    def find_outage(self) -> str:
        return self._outage

    def list_complaints(self) -> list[str]:
        return self._complaints.list_texts()

    def trigger(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        return self._triggers.put(part, captured_at)

    def _find_files(self, stopping: Event) -> list[Path]:
        """Returns the pictures in the folder in order. Waits until the folder can be read and holds a picture, or `stopping` is set."""
        while not stopping.is_set():
            try:
                files = sorted(file for file in self._root.rglob("*") if _is_picture(file, self._root))
            except OSError as error:
                files = []
                log.debug("The folder %s of %s cannot be listed: %s", self._root, self._line, error)
            if files:
                self._set_outage("")
                return files
            self._set_outage(
                f"the folder {self._root} of {self._line} is missing or holds no pictures ({', '.join(JUDGED_SUFFIXES)}); "
                "mount it, copy pictures to it, or correct lines.camera.path"
            )
            stopping.wait(_AWAY_RETRY_S)
        return []

    def _set_outage(self, text: str) -> None:
        if text and not self._outage:
            metrics.camera_failures.labels(self._line).inc()
            log.error("%s.", text)
        self._outage = text
        self._complaints.set("folder", text)

    def _files_in_order(self, files: list[Path]) -> Iterator[Path]:
        while files:
            if self._settings.shuffle:
                self._random.shuffle(files)
            yield from files
            if not self._settings.loop:
                return

    def _read(self, file: Path, stopping: Event) -> bytes | None:
        """Returns the content of a file, or None if it cannot be read. Waits while the whole folder cannot be reached."""
        while not stopping.is_set():
            try:
                value = file.read_bytes()
            except OSError as error:
                if self._root.is_dir():
                    self._leave_out(file, error)
                    return None
                self._set_outage(f"the folder {self._root} of {self._line} cannot be reached; mount it, or correct lines.camera.path")
                stopping.wait(_AWAY_RETRY_S)
            else:
                self._set_outage("")
                return value
        return None

    def _leave_out(self, file: Path, error: OSError) -> None:
        metrics.pictures_lost.labels(self._line, "not-readable").inc()
        name = make_printable(str(file.relative_to(self._root)))
        log.warning("The file %s of %s cannot be read and is left out: %s", name, self._line, error)
        self._complaints.add_event("lost", f"{name} of {self._line} cannot be read and is left out: {error.strerror}; restore the file")

    def _play_at_rate(self, stopping: Event, files: Iterator[Path]) -> Iterator[CameraFrame]:
        period_s, jitter = 1 / self._settings.rate_per_s, self._settings.jitter
        due_s = time.monotonic()
        for file in files:
            delay_s = period_s * jitter * self._random.uniform(-0.5, 0.5)
            if stopping.wait(max(0.0, due_s + delay_s - time.monotonic())):
                return
            # If the gateway was delayed, for example because the machine was suspended, it skips pictures that were due more than 1 s ago.
            due_s = max(due_s, time.monotonic() - 1) + period_s
            if (value := self._read(file, stopping)) is None:
                continue
            yield (frame := CameraFrame(value, datetime.now(UTC), truth=find_truth(file, self._root)))
            while _is_spool_full(frame):
                if stopping.wait(_FULL_SPOOL_RETRY_S):
                    return
                yield (frame := CameraFrame(value, datetime.now(UTC), truth=find_truth(file, self._root)))

    def _play_triggered(self, stopping: Event, files: Iterator[Path]) -> Iterator[CameraFrame]:
        while not stopping.is_set():
            if (trigger := self._triggers.get(0.2)) is None:
                continue
            found = self._read_next(stopping, files)
            if found is None:
                metrics.unmatched_parts.labels(self._line).inc()
                trigger.refuse(f"expected another picture for part {trigger.part}, but the folder has no more pictures")
                continue
            file, value = found
            # The board's clock may be ahead of this machine's clock, but the time of a picture must not lie in the future.
            captured_at = min(trigger.captured_at, datetime.now(UTC))
            yield CameraFrame(value, captured_at, truth=find_truth(file, self._root), part=trigger.part, receipt=trigger.receipt)

    def _read_next(self, stopping: Event, files: Iterator[Path]) -> tuple[Path, bytes] | None:
        """Returns the next readable file and its content, or None if no file is left or several files in a row cannot be read."""
        for file in islice(files, _MAX_TRIES):
            if (value := self._read(file, stopping)) is not None:
                return file, value
        return None


def _is_picture(file: Path, root: Path) -> bool:
    """Returns whether the inspector reads files with this suffix. Returns False for hidden files and for internal data of a NAS."""
    is_named_so = file.suffix.lower() in JUDGED_SUFFIXES and not any(is_foreign(name) for name in file.relative_to(root).parts)
    return is_named_so and file.is_file()


def _is_spool_full(frame: CameraFrame) -> bool:
    """Returns whether the intake could not store `frame` because the spool was full.

    Call this function only after the frame was yielded.
    """
    return frame.receipt.done() and isinstance(frame.receipt.exception(), SpoolFullError)
