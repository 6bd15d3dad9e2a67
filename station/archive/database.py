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

# The numbers of two advisory locks in PostgreSQL. The numbers are arbitrary, but no other lock may have the same number.
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

    After each failed attempt, calls `report` with a sentence that says why, and then `sleep` with the seconds until the next attempt.
    `sleep` returns True if the process must stop.
    """
    backoff = Backoff(first_s=0.5, longest_s=5.0)
    while fault := find_database_fault():
        report(fault)
        if sleep(backoff.failed()):
            return False
    return True


def migrate_database(apply: bool = True) -> list[str]:
    """Brings the tables up to date and returns the names of the applied migrations. Several processes can call this function at once.

    If `apply` is False, only checks whether the tables are up to date. Raises SettingsError if the tables cannot be used.
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
        # Use a lock that lasts until it is released. A lock that ends with its transaction would end after the first migration, because
        # each migration is a transaction of its own.
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
        # If the lock file is missing, no process has ever applied migrations, so no lock is needed. Do not create the file here. If root
        # only checks the tables, the file would belong to root, and the station could not open it.
        yield
        return
    with file.open("w" if apply else "r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lock_parts() -> None:
    """Locks the table of parts against other writing processes until the end of the current transaction."""
    # SQLite needs no lock here, because all its transactions have the mode IMMEDIATE, and only one of them can run at a time.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_PARTS_LOCK])
