"""A line's pictures between camera and Kafka, on disk, with the identities they will have for ever.

Every picture goes through here: its number is drawn and written in the same transaction as its bytes, before the camera is
told that it is safe and before it is first sent. So a crash at any point loses nothing that was taken, and what was taken
is only ever sent under the one identity.

One SQLite file a line, in write-ahead mode. While Kafka confirms, a commit is not forced to the disk (kill -9 harms nothing;
a power cut may take the last moments, which Kafka has by then). While Kafka is away every commit is forced, because then
this file is the only copy.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from agents.gateway.camera import Taken
from streams.errors import SettingsError, SpoolFullError
from streams.identity import PartId, format_time, parse_time

# What a picture costs beside its bytes: its row, page ends, its receipt.
_ROW_BYTES = 1024
# Repeats are recognised this many pictures back: hours at ten a second, some 10 MB of disk.
_RECEIPTS = 100_000
# Size of the write-ahead file from which pictures are made to wait for its clearing.
_AHEAD_BYTES = 64 * 2**20
_LAYOUT = 1

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
class Picture:
    """A checked picture on its way into the spool."""

    value: bytes
    captured_at: datetime
    content_type: str
    sha256: str
    traceparent: str
    truth: str | None = None


@dataclass(frozen=True)
class Stored:
    """A picture in the spool; `seq` is its place in the order."""

    seq: int
    part: PartId
    picture: Picture


class Budget:
    """The bytes that all spools of one process may hold together. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self._used

    def take(self, size: int) -> None:
        """Raises SpoolFullError: when `size` more bytes are not to be had."""
        with self._lock:
            if self._used + size > self.max_bytes:
                raise SpoolFullError(f"expected room for {size} bytes, found the spool full: {self._used} of {self.max_bytes} bytes wait")
            self._used += size

    def give(self, size: int) -> None:
        """Also for what lay there at the start, with a negative size: that is never refused."""
        with self._lock:
            self._used -= size


