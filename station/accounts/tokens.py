"""Tokens of programs that call the API: made, known again, revoked."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from station.accounts.models import ApiToken

# Tells people, and programs that search for leaked secrets, what it is.
_PREFIX = "castline_"
_TOUCH_AFTER = timedelta(minutes=1)


def make(user: User, name: str) -> tuple[ApiToken, str]:
    """A new token of `user` for the program `name`, and its text, which is nowhere kept."""
    text = _PREFIX + secrets.token_urlsafe(32)
    return ApiToken.objects.create(user=user, name=name, sha256=_hash(text)), text


def owner(text: str) -> User | None:
    """Whose token `text` is; None for a wrong or revoked one, and for that of an account that may no longer log in."""
    token = ApiToken.objects.select_related("user").filter(sha256=_hash(text), user__is_active=True).first()
    if token is None:
        return None
    now = timezone.now()
    # Once a minute is often enough to see which tokens are in use, and no write a request.
    if token.used_at is None or now - token.used_at > _TOUCH_AFTER:
        ApiToken.objects.filter(pk=token.pk).update(used_at=now)
    return token.user


def _hash(text: str) -> str:
    # Without salt or stretching: the text is 256 random bits, which nobody guesses.
    return hashlib.sha256(text.encode()).hexdigest()
