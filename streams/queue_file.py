"""Opens a queue on disk: an SQLite file for one line. Only one process at a time uses the file.

The gateway and the sorter keep such queues.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from streams.errors import SettingsError
from streams.port_holder import find_user_name

log = logging.getLogger(__name__)

# These errors of the operating system and of SQLite mean that the disk is full, is read-only or fails. No setting is wrong, and a
# later attempt can succeed.
_DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
_SQLITE_DISK_FAULTS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
# SQLite also gives one of these error codes if the process may not write to the file.
_SQLITE_REFUSALS = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
_SQLITE_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# A damaged file is kept beside the queue. But damaged files must not fill the disk. So if this many of them exist, and a file that this
# process has made is damaged too, that file is deleted.
_MAX_SET_ASIDE = 16


Opened = TypeVar("Opened")


class DiskFaultError(Exception):
    """A queue cannot be opened now, because its disk is full, is read-only, or fails."""


def is_disk_fault(error: sqlite3.Error) -> bool:
    """Returns whether the disk has caused `error`, and not the content of the file."""
    return _primary_code(error) in _SQLITE_DISK_FAULTS


def is_damage(error: sqlite3.Error) -> bool:
    """Returns whether `error` means that the content of the file is damaged."""
    return _primary_code(error) in _SQLITE_DAMAGE


def make_damage(reason: str) -> sqlite3.DatabaseError:
    """Returns an error for which `is_damage` returns True."""
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _primary_code(error: sqlite3.Error) -> int:
    # The lower eight bits are SQLite's primary result code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def name_remedy(folder: Path) -> str:
    """Returns a sentence that tells a person what to do if the disk that holds `folder` is full or read-only."""
    return "Mount its disk so that it can be written." if _is_read_only(folder) else "Free space on its disk."


def _is_read_only(place: Path) -> bool:
    try:
        return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def refuse_missing_right(error: sqlite3.Error, path: Path, setting: str) -> None:
    """Raises SettingsError if `error` means that this process lacks a permission for a queue.

    `path` is the SQLite file of the queue. Its folder and the files of its write-ahead log (`-wal` and `-shm`) are also checked, because
    SQLite must write to all of them. The error message names `setting`, the file or folder without the permission, and its owner.
    """
    if _primary_code(error) in _SQLITE_REFUSALS:
        _refuse_closed_place(setting, path.parent, path, Path(f"{path}-wal"), Path(f"{path}-shm"))


def _refuse_closed_place(setting: str, folder: Path, *files: Path) -> None:
    """Raises SettingsError if this process may not write to `folder` or to one of `files`. Does not check paths that do not exist."""
    # Nobody can write to a read-only file system, so other permissions would not help.
    if _is_read_only(folder):
        return
    for place, right in ((folder, os.R_OK | os.W_OK | os.X_OK), *((file, os.R_OK | os.W_OK) for file in files)):
        if os.access(place, os.F_OK) and not os.access(place, right):
            raise SettingsError(
                f"{setting}: this process may not write to {place}, which belongs to the user {find_user_name(place.stat().st_uid)}. "
                "Correct the owner or the permissions."
            )


class QueueFile:
    """The SQLite file of a queue, which is replaced by a new file if it is damaged. Not thread-safe.

    A damaged file gets another name, so that a person can look at it. `set_aside_names` are the names of these files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_begun_here = False
        self.set_aside_names: list[str] = []

    def open(self, connect: Callable[[], Opened]) -> Opened:
        """Returns the result of `connect`, which opens or creates the file.

        If `connect` raises an error because the file is damaged, renames the file and calls `connect` once more. After an error, `connect`
        must leave no connection open. A new file that could not be opened is deleted, because it holds no records.
        """
        try:
            return self._try_to_open(connect)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.put_away(error)
            return self._try_to_open(connect)

    def _try_to_open(self, connect: Callable[[], Opened]) -> Opened:
        is_new = self._is_missing()
        self._is_begun_here = self._is_begun_here or is_new
        try:
            opened = connect()
        except BaseException:
            if is_new:
                with suppress(OSError):
                    delete_queue(self._path)
            raise
        self.list_set_aside()
        return opened

    def put_away(self, reason: object) -> None:
        """Renames the damaged file. If too many renamed files exist already, deletes it. No connection to the file may be open.

        A file from an earlier process is never deleted. Does nothing if there is no file.
        """
        if self._is_missing():
            return
        if self._is_begun_here and len(list_set_aside(self._path)) >= _MAX_SET_ASIDE:
            log.error("The queue %s is damaged (%s). It is deleted, because too many damaged files lie beside it.", self._path, reason)
            delete_queue(self._path)
        else:
            set_aside(self._path, reason)
            # The list is updated here, because the start of a new file may fail.
            self.list_set_aside()

    def list_set_aside(self) -> None:
        """Updates `set_aside_names`, because a person may have moved a damaged file away."""
        self.set_aside_names = list_set_aside(self._path)

    def _is_missing(self) -> bool:
        # If the disk does not answer, nobody knows whether the file exists. Return False in this case, because the caller treats a missing
        # file as new and can delete it.
        try:
            self._path.stat()
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return False


