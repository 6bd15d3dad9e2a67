"""What keeps the station from starting, in words."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings
from django.utils import timezone

from station.archive.database import find_database_fault, migrate_database
from station.server import open_socket
from streams.errors import SettingsError
from tests.station.conftest import SETTINGS

APPLIED = MigrationRecorder.Migration.objects


def test_tables_that_are_up_to_date_are_left_alone(database: Path) -> None:
    assert find_database_fault() == ""
    assert migrate_database() == []


def test_tables_of_a_newer_program_are_refused(database: Path) -> None:
    APPLIED.create(app="archive", name="0999_of_tomorrow", applied=timezone.now())
    with pytest.raises(SettingsError, match=r"belong to a newer release of Castline \(archive.0999_of_tomorrow\)"):
        migrate_database()


def test_a_table_of_another_program_is_none_of_ours(database: Path) -> None:
    APPLIED.create(app="payroll", name="0001_initial", applied=timezone.now())
    assert migrate_database() == []


def test_without_leave_to_change_tables_missing_ones_are_refused(database: Path) -> None:
    APPLIED.filter(app="reviews").delete()
    with pytest.raises(SettingsError, match="Apply them with: castline station migrate"):
        migrate_database(apply=False)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        station = SETTINGS.station.model_copy(update={"port": port})
        with (
            override_settings(CASTLINE=SETTINGS.model_copy(update={"station": station})),
            pytest.raises(SettingsError, match=f"cannot listen at 127.0.0.1:{port}"),
        ):
            open_socket()
