"""The pages about accounts: one's own, everybody's, and what was done."""

from __future__ import annotations

from typing import get_args

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from station.accounts import audit, tokens
from station.accounts.access import Right, needs, rights, role_of
from station.accounts.forms import ChangeAccountForm, NewAccountForm, TokenForm
from station.accounts.models import ApiToken, AuditEntry

_ENTRIES_A_PAGE = 100


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


@login_required
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    """One's own account: role, password, tokens."""
    return _account(request, TokenForm())


def _account(request: HttpRequest, form: TokenForm, made: str = "", status: int = 200) -> HttpResponse:
    me = _me(request)
    may = [right for right in get_args(Right) if right in rights(me)]
    tokens_of_mine = ApiToken.objects.filter(user=me).order_by("-made_at")
    content = {"form": form, "made": made, "role": role_of(me), "may": ", ".join(may), "tokens": tokens_of_mine}
    return render(request, "station/accounts/account.html", content, status=status)


@login_required
@sensitive_post_parameters()
@never_cache
def password(request: HttpRequest) -> HttpResponse:
    """Changes one's own password; other log-ins of the account end."""
    form = PasswordChangeForm(_me(request), request.POST or None)
    if request.method == "POST" and form.is_valid():
        update_session_auth_hash(request, form.save())
        audit.note(request.user, "password changed", request.user.get_username())
        messages.success(request, "The password is changed. Other log-ins of this account have ended.")
        return redirect("account")
    return render(request, "station/accounts/password.html", {"form": form})


@login_required
@require_POST
@never_cache
def make_token(request: HttpRequest) -> HttpResponse:
    """Makes a token and shows it: this once, since only its hash is kept."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _account(request, form, status=422)
    token, text = tokens.make(_me(request), form.cleaned_data["name"])
    audit.note(request.user, "token made", token.name)
    return _account(request, TokenForm(), made=text)


@login_required
@require_POST
def revoke_token(request: HttpRequest, token: int) -> HttpResponse:
    """Revokes one of one's own tokens; another's does not exist for this page."""
    found = get_object_or_404(ApiToken, pk=token, user=_me(request))
    found.delete()
    audit.note(request.user, "token revoked", found.name)
    messages.success(request, f"The token for {found.name} is revoked.")
    return redirect("account")


@needs("administer")
@sensitive_post_parameters()
@never_cache
def accounts(request: HttpRequest) -> HttpResponse:
    """Everybody's accounts, and a form for a new one."""
    form = NewAccountForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = form.save()
        audit.note(request.user, "account made", made.username, role=form.cleaned_data["role"])
        messages.success(request, f"The account {made.username} is made.")
        return redirect("accounts")
    everybody = User.objects.prefetch_related("groups").order_by("-is_active", "username")
    return render(request, "station/accounts/accounts.html", {"form": form, "accounts": everybody})


@needs("administer")
@sensitive_post_parameters()
@never_cache
def change_account(request: HttpRequest, user: int) -> HttpResponse:
    """Changes role, permission to log in, or password of one account."""
    changed = get_object_or_404(User, pk=user)
    form = ChangeAccountForm(changed, request.POST or None)
    if request.method == "POST" and form.is_valid():
        done = form.save()
        if done:
            audit.note(request.user, "account changed", changed.username, changed=done)
        if changed == request.user and form.cleaned_data["password"]:
            update_session_auth_hash(request, changed)
        messages.success(request, f"{changed.username}: {', '.join(done) or 'nothing was changed'}.")
        return redirect("accounts")
    return render(request, "station/accounts/change.html", {"form": form, "changed": changed})


@needs("administer")
def audit_log(request: HttpRequest) -> HttpResponse:
    """Who did what, newest first; `who` and `action` narrow it."""
    entries = AuditEntry.objects.all()
    wanted = {name: request.GET.get(name, "").strip() for name in ("who", "action")}
    for name, value in wanted.items():
        if value:
            entries = entries.filter(**{f"{name}__icontains": value})
    page = Paginator(entries, _ENTRIES_A_PAGE).get_page(request.GET.get("page"))
    return render(request, "station/accounts/audit.html", {"page": page, "wanted": wanted})