def set_aside(path: Path, reason: object) -> None:
    """Renames the damaged SQLite file `path`, so that a new file can begin in its place. Logs the new name and the `reason`.

    No connection to the file may be open.
    """
    number = int(time.time())
    while (damaged := path.with_suffix(f".damaged-{number}")).exists():
        number += 1  # Another file was set aside within the same second.
    log.error("The queue %s is damaged (%s). Its file is renamed to %s, and a new file begins.", path, reason, damaged.name)
    path.replace(damaged)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{damaged}{suffix}")


def delete_queue(path: Path) -> None:
    """Deletes the SQLite file `path` and its write-ahead log, if they exist. No connection to the file may be open."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def list_set_aside(path: Path) -> list[str]:
    """Returns the new names of the damaged files that `set_aside` has renamed. The earlier name of these files was `path`."""
    return sorted(file.name for file in path.parent.glob(f"{path.stem}.damaged-*") if not file.name.endswith(("-wal", "-shm")))


def lock_queue(folder: Path, line: str, setting: str, owner: str) -> IO[str]:
    """Creates `folder` and locks the queue of `line` for this process. Closing the returned file removes the lock.

    Raises SettingsError if another process holds the lock, or if the folder is not writable. The message names `setting` and the role
    `owner`, such as `sorter`. Raises DiskFaultError if the disk is full or fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = (folder / f"{line}.lock").open("w")
    except OSError as error:
        if error.errno in _DISK_FAULTS:
            raise DiskFaultError(f"{folder}: {error.strerror}") from None
        _refuse_closed_place(setting, folder, folder / f"{line}.lock")
        raise SettingsError(f"{setting}: expected a folder to write to, found {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.close()
        name = setting.rpartition(".")[2].removesuffix("_dir")
        raise SettingsError(f"{setting}: another {owner} already uses the {name} of {line} in {folder}; stop that {owner}") from None
    return lock_file


def connect_queue(path: Path, schema: str, layout_version: int, page_bytes: int = 4096) -> sqlite3.Connection:
    """Opens or creates the SQLite file `path` with the tables of `schema`. A commit returns only when the data is on the disk.

    Raises sqlite3.DatabaseError if the file is damaged, or if a release with another `layout_version` wrote it.
    """
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        # In WAL mode, a commit needs one flush to the disk. After a crash, SQLite drops a commit that was not written completely.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, layout_version):
            raise sqlite3.DatabaseError(
                f"the file has layout version {version}, but this release of Castline reads only layout version {layout_version}"
            )
        connection.executescript(schema)
        # If this process may not write to an existing file, SQLite opens the file and refuses only the first change. So make a change
        # here, and roll it back.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("ROLLBACK")
        # Write the layout version only if the file does not have it yet. So an existing file can be opened even on a full disk.
        if version != layout_version:
            connection.execute(f"PRAGMA user_version = {layout_version}")
    except BaseException:
        connection.close()
        raise
    return connection
