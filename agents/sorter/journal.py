"""The sorter's journal of one line: an SQLite file that holds sorting records until Kafka has confirmed them.

As soon as a sorting record is in the journal, the board can forget its report on the part. Therefore the board's memory does not become
full during a Kafka outage.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from streams.errors import SettingsError
from streams.identity import format_time, parse_time
from streams.queue_file import (
    DiskFaultError,
    QueueFile,
    connect_queue,
    is_damage,
    is_disk_fault,
    lock_queue,
    make_damage,
    name_remedy,
    refuse_missing_right,
)
from streams.records import Sorting

log = logging.getLogger(__name__)

_SETTING = "sorter.journal_dir"
_LAYOUT_VERSION = 1
# The largest number of counted parts that are kept for a restart of the sorter. At 10 parts a second, they cover three minutes.
_MAX_COUNTED = 2048
# If the file could not be opened, the journal tries again only after this time.
_OPEN_AGAIN_S = 5.0

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

    def __init__(self, folder: Path, line: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Opens or creates the file of `line` in `folder`. A damaged file is set aside, and a new one is created.

        If the disk is full, fails, or damages each new file, the journal is empty and refuses records, and `fault` says why. `append` then
        tries to open the file again, at most once in five seconds.

        Raises SettingsError if another process uses the file, or if the folder cannot be used.
        """
        self._folder = folder
        self._line_name = line
        self._clock = clock
        self._path = folder / f"{line}.sqlite"
        self._file = QueueFile(self._path)
        self._lock = threading.Lock()
        self._lock_file: IO[str] | None = None
        self._open_again_at_s = 0.0
        self.fault = ""
        # Until the file is open, `_connection` and `_remover` use empty tables in memory.
        self._connection = _connect_to_memory()
        self._remover = _connect_to_memory()
        try:
            self._try_to_open()
        except SettingsError:
            self.close()
            raise

    def _try_to_open(self) -> None:
        """Opens the file. If the disk is full, fails or damages it, sets `fault`. Raises SettingsError if the file cannot be used."""
        try:
            self._lock_file = self._lock_file or lock_queue(self._folder, self._line_name, _SETTING, "sorter")
            connection, remover = self._file.open(self._open)
        except (DiskFaultError, OSError) as error:
            self._set_disk_fault(error)
        except sqlite3.Error as error:
            refuse_missing_right(error, self._path, _SETTING)
            if is_damage(error):
                # A restart would not help, and the line would divert all parts in the meantime.
                self._set_fault(f"The disk damages each new journal of {self._line_name} in {self._folder} ({error}). Check the disk.")
            elif is_disk_fault(error):
                self._set_disk_fault(error)
            else:
                raise SettingsError(
                    f"{_SETTING}: the journal of {self._line_name} in {self._path} cannot be used ({error}). Choose another folder."
                ) from None
        else:
            self._connection.close()
            self._remover.close()
            self._connection, self._remover, self.fault = connection, remover, ""

    def _set_disk_fault(self, error: Exception) -> None:
        self._set_fault(f"The journal {self._path} cannot be opened ({error}). {name_remedy(self._folder)}")

    def _set_fault(self, fault: str) -> None:
        self.fault = fault
        self._open_again_at_s = self._clock() + _OPEN_AGAIN_S

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """Opens or creates the file, and returns the connections that write and delete records. Checks the whole file for damage."""
        with ExitStack() as opened:
            connection = connect_queue(self._path, _SCHEMA, _LAYOUT_VERSION)
            opened.callback(connection.close)
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if result != "ok":
                raise make_damage(result)
            # The connection `remover` deletes records without waiting for the disk. A power cut can undo a deletion. The sorter then
            # sends the record a second time, which does no harm.
            remover = connect_queue(self._path, _SCHEMA, _LAYOUT_VERSION)
            opened.callback(remover.close)
            remover.execute("PRAGMA synchronous = NORMAL")
            opened.pop_all()
        return connection, remover

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
            if self.fault and self._clock() >= self._open_again_at_s:
                self._try_to_open_again()
            if self.fault:
                raise JournalError(self.fault)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._insert(sortings, counted, run)
                self._change_reports(unreported, reported)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise JournalError(f"The journal {self._path} cannot be written ({error}). {name_remedy(self._folder)}") from None

    def _try_to_open_again(self) -> None:
        try:
            self._try_to_open()
        except SettingsError as error:
            # The sorter goes on without its journal, because its line would divert all parts if the sorter ended now.
            self._set_fault(str(error))

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
                    f"The records that were sent cannot be deleted from the journal {self._path} ({error}). {name_remedy(self._folder)}"
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

    def list_set_aside(self) -> None:
        """Updates the complaint about damaged files, because a person may have moved a file away. Reads the folder of the journal."""
        self._file.list_set_aside()

    def find_complaint(self) -> str:
        """Returns a sentence while a damaged file lies beside the journal, otherwise "". A person has to move the damaged file away."""
        names = self._file.set_aside_names
        if not names:
            return ""
        return (
            f"the journal of {self._line_name} was damaged, and sorting records were perhaps not sent: check the disk, and move "
            f"{', '.join(names)} out of {self._folder}"
        )

    def close(self) -> None:
        with self._lock:
            self._remover.close()
            self._connection.close()
            if self._lock_file is not None:
                self._lock_file.close()


def _connect_to_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.executescript(_SCHEMA)
    return connection
