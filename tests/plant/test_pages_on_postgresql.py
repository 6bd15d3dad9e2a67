"""Runs tests of pages and of the archive once more on PostgreSQL, because its queries must give the same as SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from tests.postgres import PostgreSQL
from tests.structure.tree import ROOT

# The test modules whose pages query the database.
_TEST_MODULES = (
    "test_safe_requests",
    "accounts/test_second_factor",
    "archive/test_retention",
    "archive/test_part_writer",
    "history/test_history",
    "reviews/test_agreement",
    "reviews/test_decisions",
    "reviews/test_queue",
    "reports/test_report",
)
# The tests of all pages take long. Of them, only the tests with a null character can fail on PostgreSQL and succeed on SQLite.
_SELECTION = "not test_safe_requests or null_character or x00"


@pytest.mark.timeout(280)
def test_pages_and_archive_on_postgresql(postgres: PostgreSQL) -> None:
    database = postgres.create_database(f"t{uuid.uuid4().hex[:12]}")
    modules = [f"tests/station/{name}.py" for name in _TEST_MODULES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", _SELECTION, *modules]
    # Django has one database in a process, so these tests need a process of their own.
    environment = os.environ | {"PAGES_DATABASE": database}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
