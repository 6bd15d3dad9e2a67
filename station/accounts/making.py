"""Accounts made from the command line: the first administrator, and the demo's."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction

from station.accounts import audit
from station.accounts.access import RIGHTS, Role
from station.accounts.forms import give_role
from streams.errors import SettingsError


def make_account(name: str, role: str, password: str) -> str:
    """Makes the account, or changes its role and password; returns which. It may log in.

    Raises SettingsError: for a name or a password that the rules do not allow.
    """
    known: Role | None = next((one for one in RIGHTS if one == role), None)
    if known is None:
        raise SettingsError(f"expected a role of {', '.join(RIGHTS)}, found {role!r}")
    with transaction.atomic():
        user = User.objects.filter(username=name).first()
        changed = user is not None
        user = user or User(username=name)
        try:
            UnicodeUsernameValidator()(name)
            validate_password(password, user)
        except ValidationError as error:
            raise SettingsError(" ".join(error.messages)) from None
        user.set_password(password)
        user.is_active = True
        user.save()
        give_role(user, known)
        audit.note(None, "account changed" if changed else "account made", name, role=role, by="command line")
    return "changed" if changed else "made"
