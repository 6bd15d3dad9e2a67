"""The database as the program needs it: reached, its tables made, and not those of a newer program."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management import call_command
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from station.configuration import castline
from streams.errors import SettingsError

log = logging.getLogger(__name__)

# Any number that no other program locks by.
_MIGRATING = 0x6361_7375


def complaint() -> str:
    """What is wrong with reaching the database, empty when nothing is."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError) as error:
        connection.close()
        first = (str(error).strip().splitlines() or [repr(error)])[0]
        return f"expected the database {castline().station.database} to answer, it did not: {first}"
    return ""


def wait_for_database(say: Callable[[str], None], wait: Callable[[float], bool]) -> bool:
    """Returns True once the database answers; tells `say` why not yet. False when `wait`, which sleeps, says to stop."""
    pause_s = 0.5
    while why := complaint():
        say(why)
        if wait(pause_s):
            return False
        pause_s = min(pause_s * 2, 5.0)
    return True


def prepare(migrate: bool = True) -> list[str]:
    """Brings the tables up to what this program needs; the names of the migrations applied.

    Of several processes that start together one does it and the others wait.

    Raises SettingsError: when the tables are of a newer program; without `migrate`, when they are of an older one.
    """
    try:
        with _alone():
            return _prepare(migrate)
    except DatabaseError as error:
        raise SettingsError(f"station.database: the tables in {castline().station.database} cannot be made: {error}") from None


def _prepare(migrate: bool) -> list[str]:
    executor = MigrationExecutor(connection)
    known, applied = set(executor.loader.disk_migrations), set(executor.loader.applied_migrations)
    ours = {app for app, _ in known}
    newer = sorted(f"{app}.{name}" for app, name in applied - known if app in ours)
    if newer:
        raise SettingsError(
            f"station.database: expected tables of this version of Castline or an older one in {castline().station.database}, "
            f"found those of a newer one ({', '.join(newer)}); install that version, or put back a copy of the database"
        )
    plan = [f"{migration.app_label}.{migration.name}" for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    if plan and not migrate:
        raise SettingsError(
            f"station.database: expected the tables in {castline().station.database} to be up to date, {len(plan)} changes are "
            "missing; make them with: castline station migrate"
        )
    if plan:
        call_command("migrate", verbosity=0, interactive=False)
        log.info("the database has new tables: %s", ", ".join(plan))
    return plan


@contextmanager
def _alone() -> Iterator[None]:
    """Keeps other processes from making tables meanwhile."""
    if connection.vendor == "postgresql":
        # Of the session, not of a transaction: making tables takes several of these.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_MIGRATING])
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_MIGRATING])
        return
    file = Path(f"{connection.settings_dict['NAME']}.lock")
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
