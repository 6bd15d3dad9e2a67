"""The folder to which a camera writes its files.

`drop_camera.py` lists, reads and moves the files with this module. Links in the folder are never followed, because a link could lead to
any file of this machine.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from streams.picture_files import is_foreign

SENT = "sent"
REFUSED = "refused"
REASON_SUFFIX = ".why"

# Cameras commonly make subfolders for year, month, day and hour. A deeper folder is reported and not read.
_MAX_DEPTH = 4
_MAX_NAME_BYTES = 255
# Every file counts as at least this many bytes, because even a file of one byte takes a whole block of the disk.
_MIN_FILE_BYTES = 4096


@dataclass(frozen=True)
class FileState:
    """The inode, size and time of last change of a file. If one of these values changes, the file was written or replaced."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def read(cls, status: os.stat_result) -> FileState:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass
class FolderListing:
    """The files in the folder and its subfolders. Paths are relative to the folder, with "/" between the names.

    - `files`: the state of each file, by its path.
    - `unread`: the paths that are not read, by reason.
    """

    files: dict[str, FileState] = field(default_factory=dict)
    unread: dict[str, list[str]] = field(default_factory=dict)

    def add_unread(self, reason: str, path: str) -> None:
        self.unread.setdefault(reason, []).append(path)


def make_printable(path: str) -> str:
    """Returns `path` as text that can be logged, stored and shown.

    Control characters, and bytes that are not valid UTF-8, are written as escapes such as `\\x07`.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def sort_naturally(name: str) -> list[tuple[int, int, str]]:
    """Returns a sort key that compares the numbers in names by value, so that `2.jpg` comes before `10.jpg`."""
    # `re.split` puts the numbers at the odd indices. Example: "a12b" gives ["a", "12", "b"].
    words = re.split(r"([0-9]+)", name)
    return [(0, int(word), "") if index % 2 else (1, 0, word) for index, word in enumerate(words)]


class DropFolder:
    """Lists, reads, moves and deletes files below `root`. All methods raise OSError if the operating system reports an error."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def scan(self) -> FolderListing:
        """Lists the files of the folder and its subfolders, except those in `sent` and `refused`."""
        listing = FolderListing()
        with self._opened("") as handle:
            self._scan(handle, "", listing)
        return listing

    def _scan(self, handle: int, prefix: str, listing: FolderListing) -> None:
        with os.scandir(handle) as entries:
            found = list(entries)
        for entry in found:
            path = prefix + entry.name
            if is_foreign(entry.name) or (not prefix and entry.name in (SENT, REFUSED)):
                continue
            try:
                status = os.stat(entry.name, dir_fd=handle, follow_symlinks=False)
            except FileNotFoundError:
                continue  # The file was moved or deleted after the folder had been listed.
            except OSError:
                listing.add_unread("not-readable", path)
                continue
            if stat.S_ISREG(status.st_mode):
                listing.files[path] = FileState.read(status)
            elif stat.S_ISDIR(status.st_mode):
                self._scan_subfolder(handle, path, listing)
            else:
                listing.add_unread("link" if stat.S_ISLNK(status.st_mode) else "special", path)

    def _scan_subfolder(self, handle: int, path: str, listing: FolderListing) -> None:
        if path.count("/") >= _MAX_DEPTH:
            listing.add_unread("too-deep", path)
            return
        try:
            subfolder = _open_folder(path.rpartition("/")[2], handle)
        except OSError:
            listing.add_unread("not-readable", path)
            return
        try:
            self._scan(subfolder, path + "/", listing)
        finally:
            os.close(subfolder)

    def read(self, path: str, max_bytes: int) -> tuple[bytes, FileState] | None:
        """Returns the first `max_bytes` of a file and the file's state, or None if the file changed while it was read."""
        with self._opened_file(path) as handle:
            state = FileState.read(os.fstat(handle))
            with os.fdopen(os.dup(handle), "rb") as stream:
                value = stream.read(max_bytes)
            is_same = FileState.read(os.fstat(handle)) == state == self.find_state(path)
        return (value, state) if is_same else None

    def find_state(self, path: str) -> FileState | None:
        """Returns the state of a file, or None if there is no regular file of this name."""
        parent, _, name = path.rpartition("/")
        try:
            with self._opened(parent) as handle:
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileState.read(status) if stat.S_ISREG(status.st_mode) else None

    def is_open_for_writing(self, path: str) -> bool:
        """Returns whether a process on this machine has the file open for writing.

        Returns False if Linux cannot tell, for example for a file on a network share.
        """
        try:
            with self._opened_file(path) as handle:
                fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def move(self, path: str, folder: str, reason: str = "") -> str:
        """Moves a file to `folder`, writes `reason` to a file beside it, and returns its new path.

        A file of the same name is never overwritten, because many cameras start again at number 1 after a power cut.
        """
        parent, _, name = path.rpartition("/")
        with self._opened(parent) as source, self._opened_or_made(folder) as target:
            new_name = _find_free_name(path.replace("/", "_"), target)
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
            if reason:
                # The picture file has been moved already. If the small text file with the reason cannot be written, the error is ignored.
                with suppress(OSError):
                    _write_reason(new_name, reason, target)
        return f"{folder}/{new_name}"

    def move_back(self, path: str) -> str:
        """Moves a file from `sent` or `refused` back into the folder and returns its new path."""
        parent, _, name = path.rpartition("/")
        with self._opened(parent) as source, self._opened("") as target:
            new_name = _find_free_name(name, target)
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        return new_name

    def delete_old(self, folder: str, max_age_s: float, max_bytes: int) -> int:
        """Deletes files that were moved to `folder` more than `max_age_s` seconds ago. If the remaining files exceed `max_bytes`, deletes
        the oldest remaining files, too.

        Returns the number of deleted files.
        """
        deleted, kept_bytes = 0, 0
        with self._opened_or_made(folder) as handle:
            with os.scandir(handle) as entries:
                names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
            found = []
            for name in names:
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                    # st_ctime is the time at which the file was moved. st_mtime comes from the camera, whose clock may be wrong.
                    found.append((status.st_ctime, max(_MIN_FILE_BYTES, status.st_size), name))
            for moved_at_s, size, name in sorted(found, reverse=True):
                kept_bytes += size
                if kept_bytes > max_bytes or time.time() - moved_at_s > max_age_s:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=handle)
                        deleted += 1
        return deleted

    @contextmanager
    def _opened(self, folder: str) -> Iterator[int]:
        """Yields the handle of a folder below the root.

        The root is opened at each call, because a network folder is sometimes mounted again between two calls.
        """
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in folder.split("/") if folder else ():
                parent, handle = handle, _open_folder(name, handle)
                os.close(parent)
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _opened_or_made(self, folder: str) -> Iterator[int]:
        with self._opened("") as root:
            with suppress(FileExistsError):
                os.mkdir(folder, 0o750, dir_fd=root)
            handle = _open_folder(folder, root)
        try:
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _opened_file(self, path: str) -> Iterator[int]:
        parent, _, name = path.rpartition("/")
        with self._opened(parent) as folder:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", path)
            yield handle
        finally:
            os.close(handle)


