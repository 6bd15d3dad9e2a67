"""Lets time pass for the delays after wrong passwords and codes."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F

from station.accounts.models import LogInDelay


def later(seconds: float) -> None:
    """Moves all failures into the past, as if so many seconds had passed.

    With -60, they lie in the future, as if the clock had been set back. The next attempt then takes them for failures of just now, so that
    a slow machine changes no result.
    """
    LogInDelay.objects.update(failed_at=F("failed_at") - timedelta(seconds=seconds))
