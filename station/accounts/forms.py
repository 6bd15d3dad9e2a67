"""What people fill in about accounts."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from station.accounts.access import ROLES, Role, role_of

_CHOICES = [(role, role) for role in ROLES]


class TokenForm(forms.Form):
    """A new API token."""

    name = forms.CharField(max_length=80, label="Program", help_text="What the token is for, such as the name of the machine.")


class NewAccountForm(UserCreationForm):  # type: ignore[type-arg]  # generic for the type checker only
    """A new account, with its role."""

    role = forms.ChoiceField(choices=_CHOICES, label="Role")

    class Meta:
        model = User
        fields: ClassVar = ["username"]
        labels: ClassVar = {"username": "Name"}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # The form stands beside the list: who comes for the list is not led into it.
        self.fields["username"].widget.attrs.pop("autofocus", None)

    def save(self, commit: bool = True) -> User:
        with transaction.atomic():
            user: User = super().save(commit)
            give_role(user, self.cleaned_data["role"])
        return user


class ChangeAccountForm(forms.Form):
    """Role, whether the account may log in, and a new password where one is given."""

    role = forms.ChoiceField(choices=_CHOICES, label="Role")
    is_active = forms.BooleanField(required=False, label="May log in")
    password = forms.CharField(
        required=False,
        strip=False,
        label="New password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Leave empty to keep the present one.",
    )

    def __init__(self, user: User, *arguments: object, **named: object) -> None:
        self._user = user
        named.setdefault("initial", {"role": role_of(user), "is_active": user.is_active})
        super().__init__(*arguments, **named)  # type: ignore[arg-type]

    def clean_password(self) -> str:
        given: str = self.cleaned_data["password"]
        if given:
            validate_password(given, self._user)
        return given

    def clean(self) -> dict[str, object]:
        found = super().clean() or {}
        stays = found.get("role") == "administrator" and found.get("is_active")
        if not stays and role_of(self._user) == "administrator" and not _others_administer(self._user):
            raise ValidationError("This is the last account that administers the station: make another one first.")
        return found

    def save(self) -> list[str]:
        """Changes the account; returns what was changed, in words."""
        user, given, changed = self._user, self.cleaned_data, []
        with transaction.atomic():
            if given["role"] != role_of(user):
                changed.append(f"role {role_of(user) or 'none'} to {given['role']}")
                give_role(user, given["role"])
            if given["is_active"] != user.is_active:
                changed.append("may log in" if given["is_active"] else "may not log in")
                user.is_active = given["is_active"]
            if given["password"]:
                changed.append("new password")
                user.set_password(given["password"])
            user.save()
        return changed


def give_role(user: User, role: Role) -> None:
    """`user` has `role` and no other."""
    user.groups.set([Group.objects.get(name=role)])
    if hasattr(user, "_castline_role"):
        del user._castline_role


def _others_administer(user: User) -> bool:
    return User.objects.filter(is_active=True, groups__name="administrator").exclude(pk=user.pk).exists()
