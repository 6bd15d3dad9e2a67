"""Writes a file atomically: a reader never sees half of the file, and a crash never leaves half of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Writes `content` to `path`. Readers see either the old file or the complete new one, even after a power cut.

    Creates the folder of `path` if it is missing. Text is written as UTF-8. `mode` holds the permission bits of the new file, from which
    the umask of this process is subtracted.

    Raises OSError if the file cannot be written. The old file is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name begins with a dot, so that programs which list the folder ignore the unfinished file.
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
    # A power cut can undo the renaming of a file if its folder was not flushed.
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Forces the content of a file, or the entries of a folder, to the disk. Raises OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
