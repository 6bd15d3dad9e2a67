"""Writes a file atomically: no reader sees half of the file, and no crash leaves half of the file on the disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Writes `content` to `path`. Readers see either the old file or the complete new one, even after a power cut.

    Creates the folder of `path` if it is missing. Text is written as UTF-8. `mode` holds the permission bits of the new file. Bits in
    the umask of this process are removed.

    Raises OSError if the file cannot be written. The old file is then unchanged.
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
    # Without this flush of the folder, a power cut could undo the renaming.
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Writes the content of a file, or the list of files of a folder, from memory to the disk. Raises OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
