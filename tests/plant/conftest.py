"""What the delivery tests share beside the broker: one PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import PostgreSQL


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """A real server that lives as long as the session; a test that stops it starts it again."""
    server = PostgreSQL()
    yield server
    server.remove()
