"""Limits how much of the station one account can use at the same time."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from station.accounts.access import render_error_page
from station.password_hasher import PasswordHasherBusyError

_MAX_REQUESTS = 24
# If a client reads slowly, a download can last for hours. So an account can have only two downloads at the same time.
_MAX_DOWNLOADS = 2

View = TypeVar("View", bound=Callable[..., object])


def download(view: View) -> View:
    """Decorates a view that sends a large file. Each account can download at most two large files at the same time.

    If a view has several decorators, `download` must be the outermost one, because the middleware looks only at the outermost function.
    """
    view.is_download = True  # type: ignore[attr-defined]
    return view


class AccountCounter:
    """Counts how many requests or other tasks each account or session runs at the same time. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[object] = Counter()
        # The lock must be reentrant, because the garbage collector can interrupt a thread in `begin` and call `end` in the same thread.
        # With a plain lock, `end` would then wait for ever.
        self._lock = threading.RLock()

    def begin(self, owner: object, limit: int) -> bool:
        """Counts one more running task of `owner` and returns True. If `owner` already has `limit` tasks, returns False."""
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
        """Counts one more running task of `owner` until the `with` block ends, and yields True.

        If `owner` already has `limit` tasks, yields False and does not count the new task.
        """
        is_granted = self.begin(owner, limit)
        try:
            yield is_granted
        finally:
            if is_granted:
                self.end(owner)


class AccountLimitMiddleware:
    """Limits how many requests of one account run at the same time, in all its sessions and from all IP addresses together.

    A download counts as a running request until its last byte is sent. An open live page does not count as a running request. The module
    `station.live` limits the number of live pages.

    This middleware also sends an error page if the password hasher is too busy to check a password.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._requests = AccountCounter()
        self._downloads = AccountCounter()

    def __call__(self, request: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return self._get_response(request)
        with ExitStack() as counts:
            if not counts.enter_context(self._requests.counted(request.user.pk, _MAX_REQUESTS)):
                return _refuse(request, f"This account has {_MAX_REQUESTS} requests at once. Try again in a moment.")
            request.account_counts = counts
            response = self._get_response(request)
            if response.streaming and not response.get("Content-Type", "").startswith("text/event-stream"):
                _call_at_end(response, counts.pop_all().close)
            return response

    def process_view(self, request: Any, view: Callable[..., object], _args: object, _kwargs: object) -> HttpResponse | None:
        """Answers 503 if the account has too many downloads. Django calls this method just before it calls the view."""
        counts: ExitStack | None = getattr(request, "account_counts", None)
        if counts is None or not getattr(view, "is_download", False):
            return None
        if counts.enter_context(self._downloads.counted(request.user.pk, _MAX_DOWNLOADS)):
            return None
        return _refuse(request, f"This account has {_MAX_DOWNLOADS} downloads at once. Wait until one of them is complete.")

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answers 503 if `error` says that the password hasher is busy. Leaves all other errors to Django."""
        return _refuse(request, str(error)) if isinstance(error, PasswordHasherBusyError) else None


def _call_at_end(response: HttpResponseBase, end: Callable[[], None]) -> None:
    """Calls `end` once, when Django closes the response.

    If the client leaves before the response begins, Django never closes the response. In this case, `end` is called when Python deletes
    the response object.
    """
    finalizer = weakref.finalize(response, end)
    finalizer.atexit = False
    response._resource_closers.append(finalizer)  # type: ignore[attr-defined]  # Django calls these functions in `close`.


def _refuse(request: HttpRequest, sentence: str) -> HttpResponse:
    response = render_error_page(request, 503, "Station busy", sentence)
    response["Retry-After"] = "5"
    return response
