"""Whose an uploaded picture is: who sent it sees it, and an administrator; for anybody else it is not there."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import QuerySet

from station.accounts.access import get_rights
from station.configuration import castline
from station.uploads.models import Upload


def own(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Upload]:
    """The uploads that `user` may see."""
    if "administer" in get_rights(user):
        return Upload.objects.all()
    return Upload.objects.filter(owner_id=user.pk) if user.pk is not None else Upload.objects.none()


def visible(user: AbstractBaseUser | AnonymousUser, line: str, run: int, part: int) -> bool:
    """Whether `user` may see this part. Parts of the plant's lines are for all who may look."""
    if line != castline().station.upload_line:
        return True
    if "administer" in get_rights(user):
        return True
    try:
        return own(user).filter(pk=part, run=run).exists()
    except OverflowError:  # a number that no database holds
        return False
