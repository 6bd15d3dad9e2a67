"""The audit log: who did what to what."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from station.accounts.models import AuditEntry

_NAME_LENGTH, _SUBJECT_LENGTH = 150, 255


def note(user: AbstractBaseUser | AnonymousUser | None, action: str, subject: str, **detail: object) -> None:
    """Writes that `user` (None: the machine itself) did `action` to `subject`. `detail` must be fit for JSON.

    Within a transaction it is kept or forgotten together with what it tells of.
    """
    who = user.get_username() if user is not None and user.is_authenticated else "castline"
    AuditEntry.objects.create(who=who[:_NAME_LENGTH], action=action, subject=subject[:_SUBJECT_LENGTH], detail=detail)
