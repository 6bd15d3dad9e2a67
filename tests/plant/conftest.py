"""The PostgreSQL server that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import PostgreSQL


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """A real server for the whole session. A test that stops it must start it again."""
    server = PostgreSQL()
    yield server
    server.remove()
