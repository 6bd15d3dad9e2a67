"""Protects the log-in: finds the client's address, shows an error page if a form is refused, and extends sessions in use."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from station.accounts.access import render_error_page
from station.configuration import current_settings

_RENEW_EVERY_S = 600
_RENEWED_AT = "seen"


def client_address(request: HttpRequest) -> str:
    """Returns the network address of the client.

    Each proxy appends an address to the header X-Forwarded-For. Addresses that the client itself can write are ignored.
    """
    # PostgreSQL cannot store an empty address, so a connection without an address gets 0.0.0.0.
    peer: str = request.META.get("REMOTE_ADDR", "") or "0.0.0.0"
    proxies = current_settings().station.proxies
    if not proxies:
        return peer
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    return hops[-proxies] if len(hops) >= proxies else peer


def show_locked_out(request: HttpRequest, *_: object, **__: object) -> HttpResponse:
    """Returns the error page for a log-in that is locked after too many wrong passwords."""
    sentence = "There were too many wrong passwords for this account from this computer. Wait a few minutes, then try again."
    return render_error_page(request, 429, "Log-in locked", sentence)


def show_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Returns the error page for a form without a valid CSRF token.

    The token is wrong if another site sent the form, or if the person opened the page before the last log-in.
    """
    sentence = "This form is too old, or it did not come from this station. Go back, reload the page and send the form again."
    return render_error_page(request, 403, "Form expired", sentence)


class SessionRenewalMiddleware:
    """Extends a log-in session while its user is active. An idle session expires.

    Writes to the database at most every ten minutes. In the setting MIDDLEWARE, this class must follow Django's session middleware.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated and time.time() - request.session.get(_RENEWED_AT, 0) > _RENEW_EVERY_S:
            request.session[_RENEWED_AT] = int(time.time())
        return self._get_response(request)
