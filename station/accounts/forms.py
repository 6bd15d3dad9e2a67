"""The forms of the account pages: a new API token, a new account, and changes to an account."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from station.accounts.access import ROLES, assign_role, end_sessions, get_role
from station.accounts.models import TOKEN_LIFETIMES, ApiToken
from station.accounts.second_factor import has_second_factor, remove_second_factor

_ROLE_CHOICES = [(role, role) for role in ROLES]


class TokenForm(forms.Form):
    """The form for a new API token."""

    name = forms.CharField(max_length=80, label="Program", help_text="Name the program or the machine that will use the token.")
    scope = forms.ChoiceField(choices=[("inspect", "send pictures and read verdicts"), ("read", "only read verdicts")], label="May")
    days = forms.TypedChoiceField(
        choices=[(lifetime.days, f"{lifetime.days} days") for lifetime in TOKEN_LIFETIMES], coerce=int, initial=90, label="Ends after"
    )


class NewAccountForm(UserCreationForm):  # type: ignore[type-arg]
    """The form for a new account with its role."""

    role = forms.ChoiceField(choices=_ROLE_CHOICES, label="Role")

    class Meta:
        model = User
        fields: ClassVar = ["username"]
        labels: ClassVar = {"username": "Name"}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Most people open the page of accounts to read the list, so the browser must not jump to the form for a new account.
        self.fields["username"].widget.attrs.pop("autofocus", None)

    def save(self, commit: bool = True) -> User:
        with transaction.atomic():
            user: User = super().save(commit)
            assign_role(user, self.cleaned_data["role"])
        return user


class ChangeAccountForm(forms.Form):
    """The form that changes an account: its role, its password, and whether it is allowed to log in."""

    role = forms.ChoiceField(choices=_ROLE_CHOICES, label="Role")
    is_active = forms.BooleanField(required=False, label="May log in")
    password = forms.CharField(
        required=False,
        strip=False,
        label="New password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Leave this field empty to keep the present password. A new password ends all API tokens of the account.",
    )
    without_second_factor = forms.BooleanField(required=False, label="Remove the second factor, because the phone is lost")

    def __init__(self, user: User, *arguments: object, **named: object) -> None:
        self._user = user
        named.setdefault("initial", {"role": get_role(user), "is_active": user.is_active})
        super().__init__(*arguments, **named)  # type: ignore[arg-type]

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if password:
            validate_password(password, self._user)
        return password

    def clean(self) -> dict[str, object]:
        cleaned = super().clean() or {}
        stays_administrator = cleaned.get("role") == "administrator" and cleaned.get("is_active")
        if not stays_administrator and get_role(self._user) == "administrator" and not _has_other_administrator(self._user):
            raise ValidationError("This is the last account that administers the station. Make another administrator first.")
        return cleaned

    def save(self) -> list[str]:
        """Writes the changes to the account and returns a phrase for each change, such as "new password"."""
        user, cleaned = self._user, self.cleaned_data
        changes: list[str] = []
        with transaction.atomic():
            if cleaned["role"] != get_role(user):
                changes.append(f"role {get_role(user) or 'none'} to {cleaned['role']}")
                assign_role(user, cleaned["role"])
            if cleaned["is_active"] != user.is_active:
                changes.append("may log in" if cleaned["is_active"] else "may not log in")
                user.is_active = cleaned["is_active"]
            if cleaned["password"]:
                changes.append("new password")
                user.set_password(cleaned["password"])
                ended = ApiToken.revoke_all(user)
                changes += [f"{ended} API tokens ended"] if ended else []
            if cleaned["without_second_factor"] and has_second_factor(user):
                changes.append("second factor removed")
                remove_second_factor(user)
                # The second factor is removed if a phone is lost. Somebody may have found the phone and still be logged in on it.
                end_sessions(user)
            user.save(update_fields=["is_active", *(["password"] if cleaned["password"] else [])])
        return changes


def _has_other_administrator(user: User) -> bool:
    return User.objects.filter(is_active=True, groups__name="administrator").exclude(pk=user.pk).exists()
