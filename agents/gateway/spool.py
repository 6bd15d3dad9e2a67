"""The spool of a line: the gateway's queue on disk between camera and Kafka, an SQLite file.

`intake.py` stores pictures in the spool, and `sender.py` sends them from there to Kafka.

`Spool.accept` does not wait for the disk. `Spool.flush` forces all accepted pictures to the disk. The gateway confirms a picture to its
camera only after `flush`. `GroupCommit` calls `flush` once for all pictures that wait for the disk.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from streams import metrics
from streams.atomic_file import flush_to_disk
from streams.errors import SettingsError, SpoolFullError
from streams.identity import PartId, format_time, parse_time
from streams.operating_system import SYSTEM, OperatingSystem
from streams.queue_file import (
    DiskFaultError,
    QueueFile,
    connect_queue,
    is_damage,
    is_disk_fault,
    lock_queue,
    name_remedy,
    refuse_missing_right,
)
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

# Disk space that a picture needs besides its bytes: other columns, unused ends of pages, and its receipt.
_ROW_BYTES = 1024
# `close` waits for a checkpoint for at most this many seconds.
_LONGEST_CHECKPOINT_S = 2.0
# Receipts are kept to recognise repeated pictures. At ten pictures a second, this many receipts last almost three hours.
_MAX_RECEIPTS = 100_000
# Limits of SQLite's write-ahead log: in bytes, and as a share of `gateway.spool_max_bytes`. Above either limit, new pictures wait until
# the log has been written back to the database file.
_MAX_WRITE_AHEAD_BYTES = 64 * 2**20
_MAX_WRITE_AHEAD_SHARE = 1 / 16
# The write-ahead logs count as used space. So if less than this share of `gateway.spool_max_bytes` is free, each line empties its log, even
# if the log is small.
_NEARLY_FULL_SHARE = 1 / 8
# A number of pictures that no line reaches in a second. When a new file replaces a damaged one, its first sequence number is the run number
# (a time in seconds) times this number. So no sequence number of the damaged file is used again.
_PICTURES_PER_S = 1_000_000
# The receipts of pictures that were not stored have marks that begin with this word. No idempotency key of a camera begins with it.
_REFUSED_MARK = "refused:"
_LAYOUT_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY CHECK (id = 1), run INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL, part INTEGER NOT NULL,
    captured_at TEXT NOT NULL, content_type TEXT NOT NULL, sha256 TEXT NOT NULL, traceparent TEXT NOT NULL, truth TEXT,
    parked TEXT,
    size INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS receipts (
    id INTEGER PRIMARY KEY, mark TEXT NOT NULL UNIQUE, run INTEGER NOT NULL, part INTEGER NOT NULL, sha256 TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class CheckedPicture:
    """An encoded picture that has passed the checks of the intake. `truth` is the known class, "ok" or "defect", of a replayed picture."""

    value: bytes
    captured_at: datetime
    content_type: str
    sha256: str
    traceparent: str
    truth: str | None = None


@dataclass(frozen=True)
class PictureReceipt:
    """Confirms that a picture is on disk and names its part.

    - `is_repeat`: the same picture was accepted before.
    - `is_matched`: False if the picture fits no part of the board, so the gateway made the part id itself.
    """

    part: PartId
    is_repeat: bool = False
    is_matched: bool = True


@dataclass(frozen=True)
class SpooledPicture:
    """A picture in the spool. `seq` is its sequence number: pictures are numbered in the order in which they were accepted."""

    seq: int
    part: PartId
    picture: CheckedPicture


class SpoolBudget:
    """Limits the total bytes in all spools of one process: pictures and write-ahead logs. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._picture_bytes = 0
        self._write_ahead_bytes: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def picture_bytes(self) -> int:
        """The size of the pictures in all spools, in bytes."""
        return self._picture_bytes

    @property
    def write_ahead_bytes(self) -> int:
        """The size of the write-ahead logs of all spools, in bytes."""
        return sum(list(self._write_ahead_bytes.values()))

    @property
    def used_bytes(self) -> int:
        return self.picture_bytes + self.write_ahead_bytes

    def has_room(self, size: float) -> bool:
        """Returns whether `reserve` would accept `size` bytes now."""
        return self.used_bytes + size <= self.max_bytes

    def set_write_ahead(self, line: str, size: int) -> None:
        """Notes that the write-ahead log of `line` now has `size` bytes."""
        with self._lock:
            self._write_ahead_bytes[line] = size

    def reserve(self, size: int) -> None:
        """Reserves `size` bytes. Raises SpoolFullError if the limit would be exceeded."""
        with self._lock:
            if not self.has_room(size):
                raise SpoolFullError(
                    f"the spool has no room for {size} bytes: {self.used_bytes} of {self.max_bytes} bytes are used; "
                    "check that Kafka accepts the pictures"
                )
            self._picture_bytes += size

    def add_existing(self, size: int) -> None:
        """Adds the `size` bytes that a spool already holds when it is opened. The sum is allowed to exceed the limit."""
        with self._lock:
            self._picture_bytes += size

    def release(self, size: int) -> None:
        """Subtracts `size` bytes from the total size of the pictures, for example because pictures were deleted."""
        with self._lock:
            self._picture_bytes -= size


