"""Limits how much of the station one account can use at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.http import HttpRequest, HttpResponse

from station.accounts.access import render_error_page
from station.password_hasher import PasswordHasherBusyError

_MAX_REQUESTS = 24


class AccountCounter:
    """Counts how many requests or other tasks each account or session runs at the same time. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[object] = Counter()
        self._lock = threading.Lock()

    def begin(self, owner: object, limit: int) -> bool:
        """Adds 1 to the count of `owner` and returns True. If the count has reached `limit`, returns False."""
        with self._lock:
            is_granted = self._counts[owner] < limit
            self._counts[owner] += is_granted
            return is_granted

    def end(self, owner: object) -> None:
        with self._lock:
            self._counts[owner] -= 1
            if self._counts[owner] <= 0:
                del self._counts[owner]

    @contextmanager
    def counted(self, owner: object, limit: int) -> Iterator[bool]:
        """Adds 1 to the count of `owner` until the `with` block ends. If the count has reached `limit`, yields False."""
        is_granted = self.begin(owner, limit)
        try:
            yield is_granted
        finally:
            if is_granted:
                self.end(owner)


class AccountLimitMiddleware:
    """Limits how many requests of one account run at the same time. Requests from all sessions and IP addresses of the account count.

    Shows an error page if a log-in was refused because too many other log-ins wait for their password check.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._requests = AccountCounter()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return self._get_response(request)
        with self._requests.counted(request.user.pk, _MAX_REQUESTS) as is_granted:
            if not is_granted:
                return _refuse(request, f"This account has {_MAX_REQUESTS} requests at once. Try again in a moment.")
            return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answers 503 if the password hasher is busy. Other errors are left to Django."""
        return _refuse(request, str(error)) if isinstance(error, PasswordHasherBusyError) else None


def _refuse(request: HttpRequest, sentence: str) -> HttpResponse:
    response = render_error_page(request, 503, "Station busy", sentence)
    response["Retry-After"] = "5"
    return response
