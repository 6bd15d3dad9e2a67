"""A watched folder, as industrial cameras write to over FTP or a share.

A file is taken when it is whole: size and time unchanged for `settle_s`, and no process on this machine has it open for
writing. Names that begin with a dot or end in .part, .partial, .tmp, .filepart or .crdownload are transfers under way.
A file that is safe goes to `sent/`, one that is refused to `refused/` with the reason beside it in `<name>.why`.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from agents.gateway.camera import Frame, Taken
from streams.errors import CastlineError, SettingsError, SpoolFullError
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

_UNFINISHED = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
_WAIT_FULL_S = 1.0
# An empty file is more often an upload that has not begun than one that has failed.
_EMPTY_PATIENCE = 10


@dataclass(frozen=True)
class _Look:
    """A file as it was seen."""

    size: int
    changed_ns: int

    @classmethod
    def at(cls, file: Path) -> _Look:
        status = file.stat()
        return cls(status.st_size, status.st_mtime_ns)


class DropCamera:
    """Gives each whole file of a folder once. A restart finds a file that was sent and not yet moved by its mark."""

    def __init__(self, line: str, settings: CameraSettings, max_bytes: int, forget: Callable[[str], None]) -> None:
        """`forget` drops a mark from the spool's memory. Raises SettingsError: when the folder cannot be written."""
        assert settings.path is not None  # settings see to it
        self._root = settings.path
        self._settle_s = settings.settle_s
        self._max_bytes = max_bytes
        self._forget = forget
        self._seen: dict[Path, tuple[_Look, float]] = {}
        self._offered: dict[Frame, tuple[Path, _Look]] = {}
        self._lock = threading.Lock()
        self._full_until = 0.0
        try:
            for folder in ("sent", "refused"):
                (self._root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"lines.camera.path: expected a folder that can be written for {line}, found {self._root}: {error.strerror}"
            raise SettingsError(message) from None

    def frames(self, stopping: Event) -> Iterator[Frame]:
        while not stopping.wait(min(0.25, self._settle_s / 4)):
            for file, look in self._whole(time.monotonic()):
                if stopping.is_set() or time.monotonic() < self._full_until:
                    break
                try:
                    frame = self._read(file, look)
                except OSError as error:  # moved, or written to again
                    log.info("%s is not to be had now: %s", file.name, error)
                    continue
                if frame is not None:
                    with self._lock:
                        self._offered[frame] = (file, look)
                    yield frame

    def _whole(self, now: float) -> list[tuple[Path, _Look]]:
        """The settled files, oldest first."""
        with self._lock:
            offered = {file for file, _ in self._offered.values()}
        seen: dict[Path, tuple[_Look, float]] = {}
        settled = []
        for entry in os.scandir(self._root):
            file = Path(entry.path)
            if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED) or file in offered:
                continue
            try:
                if not entry.is_file(follow_symlinks=False):
                    continue
                look = _Look.at(file)
            except OSError:
                continue
            before, since = self._seen.get(file, (look, now))
            seen[file] = (look, since if before == look else now)
            patience_s = self._settle_s if look.size else self._settle_s * _EMPTY_PATIENCE
            if now - seen[file][1] >= patience_s and not _being_written(file):
                settled.append((file, look))
        self._seen = seen
        return sorted(settled, key=lambda found: (found[1].changed_ns, found[0].name))

    def _read(self, file: Path, look: _Look) -> Frame | None:
        # One byte more than allowed is enough to be refused with; the file's true size is said from the look.
        with file.open("rb") as stream:
            value = stream.read(self._max_bytes + 1)
        if _Look.at(file) != look:
            return None
        if look.size > self._max_bytes:
            self._move(file, "refused", f"expected at most {self._max_bytes} bytes, received {look.size}")
            log.warning("%s refused: expected at most %d bytes, received %d", file.name, self._max_bytes, look.size)
            return None
        mark = f"file:{file.name}:{look.changed_ns}:{hashlib.sha256(value).hexdigest()}"
        return Frame(value, datetime.fromtimestamp(look.changed_ns / 1e9, UTC), mark=mark)

    def done(self, frame: Frame, taken: Taken) -> None:
        if self._aside(frame, "sent"):
            self._forget(frame.mark)

    def refused(self, frame: Frame, error: CastlineError) -> None:
        if isinstance(error, SpoolFullError):
            # The file stays where it is and is offered again.
            self._full_until = time.monotonic() + _WAIT_FULL_S
            with self._lock:
                self._offered.pop(frame, None)
            return
        self._aside(frame, "refused", str(error))

    def _aside(self, frame: Frame, folder: str, why: str = "") -> bool:
        with self._lock:
            file, look = self._offered[frame]
        try:
            # Written anew under the same name since: that is the next picture.
            if _Look.at(file) == look:
                self._move(file, folder, why)
            return True
        except OSError as error:
            # It stays, is offered again, and the spool knows it by its mark.
            log.error("%s cannot be moved to %s: %s", file.name, folder, error)
            self._full_until = time.monotonic() + _WAIT_FULL_S
            return False
        finally:
            with self._lock:
                self._offered.pop(frame, None)

    def _move(self, file: Path, folder: str, why: str) -> None:
        target = self._root / folder / file.name
        if target.exists():  # cameras count from 1 again after a power cut
            target = target.with_name(f"{file.stem}-{time.time_ns()}{file.suffix}")
        if why:
            target.with_name(f"{target.name}.why").write_text(why + "\n", encoding="utf-8")
        file.replace(target)


def _being_written(file: Path) -> bool:
    # Linux gives a read lease only on a file that nobody has open for writing. Other systems of files do not know leases
    # (shares) or give them to the owner alone: then the settling time has to do.
    try:
        with file.open("rb") as stream:
            fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
