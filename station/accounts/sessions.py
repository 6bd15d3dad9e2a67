"""A log-in lasts as long as it is used: each click puts its end off, and at most every few minutes that is written down."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

_EVERY_S = 600
_SEEN = "seen"


class Lasting:
    """Middleware; after the session's own."""

    def __init__(self, answer: Callable[[HttpRequest], HttpResponse]) -> None:
        self._answer = answer

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated and time.time() - request.session.get(_SEEN, 0) > _EVERY_S:
            request.session[_SEEN] = int(time.time())
        return self._answer(request)
