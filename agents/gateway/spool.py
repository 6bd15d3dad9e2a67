"""The spool of a line: the gateway's queue on disk between camera and Kafka, an SQLite file.

While Kafka is unavailable, each commit waits for the disk, because the file is then the only copy.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from streams.errors import SettingsError, SpoolFullError
from streams.identity import PartId, format_time, parse_time
from streams.queue_file import connect_queue, lock_queue

# Disk space that a picture needs besides its bytes: other columns, unused ends of pages, and its receipt.
_ROW_BYTES = 1024
# Receipts are kept to recognise repeated pictures. At ten pictures a second, this many receipts last almost three hours.
_MAX_RECEIPTS = 100_000
# If SQLite's write-ahead file is larger than this, new pictures wait until it has been written back to the database file.
_MAX_WRITE_AHEAD_BYTES = 64 * 2**20
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
    """Limits the total bytes in all spools of one process. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._used_bytes = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    def reserve(self, size: int) -> None:
        """Reserves `size` bytes. Raises SpoolFullError if the limit would be exceeded."""
        with self._lock:
            if self._used_bytes + size > self.max_bytes:
                raise SpoolFullError(
                    f"expected room for {size} bytes, found the spool full: {self._used_bytes} of {self.max_bytes} bytes are used"
                )
            self._used_bytes += size

    def add_existing(self, size: int) -> None:
        """Counts `size` bytes that a spool already holds when it is opened. They are accepted even if they exceed the limit."""
        with self._lock:
            self._used_bytes += size

    def release(self, size: int) -> None:
        """Frees `size` bytes that `reserve` or `add_existing` has counted."""
        with self._lock:
            self._used_bytes -= size


