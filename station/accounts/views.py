"""The account pages: the account of the logged-in user, the list of all accounts, and the audit log."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from station.accounts.access import RIGHT_DESCRIPTIONS, get_rights, get_role, right_required
from station.accounts.delays import begin_attempt, cancelled_if_busy, end_attempt, make_password_rules
from station.accounts.forms import ChangeAccountForm, NewAccountForm, TokenForm
from station.accounts.log_in import refuse_early_attempt
from station.accounts.models import ApiToken, AuditEntry
from station.accounts.second_factor import count_recovery_codes, has_second_factor
from station.configuration import current_settings

_ENTRIES_PER_PAGE = 100
_MAX_TOKENS = 500


def _get_user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@login_required
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    """Shows the account of the logged-in user with its role, its rights and its API tokens."""
    return _render_account(request, TokenForm())


def _render_account(request: HttpRequest, form: TokenForm, new_token: str = "", status: int = 200) -> HttpResponse:
    user = _get_user(request)
    rights = get_rights(user)
    content = {
        "form": form,
        "new_token": new_token,
        "role": get_role(user),
        "rights": [description for right, description in RIGHT_DESCRIPTIONS.items() if right in rights],
        "tokens": ApiToken.objects.filter(user=user).order_by("-made_at")[:_MAX_TOKENS],
        "has_second_factor": has_second_factor(user),
        "recovery_codes_left": count_recovery_codes(user),
    }
    return render(request, "station/accounts/account.html", content, status=status)


@login_required
@sensitive_post_parameters()
@never_cache
def password(request: HttpRequest) -> HttpResponse:
    """Changes the password of the logged-in user and ends all other log-in sessions of the account."""
    user = _get_user(request)
    rules = make_password_rules(current_settings().station, user.pk)
    if request.method == "POST" and (wait_s := begin_attempt(rules, timezone.now())):
        return refuse_early_attempt(request, wait_s)
    form = PasswordChangeForm(user, request.POST or None)
    if request.method == "POST":
        with cancelled_if_busy(rules):
            is_valid = form.is_valid()
        if "old_password" not in form.errors:
            end_attempt(rules)
        else:
            AuditEntry.record(user, "wrong password", user.username, page="change password")
        if is_valid:
            return _change_password(request, form)
    return render(request, "station/accounts/password.html", {"form": form})


def _change_password(request: HttpRequest, form: PasswordChangeForm) -> HttpResponse:
    with transaction.atomic():
        user = form.save()
        ended = ApiToken.revoke_all(user)
        AuditEntry.record(user, "password changed", user.username, tokens_ended=ended)
    update_session_auth_hash(request, user)
    tokens = f" {ended} API tokens of the account have ended." if ended else ""
    messages.success(request, f"The password is changed. This account is now logged out everywhere else.{tokens}")
    return redirect("account")


@login_required
@require_POST
@never_cache
def make_token(request: HttpRequest) -> HttpResponse:
    """Makes an API token for the logged-in user and shows its text. The text cannot be shown again, because only its hash is stored."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _render_account(request, form, status=422)
    cleaned = form.cleaned_data
    with transaction.atomic():
        token, text = ApiToken.issue(_get_user(request), cleaned["name"], cleaned["scope"], timedelta(days=cleaned["days"]))
        AuditEntry.record(request.user, "token made", token.name, scope=token.scope, days=cleaned["days"])
    return _render_account(request, TokenForm(), new_token=text)


@login_required
@require_POST
def revoke_token(request: HttpRequest, token: int) -> HttpResponse:
    """Revokes an API token of the logged-in user. Answers 404 if the token belongs to another account."""
    _revoke(request, get_object_or_404(ApiToken, pk=token, user=_get_user(request)))
    return redirect("account")


@right_required("administer")
def tokens(request: HttpRequest) -> HttpResponse:
    """Lists the API tokens of all accounts, newest first."""
    found = ApiToken.objects.select_related("user").order_by("-made_at")[:_MAX_TOKENS]
    return render(request, "station/accounts/tokens.html", {"tokens": found})


@require_POST
@right_required("administer")
def revoke_any_token(request: HttpRequest, token: int) -> HttpResponse:
    """Revokes an API token of any account."""
    _revoke(request, get_object_or_404(ApiToken.objects.select_related("user"), pk=token))
    return redirect("tokens")


def _revoke(request: HttpRequest, token: ApiToken) -> None:
    with transaction.atomic():
        token.delete()
        AuditEntry.record(request.user, "token revoked", token.name, account=token.user.get_username())
    messages.success(request, f"The token for {token.name} is revoked.")


@right_required("administer")
@sensitive_post_parameters()
@never_cache
def accounts(request: HttpRequest) -> HttpResponse:
    """Lists all accounts. A POST request makes a new account from the form beside the list."""
    form = NewAccountForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            user = form.save()
            AuditEntry.record(request.user, "account made", user.username, role=form.cleaned_data["role"])
        messages.success(request, f"The account {user.username} is made.")
        return redirect("accounts")
    users = User.objects.prefetch_related("groups").order_by("-is_active", "username")
    return render(request, "station/accounts/accounts.html", {"form": form, "accounts": users})


@right_required("administer")
@sensitive_post_parameters()
@never_cache
def change_account(request: HttpRequest, user: int) -> HttpResponse:
    """Shows the form for changes to one account. A POST request changes its role, its password or its permission to log in."""
    edited = get_object_or_404(User, pk=user)
    form = ChangeAccountForm(edited, request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            changes = form.save()
            if changes:
                AuditEntry.record(request.user, "account changed", edited.username, changed=changes)
        if edited == request.user and form.cleaned_data["password"]:
            update_session_auth_hash(request, edited)
        messages.success(request, f"{edited.username}: {', '.join(changes) or 'nothing was changed'}.")
        return redirect("accounts")
    return render(request, "station/accounts/change.html", {"form": form, "edited": edited})


@right_required("administer")
def audit_log(request: HttpRequest) -> HttpResponse:
    """Shows the audit log, newest entries first. The query parameters `who` and `action` filter the entries."""
    entries = AuditEntry.objects.all()
    filters = {name: request.GET.get(name, "").strip() for name in ("who", "action")}
    for name, text in filters.items():
        if text:
            # No entry contains a control character, and PostgreSQL raises an error if it must search for a null character.
            entries = entries.filter(**{f"{name}__icontains": text}) if text.isprintable() else entries.none()
    page = Paginator(entries, _ENTRIES_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "station/accounts/audit.html", {"page": page, "filters": filters})
