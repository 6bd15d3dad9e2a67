"""Opens a queue on disk: an SQLite file for one line. Only one process at a time uses the file.

The gateway and the sorter keep such queues.
"""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path
from typing import IO

from streams.errors import SettingsError


def lock_queue(folder: Path, line: str, setting: str, owner: str) -> IO[str]:
    """Creates `folder` and locks the queue of `line` for this process. Closing the returned file removes the lock.

    Raises SettingsError if another process holds the lock, or if the folder is not writable. The message names `setting` and the role
    `owner`, such as `sorter`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = (folder / f"{line}.lock").open("w")
    except OSError as error:
        raise SettingsError(f"{setting}: expected a folder to write to, found {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.close()
        name = setting.rpartition(".")[2].removesuffix("_dir")
        raise SettingsError(f"{setting}: another {owner} already uses the {name} of {line} in {folder}; stop that {owner}") from None
    return lock_file


def connect_queue(path: Path, schema: str, layout_version: int, page_bytes: int = 4096) -> sqlite3.Connection:
    """Opens or creates the SQLite file `path` with the tables of `schema`. Each commit waits for the disk.

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
        connection.execute(f"PRAGMA user_version = {layout_version}")
    except BaseException:
        connection.close()
        raise
    return connection