class Spool:
    """The spool of one line, which only one process at a time can open. Thread-safe.

    `run` is the run number of the parts that this gateway counts itself. This number grows at each start.
    """

    def __init__(self, folder: Path, line: str, budget: SpoolBudget, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates the file of `line` in `folder`.

        Raises SettingsError if another process uses the file, if it is damaged, or if a newer release wrote it.
        """
        self.line = line
        self.folder = folder
        self._budget = budget
        self._lock = threading.RLock()
        self._path = folder / f"{line}.sqlite"
        self._write_ahead_path = folder / f"{line}.sqlite-wal"
        self._lock_file = lock_queue(folder, line, "gateway.spool_dir", "gateway")
        try:
            self._writer = self._connect()
            self._reader = self._connect()
            self._reader_lock = threading.Lock()
            # Checkpoints use a separate connection, so that pictures can be read and written while a checkpoint waits for the disk.
            self._checkpointer = self._connect()
            self.run = self._begin_run(int(clock()))
            count, size = self._writer.execute("SELECT count(*), total(size) FROM pictures").fetchone()
            self._waiting_count, self._parked_count = int(count), 0
        except sqlite3.DatabaseError as error:
            self._lock_file.close()
            raise SettingsError(
                f"gateway.spool_dir: the spool of {line} in {self._path} cannot be used ({error}); "
                "move the file to another folder, and the gateway makes a new one; keep the old file, because it may hold unsent pictures"
            ) from None
        self._last_part = 0
        budget.add_existing(int(size))

    def _connect(self) -> sqlite3.Connection:
        # Pages are larger than SQLite's default, because a row holds a whole picture.
        connection = connect_queue(self._path, _SCHEMA, _LAYOUT_VERSION, page_bytes=8192)
        # An automatic checkpoint would make a picture wait for the disk. `run_maintenance` makes the checkpoints.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def _begin_run(self, now_s: int) -> int:
        # The run number grows even if the gateway restarts within one second or the clock was set back.
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
        """The number of parked pictures, which Kafka has refused since the start."""
        return self._parked_count

    @property
    def sendable_count(self) -> int:
        """The number of pictures that wait to be sent or confirmed. Parked pictures, which Kafka has refused, do not count."""
        return self._waiting_count - self._parked_count

    def set_full_sync(self, enabled: bool) -> None:
        """Sets whether each commit waits for the disk. This is needed while Kafka is unavailable and the spool holds the only copy."""
        with self._lock:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if enabled else 'NORMAL'}")

    def find_receipt(self, key: str) -> tuple[PartId, str] | None:
        """Returns the part and the SHA-256 of the picture that was accepted under the idempotency key `key`, or None if there was none."""
        with self._lock:
            row = self._writer.execute("SELECT run, part, sha256 FROM receipts WHERE mark = ?", (key,)).fetchone()
        return (PartId(self.line, row[0], row[1]), row[2]) if row else None

    def accept(self, picture: CheckedPicture, keys: Iterable[str] = (), part: PartId | None = None) -> PictureReceipt:
        """Stores `picture` under `part`. If `part` is None, the picture becomes the next part of the spool's own run.

        If one of the idempotency `keys` is known, returns the earlier part. Raises SpoolFullError if there is no room.
        """
        size = len(picture.value) + _ROW_BYTES
        with self._lock:
            for key in keys:
                if receipt := self.find_receipt(key):
                    return PictureReceipt(receipt[0], is_repeat=True)
            self._budget.reserve(size)
            new_part = part or PartId(self.line, self.run, self._last_part + 1)
            try:
                self._insert(picture, new_part, size, keys)
            except sqlite3.OperationalError as error:
                self._budget.release(size)
                raise SpoolFullError(f"expected to write part {new_part} to {self._path}, but the disk refused: {error}") from None
            except BaseException:
                self._budget.release(size)
                raise
            self._waiting_count += 1
            if part is None:
                self._last_part += 1
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

    def read_after(self, seq: int, limit: int) -> list[SpooledPicture]:
        """Returns the next pictures after the sequence number `seq`, at most `limit`. Leaves out pictures that Kafka has refused."""
        with self._reader_lock:
            rows = self._reader.execute(
                "SELECT seq, run, part, value, captured_at, content_type, sha256, traceparent, truth FROM pictures "
                "WHERE seq > ? AND parked IS NULL ORDER BY seq LIMIT ?",
                (seq, limit),
            ).fetchall()
        return [
            SpooledPicture(row[0], PartId(self.line, row[1], row[2]), CheckedPicture(row[3], parse_time(row[4]), *row[5:])) for row in rows
        ]

    def remove(self, seqs: Iterable[int]) -> None:
        """Deletes the pictures with the sequence numbers `seqs`, which Kafka has confirmed."""
        with self._lock:
            freed = count = parked = 0
            with self._transaction():
                for seq in seqs:
                    rows = self._writer.execute("DELETE FROM pictures WHERE seq = ? RETURNING size, parked", (seq,)).fetchall()
                    for size, reason in rows:
                        freed, count, parked = freed + size, count + 1, parked + (reason is not None)
            self._waiting_count -= count
            self._parked_count -= parked
            self._budget.release(freed)

    def park(self, seq: int, reason: str) -> None:
        """Parks the picture `seq`, which Kafka has refused for `reason`: it stays on disk and is sent again after the next start."""
        with self._lock:
            parked = self._writer.execute("UPDATE pictures SET parked = ? WHERE seq = ? AND parked IS NULL", (reason, seq)).rowcount
            self._parked_count += parked

    def forget_key(self, key: str) -> None:
        """Deletes the receipt of an idempotency key that the camera can no longer use."""
        with self._lock:
            self._writer.execute("DELETE FROM receipts WHERE mark = ?", (key,))

    def run_maintenance(self) -> None:
        """Deletes old receipts and writes SQLite's write-ahead file back. Call it about once a second.

        The call may wait for the disk, so it needs a thread of its own.
        """
        with self._lock:
            self._writer.execute("DELETE FROM receipts WHERE id <= (SELECT max(id) FROM receipts) - ?", (_MAX_RECEIPTS,))
        self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        # While pictures arrive, a PASSIVE checkpoint never writes everything back, so the write-ahead file would grow without limit.
        # A TRUNCATE checkpoint empties the file.
        if self._write_ahead_path.exists() and self._write_ahead_path.stat().st_size > _MAX_WRITE_AHEAD_BYTES:
            with self._reader_lock, self._lock:
                self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with self._reader_lock, self._lock:
            self._checkpointer.close()
            self._reader.close()
            self._writer.close()
            self._lock_file.close()
