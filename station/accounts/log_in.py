"""The log-in page, the delays after wrong passwords or codes, and log-in sessions that last longer while they are used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib.auth import logout
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django_otp import devices_for_user
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from station.accounts.access import render_error_page
from station.accounts.delays import (
    begin_attempt,
    cancelled_if_busy,
    end_attempt,
    find_device,
    make_code_rules,
    make_log_in_rules,
    remember_device,
)
from station.accounts.models import AuditEntry, RecoveryCode, client_address_of_request
from station.configuration import current_settings
from streams.client_address import find_client_address

_RENEW_EVERY_S = 600
_RENEWED_AT = "seen"
_BEGAN_AT = "began"
_DAY_S = 24 * 3600
_MAX_OLD_CODE = 64


def client_address(request: HttpRequest) -> str:
    """Returns the IP address of the client. Uses the header X-Forwarded-For only if a trusted proxy has sent the request."""
    station = current_settings().station
    # A connection through a Unix socket has no IP address. The address 0.0.0.0 is used for it.
    peer: str = request.META.get("REMOTE_ADDR", "") or "0.0.0.0"
    return find_client_address(peer, request.META.get("HTTP_X_FORWARDED_FOR", ""), station.proxies, station.trusted_proxies)


class LogInForm(AuthenticationForm):
    """The form of the log-in page. If an account has a second factor, the person also enters the code that an app on the phone shows."""

    code = forms.CharField(
        required=False,
        max_length=64,
        label="Code",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        user = self.get_user()
        if user is not None and any(devices_for_user(user)):
            assert self.request is not None
            is_right, _ = use_code(user, cleaned.get("code", ""), find_device(self.request, user.pk))
            if not is_right:
                # A wrong code and a code that comes too early get the same error message as a wrong password. Otherwise a stranger could
                # see that the password was right.
                self.user_cache = None
                raise self.get_invalid_login_error()
        return cleaned


def use_code(user: User, text: str, device: str) -> tuple[bool, float]:
    """Checks whether `text` is a code of the app or a recovery code of `user`. Each code is valid once.

    Returns whether the code is right. If a code of the app comes too early after wrong codes, does not check the code, and returns False
    and the remaining seconds of the delay. A recovery code never has to wait, because nobody can guess a recovery code.

    `device` is the id of the browser if `user` has logged in with this browser before, else "".
    """
    code = text.replace(" ", "")
    if not code:
        return False, 0.0
    if RecoveryCode.use_up(user, text) or _use_up_old_code(user, code):
        return True, 0.0
    rules = make_code_rules(user.pk, device)
    if wait_s := begin_attempt(rules, timezone.now()):
        return False, wait_s
    with transaction.atomic():
        apps = TOTPDevice.objects.select_for_update().filter(user=user, confirmed=True)
        is_right = any(app.verify_token(code) for app in apps)
    if is_right:
        end_attempt(rules)
    return is_right, 0.0


def _use_up_old_code(user: User, code: str) -> bool:
    """Returns whether `code` is a recovery code that an earlier release made for `user`, and deletes the code."""
    # The code comes from a form, and PostgreSQL cannot search for every text. For example, it raises an error for a null character.
    if len(code) > _MAX_OLD_CODE or not code.isprintable():
        return False
    # One statement finds and deletes the code, so that two simultaneous log-ins cannot both use the same code.
    deleted, _ = StaticToken.objects.filter(device__user=user, token=code).delete()
    return bool(deleted)


class LogInView(LoginView):
    """The log-in page. If an attempt comes too early after wrong passwords, answers 429 and does not check the password."""

    template_name = "station/accounts/log-in.html"
    authentication_form = LogInForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        station = current_settings().station
        return super().get_context_data(**kwargs, oidc=station.oidc, notice=station.log_in_notice)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        name = _read_name(request)
        account = User.objects.filter(username=name).first()
        self._attempted_name = name if account else "(no such account)"
        device = find_device(request, account.pk if account else None)
        self._rules = make_log_in_rules(current_settings().station, name, client_address(request), device)
        if wait_s := begin_attempt(self._rules, timezone.now()):
            return refuse_early_attempt(request, wait_s)
        with cancelled_if_busy(self._rules):
            response: HttpResponse = super().post(request, *args, **kwargs)
        return response

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        end_attempt(self._rules)
        user = form.get_user()
        # A log-in by OpenID Connect gives the session a limit of 15 minutes. The person may have begun such a log-in and not finished it,
        # so remove the limit.
        self.request.session.set_expiry(None)
        response = super().form_valid(form)
        remember_device(self.request, response, user.pk)
        AuditEntry.record(user, "logged in", user.get_username())
        return response

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        # If no account has the entered name, this name is not written to the audit log, because it may be a password in the wrong field.
        AuditEntry.record(None, "log-in failed", self._attempted_name)
        return super().form_invalid(form)


def _read_name(request: HttpRequest) -> str:
    """Returns the name as the log-in form reads it, or "" if the form refuses the name.

    A person can write one name in several ways, for example with a space before it. So wrong passwords are counted for the name that the
    form has read, and not for the entered text.
    """
    try:
        return str(LogInForm(request).fields["username"].clean(request.POST.get("username", "")))
    except forms.ValidationError:
        return ""


class LogOutView(LogoutView):
    """Ends the log-in session."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        if request.user.is_authenticated:
            AuditEntry.record(request.user, "logged out", request.user.get_username())
        response: HttpResponseBase = super().post(request, *args, **kwargs)
        return response


