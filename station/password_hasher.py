"""Computes the hash of one password at a time, so that many log-ins at once cannot use up the processors and threads."""

from __future__ import annotations

import threading

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from streams.errors import CastlineError

# A hash takes a third of a second. If 16 log-ins wait, the last of them waits about five seconds.
_MAX_WAITING = 16


class PasswordHasherBusyError(CastlineError):
    """Raised if too many passwords already wait to be hashed. The message can be shown on a page."""


class QueuedPasswordHasher(PBKDF2PasswordHasher):
    """Django's password hasher, but it computes only one hash at a time. At most 16 other passwords wait for their hash. Thread-safe.

    The format of the stored hashes is Django's own, so the passwords in older databases stay valid.
    """

    _computing = threading.Lock()
    _waiting = threading.BoundedSemaphore(_MAX_WAITING + 1)

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        if not self._waiting.acquire(blocking=False):
            raise PasswordHasherBusyError("The station is busy with other log-ins. Try again in a moment.")
        try:
            with self._computing:
                return super().encode(password, salt, iterations)
        finally:
            self._waiting.release()
