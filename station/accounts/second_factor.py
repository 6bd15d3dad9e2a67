"""The second factor of the log-in: a code that an app shows (TOTP), and recovery codes for a lost phone."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Sequence

import segno
from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from station.accounts.delays import DelayRule, begin_attempt, cancelled_if_busy, end_attempt, find_device, make_password_rules
from station.accounts.log_in import refuse_early_attempt, use_code
from station.accounts.models import AuditEntry, RecoveryCode
from station.configuration import current_settings

_APP = "app"


class CodeForm(forms.Form):
    """The form in which a person enters the first code of the app. The right code proves that the app has the key.

    The form also asks for the password. Otherwise, somebody at an unattended computer could add another app, and the owner of the account
    could no longer log in.
    """

    code = forms.CharField(max_length=8, label="Code", widget=forms.TextInput(attrs={"autocomplete": "one-time-code"}))
    password = forms.CharField(label="Password", strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}))


def has_second_factor(user: User) -> bool:
    """Returns whether the log-in of `user` needs a code besides the password."""
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def remove_second_factor(user: User) -> None:
    """Removes the keys and recovery codes of `user`, so that the log-in needs only the password."""
    TOTPDevice.objects.filter(user=user).delete()
    StaticDevice.objects.filter(user=user).delete()
    RecoveryCode.objects.filter(user=user).delete()


def count_recovery_codes(user: User) -> int:
    """Returns how many recovery codes of `user` are left, including codes that an earlier release made."""
    return RecoveryCode.objects.filter(user=user).count() + list_old_codes().filter(device__user=user).count()


def list_old_codes() -> QuerySet[StaticToken]:
    """Returns the recovery codes of earlier releases, which have 40 random bits and are stored without a hash."""
    codes: QuerySet[StaticToken] = StaticToken.objects.all()
    return codes


@login_required
@sensitive_post_parameters()
@never_cache
def set_up(request: HttpRequest) -> HttpResponse:
    """Sets up the second factor of the logged-in user in three steps.

    - A POST request with the field `begin` makes a key. The page of the account sends this request.
    - A GET request shows the key as a QR code, which the person scans with the app.
    - A POST request with a code of the app and the password turns the second factor on.
    """
    user = request.user
    assert isinstance(user, User)
    if has_second_factor(user):
        messages.info(request, "This account has a second factor already.")
        return redirect("account")
    if request.method == "POST" and "begin" in request.POST:
        _make_key(user)
        return redirect("second-factor")
    device = TOTPDevice.objects.filter(user=user, name=_APP).first()
    if device is None:
        return redirect("account")
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        rules = make_password_rules(current_settings().station, user.pk)
        if wait_s := begin_attempt(rules, timezone.now()):
            return refuse_early_attempt(request, wait_s)
        new_hash = _check_password(user, form.cleaned_data["password"], rules, "add second factor")
        if not new_hash:
            form.add_error("password", "The password is wrong.")
        elif device.verify_token(form.cleaned_data["code"].replace(" ", "")):
            with transaction.atomic():
                _log_out_elsewhere(request, user, new_hash)
                codes = _turn_on(user, device)
            return render(request, "station/accounts/recovery-codes.html", {"title": "The second factor is on", "codes": codes})
        else:
            form.add_error("code", "This code does not fit the key. Wait for the next code of the app, then try again.")
    content = {
        "form": form,
        "key": b32encode(device.bin_key).decode(),
        "picture": segno.make(device.config_url, error="m").svg_inline(scale=4, border=4, dark="#000", light="#fff"),
    }
    return render(request, "station/accounts/second-factor.html", content)


@login_required
@require_POST
@sensitive_post_parameters()
def remove(request: HttpRequest) -> HttpResponse:
    """Removes the second factor of the logged-in user, if the password and the code in the form are right."""
    user = request.user
    assert isinstance(user, User)
    if not has_second_factor(user):
        return redirect("account")
    proof = _check_proof(request, user, "remove second factor", "The second factor stays.")
    if isinstance(proof, HttpResponse):
        return proof
    with transaction.atomic():
        _log_out_elsewhere(request, user, proof)
        remove_second_factor(user)
        AuditEntry.record(user, "second factor removed", user.username)
    messages.success(
        request, "The second factor is removed. This account now needs only its password. It is now logged out everywhere else."
    )
    return redirect("account")


@login_required
@require_POST
@sensitive_post_parameters()
@never_cache
def renew_recovery_codes(request: HttpRequest) -> HttpResponse:
    """Makes new recovery codes for the logged-in user and shows them, if the password and the code in the form are right.

    The old recovery codes no longer work.
    """
    user = request.user
    assert isinstance(user, User)
    if not has_second_factor(user):
        return redirect("account")
    proof = _check_proof(request, user, "new recovery codes", "The old recovery codes stay.")
    if isinstance(proof, HttpResponse):
        return proof
    with transaction.atomic():
        _log_out_elsewhere(request, user, proof)
        codes = _make_recovery_codes(user)
        AuditEntry.record(user, "recovery codes made", user.username)
    return render(request, "station/accounts/recovery-codes.html", {"title": "New recovery codes", "codes": codes})


def _check_proof(request: HttpRequest, user: User, page: str, what_stays: str) -> HttpResponse | str:
    """Checks the password and the code in the form. Returns a new hash of the password, or an error response if the form is refused."""
    rules = make_password_rules(current_settings().station, user.pk)
    if wait_s := begin_attempt(rules, timezone.now()):
        return refuse_early_attempt(request, wait_s)
    if not (new_hash := _check_password(user, request.POST.get("password", ""), rules, page)):
        fault = "password"
    else:
        is_right, wait_s = use_code(user, request.POST.get("code", ""), find_device(request, user.pk))
        if wait_s:
            return refuse_early_attempt(request, wait_s)
        if is_right:
            return new_hash
        AuditEntry.record(user, "wrong code", user.username, page=page)
        fault = "code"
    messages.error(request, f"The {fault} is wrong. {what_stays}")
    return redirect("account")


def _check_password(user: User, password: str, rules: Sequence[DelayRule], page: str) -> str:
    """Returns a new hash of `password` if the password is right, else "". The caller must have called `begin_attempt(rules)`.

    The hasher may be busy with other log-ins, so this function can wait or fail. Call it before a recovery code is used up and before a
    transaction begins.
    """
    with cancelled_if_busy(rules):
        new_hash = make_password(password) if user.check_password(password) else ""
    if new_hash:
        end_attempt(rules)
    else:
        AuditEntry.record(user, "wrong password", user.username, page=page)
    return new_hash


def _log_out_elsewhere(request: HttpRequest, user: User, new_hash: str) -> None:
    """Ends all sessions of `user` except the session of `request`.

    A session is valid only while the stored hash of the password stays the same. So this function stores `new_hash`, which is a hash of
    the same password with another salt. Raises PermissionDenied if the password was changed since it was checked.
    """
    if not User.objects.filter(pk=user.pk, password=user.password).update(password=new_hash):
        raise PermissionDenied("The password was changed meanwhile. Log in with the new password, and try again.")
    user.password = new_hash
    update_session_auth_hash(request, user)


@transaction.atomic
def _make_key(user: User) -> None:
    """Makes a new key. Deletes an earlier key that was never confirmed, because somebody else may have seen it."""
    TOTPDevice.objects.filter(user=user, confirmed=False).delete()
    TOTPDevice.objects.create(user=user, name=_APP, confirmed=False)


@transaction.atomic
def _turn_on(user: User, device: TOTPDevice) -> list[str]:
    """Turns the second factor on, and returns the new recovery codes."""
    device.confirmed = True
    device.save()
    AuditEntry.record(user, "second factor added", user.username)
    return _make_recovery_codes(user)


def _make_recovery_codes(user: User) -> list[str]:
    StaticDevice.objects.filter(user=user).delete()
    return RecoveryCode.issue_all(user)