def refuse_early_attempt(request: HttpRequest, wait_s: float) -> HttpResponse:
    """Returns the error page for an attempt too soon after wrong passwords or codes. The next attempt is allowed in `wait_s` seconds."""
    seconds = math.ceil(wait_s)
    sentence = f"There were too many wrong passwords or codes. Wait {seconds} s, then try again. An attempt before that does not count."
    response = render_error_page(request, 429, "Too early", sentence)
    response["Retry-After"] = str(seconds)
    return response


def show_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Returns the error page for a form without a valid CSRF token.

    The token is wrong if another site sent the form, or if the person opened the page before the last log-in.
    """
    sentence = "This form is too old, or it did not come from this station. Go back, reload the page and send the form again."
    return render_error_page(request, 403, "Form expired", sentence)


class NullCharacterMiddleware:
    """Answers 400 if the path contains a null character. If the session cookie contains one, the request has no session.

    Otherwise, PostgreSQL would raise an error for this text. Queries and forms are not checked. A page explains a wrong text in its query.
    An upload must not be read before its size is checked.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "\0" in request.path:
            return HttpResponse("The request contains a null character.", status=400, content_type="text/plain; charset=utf-8")
        if "\0" in (request.session.session_key or ""):
            request.session = type(request.session)()
        return self._get_response(request)


class ClientAddressMiddleware:
    """Keeps the client's address while a request is answered, so that entries of the audit log name the address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = client_address_of_request.set(client_address(request))
        try:
            return self._get_response(request)
        finally:
            client_address_of_request.reset(token)


def has_session_ended(session: SessionBase) -> bool:
    """Returns whether the log-in of `session` is longer ago than the setting `station.session_days` allows.

    A session that began before release 0.2.0 does not contain the time of its log-in. Its days are counted from the first renewal by a
    later release.
    """
    return bool(time.time() - session.get(_BEGAN_AT, time.time()) > current_settings().station.session_days * _DAY_S)


class SessionRenewalMiddleware:
    """Extends a log-in session while its user is active. An idle session expires, and so does a session whose log-in is too long ago.

    Writes each session to the database at most every ten minutes. In the setting MIDDLEWARE, this class must follow Django's session
    middleware.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            if has_session_ended(request.session):
                AuditEntry.record(request.user, "session ended", request.user.get_username())
                logout(request)
            elif time.time() - request.session.get(_RENEWED_AT, 0) > _RENEW_EVERY_S:
                request.session[_RENEWED_AT] = int(time.time())
                request.session.setdefault(_BEGAN_AT, int(time.time()))
        return self._get_response(request)
