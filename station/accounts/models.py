"""The tables that Castline adds to Django's accounts: API tokens and the audit log."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import models
from django.utils import timezone

# People and secret scanners recognise a leaked token by this prefix.
_TOKEN_PREFIX = "castline_"
_USED_AT_PRECISION = timedelta(minutes=1)
_MAX_WHO = 150
_MAX_SUBJECT = 255


class ApiToken(models.Model):
    """A secret text that lets a program call the API in the name of an account.

    The text is shown once. The table holds only its SHA-256.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    sha256 = models.CharField(max_length=64, unique=True)
    made_at = models.DateTimeField(auto_now_add=True)
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.user}: {self.name}"

    @classmethod
    def issue(cls, user: User, name: str) -> tuple[ApiToken, str]:
        """Makes a token with which the program `name` acts for `user`. Returns the token's row and text.

        The caller must show the text now, because only its hash is stored.
        """
        text = _TOKEN_PREFIX + secrets.token_urlsafe(32)
        return cls.objects.create(user=user, name=name, sha256=_hash(text)), text

    @classmethod
    def find_owner(cls, text: str) -> User | None:
        """Returns the account that the token `text` belongs to, and updates the time of the token's last use.

        Returns None if the token is unknown or revoked, or if the account is no longer allowed to log in.
        """
        token = cls.objects.select_related("user").filter(sha256=_hash(text), user__is_active=True).first()
        if token is None:
            return None
        now = timezone.now()
        if token.used_at is None or now - token.used_at > _USED_AT_PRECISION:
            cls.objects.filter(pk=token.pk).update(used_at=now)
        return token.user


class AuditEntry(models.Model):
    """One entry of the audit log: an action of a person, such as a change of an account. The station never changes an entry."""

    at = models.DateTimeField(auto_now_add=True)
    # The name of the account, not a foreign key, so that the entry remains if the account is deleted.
    who = models.CharField(max_length=_MAX_WHO)
    action = models.CharField(max_length=64)
    subject = models.CharField(max_length=_MAX_SUBJECT)
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        indexes: ClassVar = [models.Index(fields=["-at", "-id"], name="audit_at")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.who} {self.action} {self.subject}"

    @classmethod
    def record(cls, user: AbstractBaseUser | AnonymousUser | None, action: str, subject: str, **detail: object) -> None:
        """Writes an entry to the audit log. For a new token, `action` is "token made" and `subject` is the name of the token.

        `detail` must be JSON-serialisable. Call this method in the same transaction as the change itself.
        """
        who = user.get_username() if user is not None and user.is_authenticated else "castline"
        cls.objects.create(who=who[:_MAX_WHO], action=action, subject=subject[:_MAX_SUBJECT], detail=detail)


def _hash(text: str) -> str:
    # A fast hash without salt is safe, because a token has 256 random bits and cannot be guessed.
    return hashlib.sha256(text.encode()).hexdigest()
