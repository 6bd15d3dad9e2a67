"""Decides who is allowed to do what: the roles, their rights, and the check before each page.

A role is a Django group of the same name. `RIGHTS` lists the rights of each role.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar, cast, get_args

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, User
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.contrib.auth.views import redirect_to_login
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render

from station.accounts.models import ApiToken, AuditEntry
from station.configuration import current_settings
from streams.errors import SettingsError

Right = Literal[
    "look", "upload", "review", "choose", "set lines", "make studies", "show golden parts", "acknowledge faults", "move gates", "administer"
]
Role = Literal["operator", "reviewer", "engineer", "administrator"]

RIGHTS: dict[Role, frozenset[Right]] = {
    "operator": frozenset({"look", "show golden parts", "acknowledge faults"}),
    "reviewer": frozenset({"look", "show golden parts", "acknowledge faults", "review", "upload"}),
    "engineer": frozenset(get_args(Right)) - {"administer"},
    "administrator": frozenset(get_args(Right)),
}
# The roles are ordered from the fewest rights to the most.
ROLES: tuple[Role, ...] = get_args(Role)

RIGHT_DESCRIPTIONS: dict[Right, str] = {
    "look": "look at the castings of the plant",
    "upload": "upload pictures",
    "review": "review parts",
    "choose": "choose model versions",
    "set lines": "change the settings of lines",
    "make studies": "make agreement studies",
    "show golden parts": "record that a golden part was shown",
    "acknowledge faults": "acknowledge faults of gates",
    "move gates": "test gates and pause lines",
    "administer": "administer accounts",
}

View = TypeVar("View", bound=Callable[..., Any])


def get_rights(user: AbstractBaseUser | AnonymousUser) -> frozenset[Right]:
    """Returns the rights of the user's role, or an empty set if the user has no role."""
    role = get_role(user)
    return RIGHTS[role] if role else frozenset()


def get_role(user: AbstractBaseUser | AnonymousUser) -> Role | None:
    """Returns the user's role, or None if the user is not logged in or has no role.

    If the user has several roles, returns the role with the most rights.
    """
    if not isinstance(user, User) or not user.is_active:
        return None
    if not hasattr(user, "_castline_role"):
        names = set(user.groups.values_list("name", flat=True))
        user._castline_role = next((role for role in reversed(ROLES) if role in names), None)  # type: ignore[attr-defined]
    role: Role | None = user._castline_role  # type: ignore[attr-defined]
    return role


def assign_role(user: User, role: Role) -> None:
    """Gives the user `role` and removes all other roles of the user."""
    user.groups.set([Group.objects.get(name=role)])
    if hasattr(user, "_castline_role"):
        del user._castline_role


def end_sessions(user: User) -> None:
    """Ends all sessions of `user`. The password stays the same."""
    for session in Session.objects.iterator():
        if session.get_decoded().get(SESSION_KEY) == str(user.pk):
            session.delete()


def create_or_update_account(name: str, role: str, password: str) -> str:
    """Creates the account `name`. If the account exists, changes its role and password. Returns "made" or "changed".

    A new password revokes all API tokens of the account, because a person who knew the old password may have made them.
    Raises SettingsError if the role does not exist, or if the name or the password is not allowed.
    """
    known_role: Role | None = next((known for known in RIGHTS if known == role), None)
    if known_role is None:
        raise SettingsError(f"There is no role {role!r}. Choose one of {', '.join(RIGHTS)}.")
    with transaction.atomic():
        user = User.objects.filter(username=name).first()
        existed = user is not None
        user = user or User(username=name)
        try:
            UnicodeUsernameValidator()(name)
            # Check the rules for passwords only if the password is new. An update of Castline may add a rule that the present password
            # breaks. A script that creates the same account again must not fail then.
            is_new = not (existed and user.check_password(password))
            if is_new:
                validate_password(password, user)
        except ValidationError as error:
            raise SettingsError(" ".join(error.messages)) from None
        if existed and is_new:
            ApiToken.revoke_all(user)
        user.set_password(password)
        user.is_active = True
        user.save()
        assign_role(user, known_role)
        AuditEntry.record(None, "account changed" if existed else "account made", name, role=role, by="command line")
    return "changed" if existed else "made"


def right_required(right: Right) -> Callable[[View], View]:
    """Returns a decorator for a view. Only users who have `right` are allowed to open the view.

    A user who is not logged in is sent to the log-in page. A user without the right gets an error page with status 403.
    """

    def check(request: HttpRequest) -> HttpResponse | None:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if right in get_rights(request.user):
            return None
        sentence = f"This account is not allowed to {RIGHT_DESCRIPTIONS[right]}. Ask an administrator for a role that is allowed to."
        return render_error_page(request, 403, "Not allowed", sentence)

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded_coroutine(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponseBase:
                response: HttpResponseBase = await sync_to_async(check)(request) or await view(request, *args, **kwargs)
                return response

            return cast(View, guarded_coroutine)

        @wraps(view)
        def guarded(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return check(request) or view(request, *args, **kwargs)

        return cast(View, guarded)

    return decorate


def render_error_page(request: HttpRequest, status: int, title: str, sentence: str) -> HttpResponse:
    """Returns an error page with the HTTP status `status`. The page shows the `title`, and `sentence` as the reason."""
    return render(request, "station/refusal.html", {"title": title, "sentence": sentence}, status=status)


def may_see_line(user: AbstractBaseUser | AnonymousUser, line: str) -> bool:
    """Returns whether `user` is allowed to see all parts of `line`.

    Uploaded pictures belong to a line of their own. Only administrators see all parts of that line.
    """
    return line != current_settings().station.upload_line or "administer" in get_rights(user)
