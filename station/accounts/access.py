"""Who may do what: roles, their rights, and the check that stands before each page."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar, cast, get_args

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from station.accounts.refusals import forbidden

Right = Literal["look", "upload", "review", "choose", "administer"]
Role = Literal["operator", "reviewer", "engineer", "administrator"]

RIGHTS: dict[Role, frozenset[Right]] = {
    "operator": frozenset({"look"}),
    "reviewer": frozenset({"look", "review", "upload"}),
    "engineer": frozenset({"look", "review", "upload", "choose"}),
    "administrator": frozenset(get_args(Right)),
}
ROLES: tuple[Role, ...] = get_args(Role)

View = TypeVar("View", bound=Callable[..., Any])


def rights(user: AbstractBaseUser | AnonymousUser) -> frozenset[Right]:
    """What `user` may do: the rights of their role; none without one."""
    role = role_of(user)
    return RIGHTS[role] if role else frozenset()


def role_of(user: AbstractBaseUser | AnonymousUser) -> Role | None:
    """The role of `user`, the strongest where there are several; None for a stranger. Asks the database once a user object."""
    if not isinstance(user, User) or not user.is_active:
        return None
    if not hasattr(user, "_castline_role"):
        names = set(user.groups.values_list("name", flat=True))
        user._castline_role = next((role for role in reversed(ROLES) if role in names), None)  # type: ignore[attr-defined]
    role: Role | None = user._castline_role  # type: ignore[attr-defined]
    return role


def needs(right: Right) -> Callable[[View], View]:
    """Lets only those pass who have `right`: a stranger is sent to the log-in page, others get a page that says what is missing.

    For views and for coroutines that are views.
    """

    def refused(request: HttpRequest) -> HttpResponse | None:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        return None if right in rights(request.user) else forbidden(request, right)

    def guard(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded_coroutine(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponseBase:
                answer: HttpResponseBase = await sync_to_async(refused)(request) or await view(request, *args, **kwargs)
                return answer

            return cast(View, guarded_coroutine)

        @wraps(view)
        def guarded(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return refused(request) or view(request, *args, **kwargs)

        return cast(View, guarded)

    return guard
