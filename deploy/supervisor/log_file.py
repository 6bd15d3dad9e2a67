"""Keeps a log from filling the disk: a log that has become too large begins again, and only its last content is kept."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MAX_BYTES = 64 * 2**20


def limit_log(file: Path, max_bytes: int = MAX_BYTES) -> None:
    """If `file` is larger than `max_bytes`, moves its content to a file with the same name and the ending `.1`, and empties `file`.

    Programs may keep `file` open, but must write to it in append mode. If the disk has no room for the copy, the content is lost.

    Raises OSError if the file cannot be emptied.
    """
    if not file.is_file() or file.stat().st_size <= max_bytes:
        return
    old = file.with_name(f"{file.name}.1")
    try:
        shutil.copyfile(file, old)
    except OSError:
        with suppress(OSError):
            old.unlink()
    os.truncate(file, 0)


class LogFile:
    """A text file to which lines are appended. The file and its predecessor have at most about `max_bytes` bytes each.

    Raises OSError if `file` cannot be opened.
    """

    def __init__(self, file: Path, max_bytes: int = MAX_BYTES) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._opened = file.open("a", encoding="utf-8")

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
            limit_log(self._file, self._max_bytes)
