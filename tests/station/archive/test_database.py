"""Bringing the tables up to date, and databases that do not fit this release."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from station.archive.database import find_database_fault, migrate_database
from streams.errors import SettingsError

APPLIED_MIGRATIONS = MigrationRecorder.Migration.objects


def test_tables_that_are_up_to_date_are_not_changed(database: Path) -> None:
    assert find_database_fault() == ""
    assert migrate_database() == []


def test_tables_of_a_newer_release_are_refused(database: Path) -> None:
    APPLIED_MIGRATIONS.create(app="archive", name="0999_of_tomorrow", applied=timezone.now())
    with pytest.raises(SettingsError, match=r"belong to a newer release of Castline \(archive.0999_of_tomorrow\)"):
        migrate_database()


def test_tables_of_another_program_are_ignored(database: Path) -> None:
    APPLIED_MIGRATIONS.create(app="payroll", name="0001_initial", applied=timezone.now())
    assert migrate_database() == []


def test_without_apply_missing_tables_are_refused(database: Path) -> None:
    APPLIED_MIGRATIONS.filter(app="reviews").delete()
    with pytest.raises(SettingsError, match="Apply them with: castline station migrate"):
        migrate_database(apply=False)
