"""The queries of history, review and reports give the same on PostgreSQL: their tests run once more, on one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from tests.postgres import PostgreSQL
from tests.structure.tree import ROOT

# What asks the database something; pages that only show are the same on both.
_ASKING = ("history/test_history", "reviews/test_reviews", "reviews/test_agreement", "reports/test_reports")


@pytest.mark.timeout(280)
def test_history_review_and_reports_on_postgresql(postgres: PostgreSQL) -> None:
    database = postgres.create_database(f"t{uuid.uuid4().hex[:12]}")
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/station/{one}.py" for one in _ASKING)]
    # Django has one database a process, so these tests have a process of their own.
    surroundings = os.environ | {"PAGES_DATABASE": database}
    done = subprocess.run(call, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
