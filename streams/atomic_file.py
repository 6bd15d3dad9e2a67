"""Writes a file atomically: readers never see a half-written file, and a crash never leaves one on the disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Writes `content` to `path`. Readers see either the old file or the complete new one, even after a power cut.

    A missing folder is created. `mode` gives the permission bits. Raises OSError if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name begins with a dot. Programs that list the folder therefore ignore the unfinished file.
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
    # Without this flush of the folder, a power cut could undo the renaming of the temporary file.
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Makes the operating system write a file, or the list of files of a folder, from its cache to the disk. Raises OSError on failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