class Spool:
    """The spool of one line. Only one process at a time has it. Thread-safe."""

    def __init__(self, folder: Path, line: str, budget: Budget, clock: Callable[[], float] = time.time) -> None:
        """Raises SettingsError: when another process has it, or the file is damaged or from a newer version."""
        self.line = line
        self._budget = budget
        self._lock = threading.RLock()
        self._path = folder / f"{line}.sqlite"
        self._ahead = folder / f"{line}.sqlite-wal"
        self._owner = _own(folder, line)
        try:
            self._write = self._open()
            self._read = self._open()
            self._read_lock = threading.Lock()
            # A connection of its own, so that a checkpoint that waits for the disk keeps nobody from reading or writing.
            self._checkpoint = self._open()
            self.run = self._begin_run(int(clock()))
            count, size = self._write.execute("SELECT count(*), total(size) FROM pictures").fetchone()
            self._waiting, self._parked = int(count), 0
        except sqlite3.DatabaseError as error:
            self._owner.close()
            raise SettingsError(
                f"gateway.spool_dir: expected the spool of {line} in {self._path}, found it unusable ({error}); "
                "move the file away to begin anew, and keep it: it may hold pictures that were not sent"
            ) from None
        self._part = 0
        budget.give(-int(size))

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        # Large pages, since most of a row is one picture. Checkpoints come from `tidy`, not from the commit that happens to
        # be the thousandth page: that picture would wait for two writes to the disk.
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA synchronous = FULL")
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        if layout not in (0, _LAYOUT):
            raise sqlite3.DatabaseError(f"its layout is {layout}, this version knows {_LAYOUT}")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {_LAYOUT}")
        return connection

    def _begin_run(self, now_s: int) -> int:
        # Greater than every run before, also when restarted within the second or after the clock was set back.
        row = self._write.execute("SELECT run FROM runs").fetchone()
        run: int = max(now_s, row[0] + 1 if row else 1)
        self._write.execute("INSERT OR REPLACE INTO runs VALUES (1, ?)", (run,))
        # What Kafka refused is offered once more at each start: the operator may have mended the reason.
        self._write.execute("UPDATE pictures SET parked = NULL")
        return run

    @property
    def waiting(self) -> int:
        """Pictures not yet confirmed, the parked ones included."""
        return self._waiting

    @property
    def parked(self) -> int:
        return self._parked

    def force_to_disk(self, always: bool) -> None:
        """Whether each commit waits for the disk: yes while this is the only copy."""
        with self._lock:
            self._write.execute(f"PRAGMA synchronous = {'FULL' if always else 'NORMAL'}")

    def known(self, mark: str) -> tuple[PartId, str] | None:
        """The part taken under `mark` and its sha256, None when there is none."""
        with self._lock:
            row = self._write.execute("SELECT run, part, sha256 FROM receipts WHERE mark = ?", (mark,)).fetchone()
        return (PartId(self.line, row[0], row[1]), row[2]) if row else None

    def accept(self, picture: Picture, marks: Iterable[str] = (), part: PartId | None = None) -> Taken:
        """Makes `picture` safe: as `part`, else as the next part of this spool's own run.

        Where one of `marks` is known already, nothing is stored and the part from then is returned.
        Raises SpoolFullError: when the budget or the disk is full.
        """
        size = len(picture.value) + _ROW_BYTES
        with self._lock:
            for mark in marks:
                if known := self.known(mark):
                    return Taken(known[0], repeated=True)
            self._budget.take(size)
            identity = part or PartId(self.line, self.run, self._part + 1)
            try:
                self._insert(picture, identity, size, marks)
            except sqlite3.OperationalError as error:
                self._budget.give(size)
                raise SpoolFullError(f"expected to write part {identity} to {self._path}, the disk refused: {error}") from None
            except BaseException:
                self._budget.give(size)
                raise
            self._waiting += 1
            if part is None:
                self._part += 1
        return Taken(identity)

    def _insert(self, picture: Picture, part: PartId, size: int, marks: Iterable[str]) -> None:
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
            self._write.execute(
                "INSERT INTO pictures (run, part, captured_at, content_type, sha256, traceparent, truth, size, value) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            for mark in marks:
                self._write.execute(
                    "INSERT INTO receipts (mark, run, part, sha256) VALUES (?, ?, ?, ?)", (mark, part.run, part.part, picture.sha256)
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._write.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._write.execute("COMMIT")
        except BaseException:
            if self._write.in_transaction:
                self._write.execute("ROLLBACK")
            raise

    def after(self, seq: int, most: int) -> list[Stored]:
        """Up to `most` pictures that follow `seq`, in the order they were taken; parked ones are passed over."""
        with self._read_lock:
            rows = self._read.execute(
                "SELECT seq, run, part, value, captured_at, content_type, sha256, traceparent, truth FROM pictures "
                "WHERE seq > ? AND parked IS NULL ORDER BY seq LIMIT ?",
                (seq, most),
            ).fetchall()
        return [Stored(row[0], PartId(self.line, row[1], row[2]), Picture(row[3], parse_time(row[4]), *row[5:])) for row in rows]

    def remove(self, seqs: Iterable[int]) -> None:
        """These pictures are in Kafka."""
        with self._lock:
            freed = count = parked = 0
            with self._transaction():
                for seq in seqs:
                    for size, why in self._write.execute("DELETE FROM pictures WHERE seq = ? RETURNING size, parked", (seq,)).fetchall():
                        freed, count, parked = freed + size, count + 1, parked + (why is not None)
            self._waiting -= count
            self._parked -= parked
            self._budget.give(freed)

    def park(self, seq: int, why: str) -> None:
        """Kafka refuses this picture for good: it stays on disk, and the next start offers it again."""
        with self._lock:
            self._parked += self._write.execute("UPDATE pictures SET parked = ? WHERE seq = ? AND parked IS NULL", (why, seq)).rowcount

    def forget(self, mark: str) -> None:
        """The camera can no longer offer what it had under `mark`."""
        with self._lock:
            self._write.execute("DELETE FROM receipts WHERE mark = ?", (mark,))

    def tidy(self) -> None:
        """Moves what was written ahead into the file and drops old receipts. Call it about every second, from a thread that may wait."""
        with self._lock:
            self._write.execute("DELETE FROM receipts WHERE id <= (SELECT max(id) FROM receipts) - ?", (_RECEIPTS,))
        self._checkpoint.execute("PRAGMA wal_checkpoint(PASSIVE)")
        # Under load the passive one never quite catches up, and only a whole one lets the file be written from its
        # beginning again. What is left after the passive one is little, so pictures wait for milliseconds.
        if self._ahead.exists() and self._ahead.stat().st_size > _AHEAD_BYTES:
            with self._read_lock, self._lock:
                self._checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with self._read_lock, self._lock:
            self._checkpoint.close()
            self._read.close()
            self._write.close()
            self._owner.close()


def _own(folder: Path, line: str) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owner = (folder / f"{line}.lock").open("w")
    except OSError as error:
        raise SettingsError(f"gateway.spool_dir: expected a folder to write to, found {folder}: {error.strerror}") from None
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner.close()
        raise SettingsError(
            f"gateway.spool_dir: expected the spool of {line} in {folder} to be free, found another gateway using it"
        ) from None
    return owner