Result = TypeVar("Result")


class Spool:
    """The spool of one line, which only one process at a time can open. Thread-safe.

    `run` is the run number of the part ids that the gateway itself makes. At each start of the gateway, `run` becomes larger.
    """

    def __init__(self, folder: Path, line: str, budget: SpoolBudget, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates the file of `line` in `folder`. A damaged file is set aside, and a new one is created.

        Raises SettingsError if another process uses the file, if a newer release wrote it, or if the disk damages the new file, too.
        """
        self.line = line
        self.folder = folder
        self._budget = budget
        self._clock = clock
        self._lock = threading.RLock()
        self._reader_lock = threading.Lock()
        # A thread holds this lock during a checkpoint, so that no other thread closes the connection. Otherwise SQLite would crash the
        # process. A thread that needs several locks takes this lock first, then `_reader_lock`, and `_lock` last.
        self._checkpoint_lock = threading.Lock()
        self._path = folder / f"{line}.sqlite"
        self._file = QueueFile(self._path)
        self._write_ahead_path = folder / f"{line}.sqlite-wal"
        self._connections: list[sqlite3.Connection] = []
        self._write_ahead_file = -1
        self._has_file = False
        # For each thread that waits for the disk: the monotonic time at which its wait began.
        self._disk_waits: dict[int, float] = {}
        self.run = 0
        try:
            self._lock_file = lock_queue(folder, line, "gateway.spool_dir", "gateway")
        except DiskFaultError as error:
            raise SettingsError(f"gateway.spool_dir: {error}. {name_remedy(folder)}") from None
        try:
            self._file.open(self._open)
        except sqlite3.DatabaseError as error:
            self._lock_file.close()
            refuse_missing_right(error, self._path, "gateway.spool_dir")
            if is_damage(error):
                raise SettingsError(
                    f"gateway.spool_dir: the disk damages each new spool of {line} in {folder} ({error}); check the disk"
                ) from None
            if is_disk_fault(error):
                raise SettingsError(
                    f"gateway.spool_dir: the spool of {line} in {self._path} cannot be opened ({error}). {name_remedy(folder)}"
                ) from None
            raise SettingsError(
                f"gateway.spool_dir: the spool of {line} in {self._path} cannot be used ({error}); "
                "move the file to another folder and keep it, because it may hold unsent pictures; the gateway then makes a new file"
            ) from None

    def _open(self) -> None:
        """Opens or creates the file, and begins a run. Raises sqlite3.DatabaseError if the file cannot be used.

        After an error, no connection is open.
        """
        try:
            self._open_connections()
        except BaseException:
            self._disconnect()
            raise

    def _open_connections(self) -> None:
        self._writer = self._connect()
        self._reader = self._connect()
        # Checkpoints use a separate connection, so that pictures can be read and written while a checkpoint waits for the disk.
        self._checkpointer = self._connect()
        earlier_run = self.run
        run = self._begin_run(max(int(self._clock()), earlier_run + 1))
        if earlier_run:
            # Pictures of the damaged file can still be on their way to Kafka. No picture of the new file may get the sequence number of one
            # of them. So the sequence numbers of the new file begin higher.
            self._writer.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('pictures', ?)", (run * _PICTURES_PER_S,))
        self._last_part = 0
        # From here on, a commit of this connection does not wait for the disk. Only the method `flush` waits.
        self._writer.execute("PRAGMA synchronous = NORMAL")
        write_ahead_file = os.open(self._write_ahead_path, os.O_RDONLY)
        if self._write_ahead_file == -1:
            self._write_ahead_file = write_ahead_file
        else:
            # Another thread is perhaps in `flush` and still uses the file descriptor of the old file. If this descriptor were closed, an
            # unrelated file could get the same descriptor. So it stays open and now leads to the new file.
            os.dup2(write_ahead_file, self._write_ahead_file)
            os.close(write_ahead_file)
        # Without this flush, the files of the spool could be missing from the folder after a power cut.
        flush_to_disk(self.folder)
        count, size = self._writer.execute("SELECT count(*), total(size) FROM pictures").fetchone()
        self._waiting_count, self._parked_count, self._picture_bytes = int(count), 0, int(size)
        self._budget.add_existing(self._picture_bytes)
        # The run is set last. When other threads see a new run, they know that the file was replaced.
        self.run, self._has_file = run, True

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections = []

    def replace_damaged(self, error: sqlite3.DatabaseError, run: int) -> None:
        """Puts the file away and begins a new file, if `error` means that the file is damaged. Otherwise raises `error`.

        The pictures of the damaged file are no longer sent.

        `run` is the run of the spool at the time of `error`. If the spool has a newer run now, another thread has already replaced the
        file, and this method does nothing.

        Raises sqlite3.Error or OSError if no new file can be made. The next call then tries again.
        """
        with self._watch_disk(), self._checkpoint_lock, self._reader_lock, self._lock:
            if self.run != run:
                return  # Another thread has replaced the file.
            if self._has_file:
                if not is_damage(error):
                    raise error
                self._has_file = False
                self._disconnect()
                self._budget.release(self._picture_bytes)
                self._waiting_count = self._parked_count = self._picture_bytes = 0
            # If an earlier call could not put the file away, this call does.
            self._file.put_away(error)
            self._file.open(self._open)

    def find_complaint(self) -> str:
        """Returns a sentence while a damaged file lies beside the spool's file, otherwise "".

        A person has to move the damaged file away.
        """
        names = self._file.set_aside_names
        if not names:
            return ""
        return (
            f"the spool of {self.line} was damaged, and pictures were perhaps not sent: check the disk, and move "
            f"{', '.join(names)} out of {self.folder}"
        )

    def _connect(self) -> sqlite3.Connection:
        # Pages are larger than SQLite's default, because a row holds a whole picture.
        connection = connect_queue(self._path, _SCHEMA, _LAYOUT_VERSION, page_bytes=8192)
        self._connections.append(connection)
        # An automatic checkpoint would make a picture wait for the disk. `run_maintenance` makes the checkpoints.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def _begin_run(self, now_s: int) -> int:
        # The run number is usually the time in seconds since 1970. It is always higher than the last one, even if the clock was set back.
        row = self._writer.execute("SELECT run FROM runs").fetchone()
        run: int = max(now_s, row[0] + 1 if row else 1)
        self._writer.execute("INSERT OR REPLACE INTO runs VALUES (1, ?)", (run,))
        # Parked pictures, which Kafka has refused, are sent again after each start, because a person may have removed the cause.
        self._writer.execute("UPDATE pictures SET parked = NULL")
        return run

    @property
    def waiting_count(self) -> int:
        """The number of pictures that Kafka has not confirmed, including the parked ones, which Kafka has refused."""
        return self._waiting_count

    @property
    def parked_count(self) -> int:
        """The number of parked pictures. Kafka has refused these pictures since the gateway started, and they stay on disk."""
        return self._parked_count

    @property
    def sendable_count(self) -> int:
        """The number of pictures that wait to be sent or confirmed. Parked pictures, which Kafka has refused, do not count."""
        return self._waiting_count - self._parked_count

    def flush(self) -> None:
        """Waits until all pictures that were accepted before this call are on the disk. Raises OSError if the disk fails.

        Only SQLite's write-ahead log is flushed. SQLite keeps each commit in this log until the commit is safe in the database file.
        """
        with self._watch_disk():
            os.fdatasync(self._write_ahead_file)

    @contextmanager
    def _watch_disk(self) -> Iterator[None]:
        thread = threading.get_ident()
        if thread in self._disk_waits:
            # One method that waits for the disk has called another one. The wait has begun with the first method.
            yield
            return
        self._disk_waits[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._disk_waits[thread]

    def find_disk_wait_s(self) -> float:
        """Returns how long a method of the spool has been waiting for the disk, in seconds: the longest present wait, or 0.

        Reads only memory, so this method answers even if the disk does not.
        """
        now_s = time.monotonic()
        return now_s - min(list(self._disk_waits.values()), default=now_s)

    def find_receipt(self, key: str) -> tuple[PartId, str] | None:
        """Returns the part and the SHA-256 of the picture that was accepted under the idempotency key `key`, or None if there was none.

        Raises SpoolFullError if the disk cannot be read.
        """
        return self._repair(lambda: self._find_receipt(key))

    def _find_receipt(self, key: str) -> tuple[PartId, str] | None:
        try:
            with self._lock:
                row = self._writer.execute("SELECT run, part, sha256 FROM receipts WHERE mark = ?", (key,)).fetchone()
        except sqlite3.OperationalError as error:
            raise SpoolFullError(f"the receipts of {self._path} cannot be read: {error}") from None
        return (PartId(self.line, row[0], row[1]), row[2]) if row else None

    def add_refused(self, pictures: Iterable[tuple[str, str]]) -> None:
        """Stores the keys and SHA-256 values of pictures that were not stored, so that a later process recognises their copies.

        Raises SpoolFullError if the disk fails.
        """
        rows = [(f"{_REFUSED_MARK}{sha256}:{key}", self.run, sha256) for key, sha256 in pictures]
        self._repair(lambda: self._add_refused(rows))

    def _add_refused(self, rows: Iterable[tuple[str, int, str]]) -> None:
        try:
            with self._lock, self._transaction():
                self._writer.executemany("INSERT OR REPLACE INTO receipts (mark, run, part, sha256) VALUES (?, ?, 0, ?)", rows)
                self._count_write_ahead()
        except sqlite3.OperationalError as error:
            raise SpoolFullError(f"the receipts of {self._path} cannot be written: {error}") from None

    def list_newest_checksums(self, limit: int) -> list[tuple[str, str]]:
        """Returns key and SHA-256 of the pictures with the newest receipts, the newest last, at most `limit` different pairs.

        The key is "" for a picture that was stored. For a picture that was not stored, the key is the one that `add_refused` got. Raises
        SpoolFullError if the disk cannot be read.
        """
        return self._repair(lambda: self._list_newest_checksums(limit))

    def _list_newest_checksums(self, limit: int) -> list[tuple[str, str]]:
        # A picture can have several receipts. SQL could leave out equal checksums, but SQLite would then need a temporary file.
        checksums: dict[tuple[str, str], None] = {}
        try:
            with self._lock, closing(self._writer.cursor()) as cursor:
                for mark, sha256 in cursor.execute("SELECT mark, sha256 FROM receipts ORDER BY id DESC"):
                    refused_mark = f"{_REFUSED_MARK}{sha256}:"
                    checksums[mark.removeprefix(refused_mark) if mark.startswith(refused_mark) else "", sha256] = None
                    if len(checksums) == limit:
                        break
        except sqlite3.OperationalError as error:
            raise SpoolFullError(f"the receipts of {self._path} cannot be read: {error}") from None
        return list(reversed(checksums))

    def accept(self, picture: CheckedPicture, keys: Iterable[str] = (), part: PartId | None = None) -> PictureReceipt:
        """Stores `picture` under `part`. If `part` is None, the spool gives the picture the next part number of its own run.

        If the spool knows one of the idempotency `keys`, it stores nothing and returns the part of the earlier picture with this key.
        Raises SpoolFullError if there is no room. Call `flush` afterwards, because a power cut before the flush can undo this call.
        """
        kept_keys = tuple(keys)
        return self._repair(lambda: self._accept(picture, kept_keys, part))

    def _repair(self, use: Callable[[], Result]) -> Result:
        """Returns `use()`. If the file proves damaged, replaces the file and calls `use` once more.

        Raises SpoolFullError if the disk fails, if the damaged file cannot be replaced now, or if the new file cannot be used.
        """
        run = self.run
        with self._watch_disk():
            try:
                return use()
            except OSError as error:
                raise SpoolFullError(f"the spool {self._path} cannot be used: {error}") from None
            except sqlite3.DatabaseError as error:
                if self._has_file and not is_damage(error):
                    raise
                try:
                    self.replace_damaged(error, run)
                    return use()
                except (sqlite3.Error, OSError) as problem:
                    raise SpoolFullError(f"the damaged spool {self._path} cannot be replaced: {problem}") from None

    def _accept(self, picture: CheckedPicture, keys: Iterable[str], part: PartId | None) -> PictureReceipt:
        size = len(picture.value) + _ROW_BYTES
        if not self._budget.has_room(size):
            # The write-ahead log is emptied to make room for the picture. If there is still no room, `reserve` below raises SpoolFullError.
            with suppress(sqlite3.OperationalError):
                self._empty_write_ahead()
        with self._lock:
            for key in keys:
                if receipt := self._find_receipt(key):
                    return PictureReceipt(receipt[0], is_repeat=True)
            self._budget.reserve(size)
            new_part = part or PartId(self.line, self.run, self._last_part + 1)
            try:
                self._insert(picture, new_part, size, keys)
            except sqlite3.OperationalError as error:
                self._budget.release(size)
                raise SpoolFullError(f"the picture of part {new_part} cannot be written to {self._path}: {error}") from None
            except BaseException:
                self._budget.release(size)
                raise
            self._waiting_count += 1
            self._picture_bytes += size
            if part is None:
                self._last_part += 1
            self._count_write_ahead()
        return PictureReceipt(new_part)

    def _insert(self, picture: CheckedPicture, part: PartId, size: int, keys: Iterable[str]) -> None:
        row = (
            part.run,
            part.part,
            format_time(picture.captured_at),
            picture.content_type,
            picture.sha256,
            picture.traceparent,
            picture.truth,
            size,
            picture.value,
        )
        with self._transaction():
            self._writer.execute(
                "INSERT INTO pictures (run, part, captured_at, content_type, sha256, traceparent, truth, size, value) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            for key in keys:
                self._writer.execute(
                    "INSERT INTO receipts (mark, run, part, sha256) VALUES (?, ?, ?, ?)", (key, part.run, part.part, picture.sha256)
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def read_after(self, seq: int, limit: int, max_bytes: int | None = None) -> list[SpooledPicture]:
        """Returns the next pictures after the sequence number `seq`, at most `limit`. Leaves out pictures that Kafka has refused.

        With `max_bytes`, returns no further pictures when the total size of the returned pictures has reached this limit.
        """
        found: list[SpooledPicture] = []
        total_bytes = 0
        with self._watch_disk(), self._reader_lock, closing(self._reader.cursor()) as cursor:
            cursor.execute(
                "SELECT seq, size, run, part, captured_at, content_type, sha256, traceparent, truth, value FROM pictures "
                "WHERE seq > ? AND parked IS NULL ORDER BY seq LIMIT ?",
                (seq, limit),
            )
            for number, size, run, part, captured_at, content_type, sha256, traceparent, truth, value in cursor:
                picture = CheckedPicture(value, parse_time(captured_at), content_type, sha256, traceparent, truth)
                found.append(SpooledPicture(number, PartId(self.line, run, part), picture))
                total_bytes += size
                if max_bytes is not None and total_bytes >= max_bytes:
                    break
        return found

    def remove(self, seqs: Iterable[int]) -> None:
        """Deletes the pictures with the sequence numbers `seqs`, which Kafka has confirmed."""
        with self._watch_disk(), self._lock:
            freed = count = parked = 0
            with self._transaction():
                for seq in seqs:
                    rows = self._writer.execute("DELETE FROM pictures WHERE seq = ? RETURNING size, parked", (seq,)).fetchall()
                    for size, reason in rows:
                        freed, count, parked = freed + size, count + 1, parked + (reason is not None)
            self._waiting_count -= count
            self._parked_count -= parked
            self._picture_bytes -= freed
            self._budget.release(freed)
            self._count_write_ahead()

    def park(self, seq: int, reason: str) -> None:
        """Parks the picture `seq`, which Kafka has refused for `reason`: it stays on disk and is sent again after the next start."""
        with self._watch_disk(), self._lock:
            parked = self._writer.execute("UPDATE pictures SET parked = ? WHERE seq = ? AND parked IS NULL", (reason, seq)).rowcount
            self._parked_count += parked

    def forget_key(self, key: str) -> None:
        """Deletes the receipt of an idempotency key that the camera can no longer use."""
        self._repair(lambda: self._forget_key(key))

    def _forget_key(self, key: str) -> None:
        with self._lock:
            self._writer.execute("DELETE FROM receipts WHERE mark = ?", (key,))

    def run_maintenance(self) -> None:
        """Deletes old receipts, and copies SQLite's write-ahead log into the database file. Replaces a damaged file.

        Call this method about once a second, in a separate thread, because it can wait for the disk. Raises sqlite3.Error or OSError if the
        disk fails.
        """
        run = self.run
        try:
            self._maintain()
        except sqlite3.DatabaseError as error:
            self.replace_damaged(error, run)
        self._file.list_set_aside()

    def _maintain(self) -> None:
        with self._watch_disk(), self._lock:
            self._writer.execute("DELETE FROM receipts WHERE id <= (SELECT max(id) FROM receipts) - ?", (_MAX_RECEIPTS,))
        with self._watch_disk(), self._checkpoint_lock:
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        # A PASSIVE checkpoint copies the write-ahead log, but does not empty it while pictures arrive. So a log that is too large must be
        # emptied here.
        limit = min(_MAX_WRITE_AHEAD_BYTES, _MAX_WRITE_AHEAD_SHARE * self._budget.max_bytes)
        if self._count_write_ahead() > limit or not self._budget.has_room(_NEARLY_FULL_SHARE * self._budget.max_bytes):
            self._empty_write_ahead()

    def _empty_write_ahead(self) -> None:
        """Copies the whole write-ahead log into the database file and empties the log. In the meantime, pictures wait."""
        with self._watch_disk(), self._reader_lock, self._lock:
            self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._count_write_ahead()

    def _count_write_ahead(self) -> int:
        """Returns the size of the write-ahead log in bytes, and updates this size in the total size of all spools."""
        size = os.fstat(self._write_ahead_file).st_size
        self._budget.set_write_ahead(self.line, size)
        return size

    def close(self) -> None:
        # If a checkpoint waits for a disk that does not answer, the connection of the checkpoint stays open until the process ends.
        is_idle = self._checkpoint_lock.acquire(timeout=_LONGEST_CHECKPOINT_S)
        with self._reader_lock, self._lock:
            if not is_idle and self._checkpointer in self._connections:
                self._connections.remove(self._checkpointer)
            self._disconnect()
            os.close(self._write_ahead_file)
            self._budget.set_write_ahead(self.line, 0)
            self._lock_file.close()
        if is_idle:
            self._checkpoint_lock.release()


# A function that is called after a flush. The argument is None if the picture is on the disk, otherwise the error of the disk.
OnFlushed = Callable[[OSError | None], None]


class GroupCommit:
    """Flushes the spool of one line in a thread of its own. Thread-safe.

    When `max_bytes` of pictures wait for a flush, `add` blocks. A slow disk then slows the camera down, but does not fill the memory.
    Before `start` and after `stop`, `add` flushes at once.
    """

    def __init__(self, spool: Spool, max_bytes: int, system: OperatingSystem = SYSTEM) -> None:
        self._spool = spool
        self._max_bytes = max_bytes
        self._changed = system.make_condition()
        self._waiting: list[tuple[int, OnFlushed]] = []
        self._waiting_bytes = 0
        self._waiting_count = 0
        self._is_running = False
        self._thread = SupervisedThread(f"flush-{spool.line}", self._run, system=system)

    def start(self) -> None:
        self._is_running = True
        self._thread.start()

    @property
    def waiting_count(self) -> int:
        """The number of pictures that are perhaps not on the disk yet. Their cameras have no receipts."""
        return self._waiting_count

    def stop(self, within_s: float) -> None:
        """Ends the thread. The thread first flushes the pictures that still wait.

        If the disk does not answer within `within_s` seconds, logs what was not flushed, and returns.
        """
        with self._changed:
            self._is_running = False
            self._changed.notify_all()
        self._thread.join(within_s)
        if self._thread.is_alive():
            log.error(
                "The disk of the spool of %s does not answer, so %d pictures were perhaps not written. Their cameras got no receipts and "
                "should send them again. Check the disk.",
                self._spool.line,
                self._waiting_count,
            )

    def add(self, size: int, on_flushed: OnFlushed) -> None:
        """Adds the picture that the spool has just accepted. `size` is the size of the picture in bytes.

        Calls `on_flushed` when this picture and all earlier pictures are on the disk.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes < self._max_bytes or not self._is_running)
            if self._is_running:
                self._waiting.append((size, on_flushed))
                self._waiting_bytes += size
                self._waiting_count += 1
                self._changed.notify_all()
                return
        self._flush([(size, on_flushed)])

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or not self._is_running)
                group, self._waiting = self._waiting, []
            if not group:
                return
            try:
                self._flush(group)
            finally:
                # The bytes are subtracted even if a callback raised an error. Otherwise these bytes would block `add` for ever.
                with self._changed:
                    self._waiting_bytes -= sum(size for size, _ in group)
                    self._waiting_count -= len(group)
                    self._changed.notify_all()

    def _flush(self, group: list[tuple[int, OnFlushed]]) -> None:
        began_s = time.monotonic()
        failure: OSError | None = None
        try:
            self._spool.flush()
        except OSError as error:
            failure = error
        metrics.spool_flush_seconds.labels(self._spool.line).observe(time.monotonic() - began_s)
        # An ExitStack calls every function, even if one of them raises an error. It calls them in reverse order. So they are added in
        # reverse order.
        with ExitStack() as stack:
            for _, on_flushed in reversed(group):
                stack.callback(on_flushed, failure)
