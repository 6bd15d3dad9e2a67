"""The station inside the test process: a migrated database, a test client for each role, and a factory of parts.

Django can be configured only once per process, so this module does it before any test imports a table. Each test's writes are rolled back.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from station.configuration import configure
from streams.settings import LineSettings, Settings, StationSettings, StoreSettings

FOLDER = Path(tempfile.mkdtemp(prefix="castline-pages-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SETTINGS = Settings(
    store=StoreSettings(url=str(FOLDER / "store")),
    station=StationSettings(
        database=os.environ.get("PAGES_DATABASE", str(FOLDER / "station.sqlite3")),
        secret_key=SecretStr("for tests only " * 4),
        hosts=("testserver", "127.0.0.1"),
    ),
    lines=tuple(LineSettings(name=name) for name in ("line-1", "line-2", "uploads")),
)
configure(SETTINGS)

from django.contrib.auth.models import Group, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections, transaction  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import override_settings, setup_test_environment, teardown_test_environment  # noqa: E402

from station.archive.models import Part  # noqa: E402
from station.kafka_producer import get_producer  # noqa: E402
from station.live.live_consumer import stop_live_consumer  # noqa: E402

PASSWORD = "a long enough pass phrase"
EARLIEST = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def migrated() -> Iterator[Path]:
    """The database file with all tables."""
    call_command("migrate", verbosity=0)
    setup_test_environment(debug=False)
    # The real password hasher takes a third of a second for each password.
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield FOLDER / "station.sqlite3"
    teardown_test_environment()
    connections.close_all()


@pytest.fixture
def database(migrated: Path) -> Iterator[Path]:
    """The database file. Everything that the test writes is rolled back."""
    with transaction.atomic():
        yield migrated
        transaction.set_rollback(True)
    # A page may have started the consumer or the producer. Each of them would try to connect to Kafka until the process ends.
    stop_live_consumer()
    get_producer().close()


MakeAccount = Callable[..., User]


@pytest.fixture
def account(database: Path) -> MakeAccount:
    """Creates accounts: `account("anna", "reviewer")`. Only with `password=True` the account gets PASSWORD, because hashing takes long."""

    def make(name: str, role: str, *, password: bool = False) -> User:
        user = User.objects.create_user(name, password=PASSWORD if password else None)
        user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def browser(account: MakeAccount) -> Callable[[str], Client]:
    """Returns a test client that is logged in as an account of a role. The account has the name of the role."""

    def logged_in(role: str) -> Client:
        client = Client()
        client.force_login(User.objects.filter(username=role).first() or account(role, role), "django.contrib.auth.backends.ModelBackend")
        return client

    return logged_in


@pytest.fixture
def visitor(database: Path) -> Client:
    """A test client that is not logged in."""
    return Client()


@pytest.fixture
def operator(browser: Callable[[str], Client]) -> Client:
    return browser("operator")


@pytest.fixture
def reviewer(browser: Callable[[str], Client]) -> Client:
    return browser("reviewer")


@pytest.fixture
def engineer(browser: Callable[[str], Client]) -> Client:
    return browser("engineer")


@pytest.fixture
def administrator(browser: Callable[[str], Client]) -> Client:
    return browser("administrator")


MakePart = Callable[..., Part]


@pytest.fixture
def part(database: Path) -> MakePart:
    """Creates parts, good ones by default: `part(label="defect", defect_probability=0.97)`. Each is one second younger."""
    numbers = itertools.count(1)

    def make(**columns: object) -> Part:
        number = next(numbers)
        at = EARLIEST + timedelta(seconds=number)
        values: dict[str, object] = {
            "line": "line-1",
            "run": 7,
            "part": number,
            "seen_at": at,
            "label": "ok",
            "defect_probability": 0.02,
            "votes": {"alexnet": 0.01, "lenet": 0.03},
            "threshold": 0.5,
            "model": "demo",
            "captured_at": at,
            "received_at": at + timedelta(milliseconds=20),
            "decided_at": at + timedelta(milliseconds=80),
            "sha256": f"{number:064x}",
            "width_px": 300,
            "height_px": 300,
        }
        return Part.objects.create(**{**values, **columns})

    return make
