"""Waits until the station's database answers, brings its tables up to date, and locks the table of parts."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management import call_command
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from station.configuration import current_settings
from streams.backoff import Backoff
from streams.errors import SettingsError

log = logging.getLogger(__name__)

# Two arbitrary numbers that identify our advisory locks in PostgreSQL. No other program uses these numbers.
_MIGRATION_LOCK = 0x6361_7375
_PARTS_LOCK = 0x6361_7374


def find_database_fault() -> str:
    """Returns a sentence that says why the database does not answer, or "" if it answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError) as error:
        connection.close()
        first_line = (str(error).strip().splitlines() or [repr(error)])[0]
        return f"the database {current_settings().station.database} does not answer: {first_line}"
    return ""


def wait_for_database(report: Callable[[str], None], sleep: Callable[[float], bool]) -> bool:
    """Waits until the database answers, then returns True. Returns False if the process must stop.

    Before each pause, `report` is called with the reason. `sleep` pauses for the given seconds and returns True if the process must stop.
    """
    backoff = Backoff(first_s=0.5, longest_s=5.0)
    while fault := find_database_fault():
        report(fault)
        if sleep(backoff.failed()):
            return False
    return True


def migrate_database(apply: bool = True) -> list[str]:
    """Brings the tables up to date and returns the names of the applied migrations. Several processes can call this function at once.

    If `apply` is false, only checks that the tables are up to date, and creates nothing. Raises SettingsError if the tables cannot be used.
    """
    try:
        with _migration_lock(apply):
            return _migrate(apply)
    except DatabaseError as error:
        raise SettingsError(
            f"station.database: cannot create or change the tables in {current_settings().station.database}: {error}"
        ) from None


def _migrate(apply: bool) -> list[str]:
    executor = MigrationExecutor(connection)
    known, applied = set(executor.loader.disk_migrations), set(executor.loader.applied_migrations)
    our_apps = {app for app, _ in known}
    newer = sorted(f"{app}.{name}" for app, name in applied - known if app in our_apps)
    address = current_settings().station.database
    if newer:
        raise SettingsError(
            f"station.database: the tables in {address} belong to a newer release of Castline ({', '.join(newer)}). "
            "Install that release, or restore a copy of the database."
        )
    missing = [f"{migration.app_label}.{migration.name}" for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    if missing and not apply:
        raise SettingsError(
            f"station.database: the tables in {address} are out of date: {len(missing)} changes are missing. "
            "Apply them with: castline station migrate"
        )
    if missing:
        call_command("migrate", verbosity=0, interactive=False)
        log.info("the tables of the database were brought up to date: %s", ", ".join(missing))
    return missing


@contextmanager
def _migration_lock(apply: bool) -> Iterator[None]:
    if connection.vendor == "postgresql":
        # Use a lock that lasts until it is released. A lock of a transaction would end after the first migration, because each migration
        # is a transaction of its own.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_MIGRATION_LOCK])
        return
    file = Path(f"{connection.settings_dict['NAME']}.lock")
    if not apply and not file.exists():
        # Without the lock file, no process has applied migrations yet, so no lock is needed. Do not make the file here. If the command
        # that checks the tables runs as root, the file would belong to root, and the station could not open it.
        yield
        return
    with file.open("w" if apply else "r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lock_parts() -> None:
    """Locks the table of parts against other writing processes until the end of the current transaction."""
    # SQLite needs no lock, because only one transaction of the mode IMMEDIATE can run at a time.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_PARTS_LOCK])
