"""One password hash is computed at a time, and the hashes are those of Django."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from station.configuration import make_django_settings
from station.password_hasher import PasswordHasherBusyError, QueuedPasswordHasher
from tests.station.conftest import SETTINGS


def test_the_station_uses_the_queued_hasher_alone() -> None:
    assert make_django_settings(SETTINGS)["PASSWORD_HASHERS"] == ["station.password_hasher.QueuedPasswordHasher"]


def test_a_hash_of_django_stays_valid() -> None:
    stored = PBKDF2PasswordHasher().encode("a long enough pass phrase", "salt", 10)
    assert QueuedPasswordHasher().verify("a long enough pass phrase", stored)
    assert not QueuedPasswordHasher().verify("another", stored)


def test_a_log_in_is_refused_while_too_many_wait() -> None:
    computing, finish = threading.Event(), threading.Event()

    class SlowDigest(QueuedPasswordHasher):
        _waiting = threading.BoundedSemaphore(2)
        _running: Any = None

        @property
        def digest(self) -> Any:
            computing.set()
            finish.wait(10)
            return PBKDF2PasswordHasher.digest

    hasher = SlowDigest()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(hasher.encode, "one", "salt", 1)
        computing.wait(10)
        second = threads.submit(hasher.encode, "two", "salt", 1)
        while hasher._waiting._value:
            pass
        with pytest.raises(PasswordHasherBusyError):
            hasher.encode("three", "salt", 1)
        assert not second.done()
        finish.set()
        assert first.result() != second.result()