def _open_folder(name: str, parent: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _find_free_name(name: str, folder: int) -> str:
    """Returns a file name that is not yet used in `folder`: `name` itself, or `name` with the time added.

    The result is short enough that REASON_SUFFIX can still be added.
    """
    for addition in ("", f"-{time.time_ns()}"):
        free = _shorten(name, addition)
        try:
            os.stat(free, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return free
    return free


def _shorten(name: str, addition: str) -> str:
    """Returns `name` with `addition` before the suffix, for example `part-2.jpg` for `part.jpg` and `-2`.

    A name that is too long for file systems is cut and gets a checksum.
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    whole = os.fsencode(stem)
    room = _MAX_NAME_BYTES - len(os.fsencode(addition + suffix + REASON_SUFFIX))
    if len(whole) <= room:
        return stem + addition + suffix
    if room < 16:  # The suffix is too long for a file name, so the new name contains only a checksum of the old one.
        return hashlib.sha256(os.fsencode(name)).hexdigest()[:32] + addition
    return os.fsdecode(whole[: room - 9]) + "~" + hashlib.sha256(whole).hexdigest()[:8] + addition + suffix


def _write_reason(name: str, reason: str, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name + REASON_SUFFIX, flags, 0o640, dir_fd=folder), "w", encoding="utf-8") as stream:
        stream.write(reason + "\n")
