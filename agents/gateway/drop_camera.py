"""The camera of kind `drop`: watches a folder to which an industrial camera writes files over FTP or a network share.

A file is read when it is complete: size and time have not changed for `settle_s`, and no process on this machine has the file open for
writing. Names that begin with a dot or end in .part, .partial, .tmp, .filepart or .crdownload belong to transfers in progress and are
ignored. A stored file moves to the folder `sent/`. A refused file moves to `refused/`, and the reason stands beside it in `<name>.why`.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event

from agents.gateway.intake import CameraFrame
from agents.gateway.spool import PictureReceipt
from streams.errors import SettingsError, SpoolFullError
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

_TRANSFER_SUFFIXES = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
# After a full spool, or a file that could not be moved, no file is read for this time.
_PAUSE_S = 1.0
# An empty file must stay unchanged ten times as long, because most empty files are uploads that have not begun.
_EMPTY_FILE_FACTOR = 10


@dataclass(frozen=True)
class _FileState:
    """Size and time of last change of a file. If they differ from an earlier state, the file has been written to."""

    size: int
    changed_ns: int

    @classmethod
    def read(cls, file: Path) -> _FileState:
        status = file.stat()
        return cls(status.st_size, status.st_mtime_ns)


class DropCamera:
    """Gives each complete file of a folder once.

    If the process was killed after a file was stored and before it was moved, the file's idempotency key shows after the restart that its
    picture is stored already.
    """

    def __init__(self, line: str, settings: CameraSettings, max_bytes: int, forget_key: Callable[[str], None]) -> None:
        """`forget_key` deletes an idempotency key from the spool. Raises SettingsError if the folder is not writable."""
        assert settings.path is not None  # CameraSettings requires a path for this kind of camera.
        self._root = settings.path
        self._settle_s = settings.settle_s
        self._max_bytes = max_bytes
        self._forget_key = forget_key
        # The last state of each file, and since when the file has had it, in monotonic seconds.
        self._states: dict[Path, tuple[_FileState, float]] = {}
        # The files whose frames are not answered yet.
        self._offered_files: set[Path] = set()
        self._lock = threading.Lock()
        self._paused_until_s = 0.0
        try:
            for folder in ("sent", "refused"):
                (self._root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"lines.camera.path: expected a folder that can be written for {line}, found {self._root}: {error.strerror}"
            raise SettingsError(message) from None

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        while not stopping.wait(min(0.25, self._settle_s / 4)):
            for file, state in self._find_complete_files(time.monotonic()):
                if stopping.is_set() or time.monotonic() < self._paused_until_s:
                    break
                try:
                    frame = self._read_frame(file, state)
                except OSError as error:
                    log.info("%s cannot be read now, because it was moved or is written to: %s", file.name, error)
                    continue
                if frame is not None:
                    with self._lock:
                        self._offered_files.add(file)
                    frame.receipt.add_done_callback(partial(self._finish_file, file, state, frame))
                    yield frame

    def _find_complete_files(self, now_s: float) -> list[tuple[Path, _FileState]]:
        """Returns the complete files of the folder with their states, the oldest first."""
        with self._lock:
            offered_files = set(self._offered_files)
        states: dict[Path, tuple[_FileState, float]] = {}
        complete = []
        for entry in os.scandir(self._root):
            file = Path(entry.path)
            if entry.name.startswith(".") or entry.name.lower().endswith(_TRANSFER_SUFFIXES) or file in offered_files:
                continue
            try:
                if not entry.is_file(follow_symlinks=False):
                    continue
                state = _FileState.read(file)
            except OSError:
                continue
            last_state, since_s = self._states.get(file, (state, now_s))
            states[file] = (state, since_s if last_state == state else now_s)
            settle_s = self._settle_s if state.size else self._settle_s * _EMPTY_FILE_FACTOR
            if now_s - states[file][1] >= settle_s and not _is_open_for_writing(file):
                complete.append((file, state))
        self._states = states
        return sorted(complete, key=lambda found: (found[1].changed_ns, found[0].name))

    def _read_frame(self, file: Path, state: _FileState) -> CameraFrame | None:
        """Returns the frame of a file, or None if the file changed while it was read or is too large and was moved to `refused/`."""
        # One byte more than allowed is enough to know that the file is too large. The message gives its true size from the state.
        with file.open("rb") as stream:
            value = stream.read(self._max_bytes + 1)
        if _FileState.read(file) != state:
            return None
        if state.size > self._max_bytes:
            self._move(file, "refused", f"expected at most {self._max_bytes} bytes, received {state.size}")
            log.warning("%s is refused: expected at most %d bytes, received %d", file.name, self._max_bytes, state.size)
            return None
        key = f"file:{file.name}:{state.changed_ns}:{hashlib.sha256(value).hexdigest()}"
        return CameraFrame(value, datetime.fromtimestamp(state.changed_ns / 1e9, UTC), idempotency_key=key)

    def _finish_file(self, file: Path, state: _FileState, frame: CameraFrame, receipt: Future[PictureReceipt]) -> None:
        """Moves a file to `sent/` or `refused/` after the intake has answered. If the spool is full, the file stays and is read again."""
        error = receipt.exception()
        try:
            if isinstance(error, SpoolFullError):
                self._paused_until_s = time.monotonic() + _PAUSE_S
            # If size or time have changed, the file was written again under the same name. It holds the next picture and stays.
            elif _FileState.read(file) == state:
                self._move(file, "refused" if error else "sent", str(error or ""))
            if error is None:
                self._forget_key(frame.idempotency_key)
        except OSError as move_error:
            # The file stays and is read again. The spool then recognises by its key that the picture is stored already.
            log.error("%s cannot be moved: %s", file.name, move_error)
            self._paused_until_s = time.monotonic() + _PAUSE_S
        finally:
            with self._lock:
                self._offered_files.discard(file)

    def _move(self, file: Path, folder: str, reason: str) -> None:
        target = self._root / folder / file.name
        if target.exists():  # After a power cut many cameras number their files from 1 again.
            target = target.with_name(f"{file.stem}-{time.time_ns()}{file.suffix}")
        if reason:
            target.with_name(f"{target.name}.why").write_text(reason + "\n", encoding="utf-8")
        file.replace(target)


def _is_open_for_writing(file: Path) -> bool:
    """Returns whether a process on this machine has the file open for writing.

    Linux grants a read lease only for a file that nobody has open for writing. Network shares do not support leases, and other users' files
    get none. For these the answer is False, and only the settling time protects them.
    """
    try:
        with file.open("rb") as stream:
            fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
