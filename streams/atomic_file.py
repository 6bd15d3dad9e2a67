"""Writes a file so that a reader, or a crash, never meets half of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Writes `content` to `path`: readers see the old file or the whole new one, also after a power cut.

    Makes the folder of `path` where it is missing. Text is written as UTF-8. `mode` holds the permission bits of the new file,
    less the umask of this process.

    Raises OSError if the file cannot be written; then `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name begins with a dot so that nobody who lists the folder takes the unfinished file for one of its own.
    descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0o077)
        os.umask(umask)
        Path(staged).chmod(mode & ~umask)
        Path(staged).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(staged).unlink()
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Forces the folder's entry of a renamed file to the disk, because a rename alone can be lost in a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
