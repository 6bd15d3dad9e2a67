"""Keeps a log from filling the disk. When a log has become too large, a new one begins, and only the previous log is kept beside it.

A `LogFile` is renamed, because only this process writes to it. `limit_log` copies a log that another program keeps open, and empties it.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

MAX_BYTES = 64 * 2**20


def limit_log(file: Path, max_bytes: int = MAX_BYTES) -> None:
    """If `file` is larger than `max_bytes`, moves its content to a file with the same name and the ending `.1`, and empties `file`.

    Programs may keep `file` open, but must write to it in append mode. Lines that they write between the copy and the emptying are lost. If
    the disk has no room for the copy, the content is lost.

    Raises OSError if the file cannot be emptied.
    """
    if not file.is_file() or file.stat().st_size <= max_bytes:
        return
    old = _name_predecessor(file)
    try:
        shutil.copyfile(file, old)
    except OSError:
        with suppress(OSError):
            old.unlink()
    os.truncate(file, 0)


class LogFile:
    """A text file to which lines are appended. The file and its predecessor have at most about `max_bytes` bytes each.

    A file that has become too large is renamed, which takes no time, and a new file begins. No line is lost. A reader with `tail -F` reads
    on in the new file. Only one process may write to the file.

    Raises OSError if `file` cannot be opened.
    """

    def __init__(self, file: Path, max_bytes: int = MAX_BYTES) -> None:
        # A symbolic link stays, and the file that it names is renamed. A pipe or device is opened as it is, because the links of pipes in
        # /dev/fd lead to no path.
        self._file = file.resolve() if file.is_file() or not file.exists() else file
        self._max_bytes = max_bytes
        self._opened = self._open()

    def _open(self) -> TextIO:
        return self._file.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._opened.close()

    def write(self, text: str) -> int:
        return self._opened.write(text)

    def flush(self) -> None:
        """Writes the text that is still in memory to the file. Raises OSError if the disk is full."""
        try:
            self._opened.flush()
        finally:
            status = os.fstat(self._opened.fileno())
            if status.st_size > self._max_bytes and stat.S_ISREG(status.st_mode):
                self._begin_new_file()

    def _begin_new_file(self) -> None:
        old = _name_predecessor(self._file)
        try:
            # Another program may have renamed the file already, and may have created a new file in its place.
            is_renamed_here = self._is_in_place()
            if is_renamed_here:
                self._file.replace(old)
        except OSError:
            # If the file cannot be renamed, its content is lost, because the log must not fill the disk.
            os.truncate(self._opened.fileno(), 0)
            return
        try:
            opened = self._open()
        except OSError:
            # No new file could be opened. So the old file gets its name back, and further lines go to it. The next line tries again to
            # begin a new file.
            with suppress(OSError):
                if is_renamed_here:
                    old.replace(self._file)
            return
        full, self._opened = self._opened, opened
        # On a full disk, the file still holds back text that `flush` could not write.
        with suppress(OSError):
            full.close()

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._file.stat(), os.fstat(self._opened.fileno()))
        except FileNotFoundError:
            return False


def _name_predecessor(file: Path) -> Path:
    return file.with_name(f"{file.name}.1")
