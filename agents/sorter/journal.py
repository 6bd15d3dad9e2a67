"""The sorter's journal of one line: a queue on disk between the board and Kafka, an SQLite file.

The board can forget a report as soon as the journal holds the record of it. Therefore a Kafka outage does not fill the board's memory.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from streams.errors import SettingsError
from streams.identity import format_time, parse_time
from streams.queue_file import connect_queue, lock_queue
from streams.records import Sorting

log = logging.getLogger(__name__)

_SETTING = "sorter.journal_dir"
_LAYOUT_VERSION = 1
# The largest number of counted parts that are kept for a restart of the sorter. At 10 parts a second, they cover three minutes.
_MAX_COUNTED = 2048

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sortings (seq INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counted (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, part INTEGER NOT NULL, counted_at TEXT NOT NULL, UNIQUE (run, part)
);
CREATE TABLE IF NOT EXISTS reports (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, part INTEGER NOT NULL, counted_at TEXT NOT NULL, UNIQUE (run, part)
);
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY CHECK (id = 1), run INTEGER NOT NULL);
"""


class JournalError(Exception):
    """The disk refused to store records in the journal, for example because it is full. The journal is unchanged."""


@dataclass(frozen=True)
class CountedPart:
    """A part that photo-eye 1 has counted. The journal keeps the part until its sorting record is written."""

    run: int
    part: int
    counted_at: datetime


@dataclass(frozen=True)
class JournalEntry:
    """A sorting record in the journal. `seq` is its place in the order of writing."""

    seq: int
    sorting: Sorting


class SortingJournal:
    """The journal of one production line. Only one process at a time can open the journal. Thread-safe."""

    def __init__(self, folder: Path, line: str) -> None:
        """Opens or creates the file of `line` in `folder`. A damaged file is set aside, and a new one is created.

        Raises SettingsError if another process uses the file, or if the folder cannot be written to.
        """
        self._path = folder / f"{line}.sqlite"
        self._lock = threading.Lock()
        self._lock_file = lock_queue(folder, line, _SETTING, "sorter")
        try:
            self._connection = self._open()
            # This connection deletes records without waiting for the disk. If a power cut undoes a deletion, the sorter sends the record a
            # second time, which does no harm.
            self._remover = connect_queue(self._path, _SCHEMA, _LAYOUT_VERSION)
            self._remover.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            self._lock_file.close()
            raise SettingsError(
                f"{_SETTING}: the journal of {line} in {self._path} cannot be used ({error}). "
                "Free space on its disk, or choose another folder."
            ) from None

    def _open(self) -> sqlite3.Connection:
        try:
            connection = connect_queue(self._path, _SCHEMA, _LAYOUT_VERSION)
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if result == "ok":
                return connection
            connection.close()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            result = str(error)
        damaged = self._path.with_suffix(f".damaged-{int(time.time())}")
        log.error("The journal %s is damaged (%s). Its file is renamed to %s, and a new journal begins.", self._path, result, damaged.name)
        self._path.replace(damaged)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").replace(f"{damaged}{suffix}")
        return connect_queue(self._path, _SCHEMA, _LAYOUT_VERSION)

    def append(
        self,
        sortings: Iterable[Sorting],
        counted: Sequence[CountedPart] = (),
        run: int | None = None,
        unreported: Sequence[CountedPart] = (),
        reported: Iterable[CountedPart] = (),
    ) -> None:
        """Stores sorting records, counted parts and the board's run number on disk, in one transaction.

        - `unreported`: parts that the sorter must still report to the gateway.
        - `reported`: parts that the sorter has reported to the gateway.

        Raises JournalError if the journal cannot be written.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._insert(sortings, counted, run)
                self._change_reports(unreported, reported)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise JournalError(f"The journal {self._path} cannot be written ({error}). Free space on its disk.") from None

    def _insert(self, sortings: Iterable[Sorting], counted: Sequence[CountedPart], run: int | None) -> None:
        execute = self._connection.execute
        self._insert_parts("counted", counted)
        for sorting in sortings:
            execute("INSERT INTO sortings (value) VALUES (?)", (sorting.encode(),))
            execute("DELETE FROM counted WHERE run = ? AND part = ?", (sorting.run, sorting.part))
        if run is not None:
            execute("INSERT OR REPLACE INTO runs VALUES (1, ?)", (run,))

    def _insert_parts(self, table: str, parts: Sequence[CountedPart]) -> None:
        if not parts:
            return
        execute = self._connection.execute
        for part in parts:
            row = (part.run, part.part, format_time(part.counted_at))
            execute(f"INSERT OR REPLACE INTO {table} (run, part, counted_at) VALUES (?, ?, ?)", row)
        execute(f"DELETE FROM {table} WHERE seq <= (SELECT max(seq) FROM {table}) - ?", (_MAX_COUNTED,))

    def _change_reports(self, unreported: Sequence[CountedPart], reported: Iterable[CountedPart]) -> None:
        self._insert_parts("reports", unreported)
        for part in reported:
            self._connection.execute("DELETE FROM reports WHERE run = ? AND part = ?", (part.run, part.part))

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def read_after(self, seq: int, limit: int) -> list[JournalEntry]:
        """Returns the next records after the sequence number `seq`, at most `limit`, in the order of writing."""
        with self._lock:
            rows = self._connection.execute("SELECT seq, value FROM sortings WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)).fetchall()
        return [JournalEntry(row[0], Sorting.decode(row[1])) for row in rows]

    def read_newest(self, limit: int) -> list[JournalEntry]:
        """Returns the newest records, at most `limit`, in the order of writing."""
        with self._lock:
            rows = self._connection.execute("SELECT seq, value FROM sortings ORDER BY seq DESC LIMIT ?", (limit,)).fetchall()
        return [JournalEntry(row[0], Sorting.decode(row[1])) for row in reversed(rows)]

    def remove_through(self, seq: int) -> None:
        """Deletes the records up to the sequence number `seq`, which Kafka has confirmed. Raises JournalError if the deletion fails."""
        with self._lock:
            try:
                self._remover.execute("DELETE FROM sortings WHERE seq <= ?", (seq,))
            except sqlite3.Error as error:
                raise JournalError(
                    f"The records that were sent cannot be deleted from the journal {self._path} ({error}). Free space on its disk."
                ) from None

    def counted_parts(self) -> list[CountedPart]:
        """Returns the parts that were counted and have no sorting record in the journal, oldest first."""
        return self._read_parts("counted")

    def unreported_parts(self) -> list[CountedPart]:
        """Returns the parts that the sorter must still report to the gateway, oldest first."""
        return self._read_parts("reports")

    def _read_parts(self, table: str) -> list[CountedPart]:
        with self._lock:
            rows = self._connection.execute(f"SELECT run, part, counted_at FROM {table} ORDER BY seq").fetchall()
        return [CountedPart(run, part, parse_time(counted_at)) for run, part, counted_at in rows]

    def last_run(self) -> int | None:
        """Returns the board's run number that was stored last, or None if none was stored."""
        with self._lock:
            row = self._connection.execute("SELECT run FROM runs").fetchone()
        return int(row[0]) if row else None

    def close(self) -> None:
        with self._lock:
            self._remover.close()
            self._connection.close()
            self._lock_file.close()
