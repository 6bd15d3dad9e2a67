"""Who is shown which part next. A part is before one person at a time; nobody is asked about a part twice."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet

from station.archive.models import Part
from station.reviews.models import Candidate, Decision
from streams.settings import Settings

# The order in which the states are served: who waits for a second or third opinion has been looked at already.
_STATES = ("third", "second", "open")
# A claim that another person wins is tried again with the next part.
_TRIES = 20
# Counted no further: a queue so long is a matter of the settings, not of one part.
MOST_COUNTED = 10_000


def claim(user: User, settings: Settings, now: datetime, wanted: int = 2) -> list[Candidate]:
    """Up to `wanted` parts for `user`, most informative first, held for them until their lease ends: the one before them and the one
    that their browser fetches meanwhile. Parts that they hold already come first.
    """
    until = now + timedelta(minutes=settings.review.lease_minutes)
    held = list(
        _waiting(user, settings, now)
        .filter(leased_by=user.username, leased_until__gt=now)
        .order_by("leased_until", "-score", "-id")[:wanted]
    )
    for state in _STATES:
        if len(held) >= wanted:
            break
        free = _waiting(user, settings, now).filter(state=state).exclude(leased_until__gt=now).order_by("-score", "-id")
        for candidate in free[:_TRIES]:
            if len(held) >= wanted:
                break
            if _lease(candidate, user, now, until):
                held.append(candidate)
    return held


def hold(candidate: Candidate, user: User, settings: Settings, now: datetime) -> bool:
    """Holds one certain part for `user`; False where another person has it before them."""
    return _lease(candidate, user, now, now + timedelta(minutes=settings.review.lease_minutes))


def _lease(candidate: Candidate, user: User, now: datetime, until: datetime) -> bool:
    """One statement, so that of two people who ask at the same moment one gets it."""
    mine_or_free = Q(leased_by=user.username) | Q(leased_until=None) | Q(leased_until__lte=now)
    won = Candidate.objects.filter(mine_or_free, pk=candidate.pk).update(leased_by=user.username, leased_until=until)
    return bool(won)


def _waiting(user: User, settings: Settings, now: datetime) -> QuerySet[Candidate]:
    answered = Decision.objects.filter(part=OuterRef("part"), reviewer=user, undone_at=None)
    return unsettled(settings, now).filter(~Exists(answered)).select_related("part")


def unsettled(settings: Settings, now: datetime) -> QuerySet[Candidate]:
    """Parts that wait for a person and whose picture can be shown: it is kept, or still on its topic."""
    gone = now - timedelta(hours=settings.topics.image_hours)
    shown = ~Q(part__picture="") | Q(part__seen_at__gt=gone)
    return Candidate.objects.filter(shown, state__in=_STATES)


def lengths(settings: Settings, now: datetime) -> dict[str, int]:
    """How many parts wait in each state, counted up to MOST_COUNTED together."""
    some = unsettled(settings, now).values("pk")[:MOST_COUNTED]
    counted = Candidate.objects.filter(pk__in=some).values_list("state").annotate(many=Count("pk")).order_by()
    return dict.fromkeys(_STATES, 0) | dict(counted)


def oldest(settings: Settings, now: datetime) -> datetime | None:
    """Since when the longest-waiting part waits; None where none does."""
    found: datetime | None = unsettled(settings, now).aggregate(since=Min("since"))["since"]
    return found


def of_part(part: Part) -> list[Decision]:
    """The decisions on `part` that were not taken back, oldest first."""
    return list(Decision.objects.filter(part=part, undone_at=None).select_related("reviewer").order_by("at", "pk"))
