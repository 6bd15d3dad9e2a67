"""Writes a file atomically: readers never see a half-written file, and a crash never leaves one on the disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Writes `content` to `path`. Readers see either the old file or the complete new one, even after a power cut.

    A missing folder is created. `mode` gives the permission bits. Raises OSError if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    umask = os.umask(0o077)
    os.umask(umask)
    _write(path, content, lambda descriptor: os.fchmod(descriptor, mode & ~umask))


def create_once(path: Path, content: bytes | str, *, mode: int) -> None:
    """Writes `content` to `path`, as `write_atomically` does. If the file exists already, it stays as it is.

    If two processes call this function at the same time, the file gets the content of only one of them. The folder of `path` must exist.
    Raises OSError if the file cannot be created.
    """
    if path.exists():
        return
    own_file = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    write_atomically(own_file, content, mode=mode)
    try:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(own_file)
    finally:
        own_file.unlink()
    flush_to_disk(path.parent)


def publish_atomically(path: Path, content: bytes | str) -> None:
    """Writes `content` to `path`, as `write_atomically` does. All users of this machine can read the file, whatever the umask is.

    Missing folders are created, and all users can list the new folders. Raises OSError if the file cannot be written.
    """
    make_public_folder(path.parent)
    _write(path, content, lambda descriptor: os.fchmod(descriptor, 0o644))


def make_public_folder(folder: Path) -> None:
    """Creates `folder` and missing folders above it, so that all users can list them. An existing folder keeps its permissions."""
    if not folder.is_dir():
        make_public_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o755)


def replace_atomically(path: Path, content: bytes | str) -> None:
    """Gives an existing file new content, as `write_atomically` does. The file keeps its owner, group and permission bits.

    If `path` is a symbolic link, the file to which it leads is replaced. Raises OSError if the file cannot be written.
    """
    path = path.resolve(strict=True)
    before = path.stat()

    def keep_owner_and_mode(descriptor: int) -> None:
        os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, before.st_mode & 0o7777)

    _write(path, content, keep_owner_and_mode)


def _write(path: Path, content: bytes | str, set_owner_and_mode: Callable[[int], None]) -> None:
    # The temporary name begins with a dot. Programs that list the folder therefore ignore the unfinished file.
    descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            set_owner_and_mode(descriptor)
            os.fsync(descriptor)
        Path(staged).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(staged).unlink()
        raise
    # Write the change of the folder to the disk, because a power cut could otherwise undo the renaming of the temporary file.
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Makes the operating system write the cached changes of a file or a folder to the disk. Raises OSError on failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
