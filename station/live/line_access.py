"""Says which lines a person is allowed to see."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from station.accounts.access import get_rights
from station.configuration import current_settings


def may_see_line(user: AbstractBaseUser | AnonymousUser, line: str) -> bool:
    """Returns whether `user` is allowed to see all parts of a line. Only administrators see all uploaded pictures."""
    return line != current_settings().station.upload_line or "administer" in get_rights(user)
