"""The review queue chooses which part a person gets next.

Two people never review the same part at the same time, and nobody reviews a part twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet

from station.reviews.models import Candidate, Decision
from streams import metrics
from streams.settings import Settings

_WAITING_STATES = ("third", "second", "open")
_LEASE_ATTEMPTS = 20
MAX_COUNTED = 10_000


def claim_candidates(user: User, settings: Settings, now: datetime, count: int = 2) -> list[Candidate]:
    """Reserves parts for `user` until the user has `count` parts, or until no part is free. Returns the reserved parts.

    Takes parts that need a third opinion first, then parts that need a second opinion, then the parts with the highest score. The default
    is two parts, so that the browser can load the picture of the next part in advance.
    """
    until = now + timedelta(minutes=settings.review.lease_minutes)
    claimed = find_claimed(user, settings, now, count)
    for state in _WAITING_STATES:
        if len(claimed) >= count:
            break
        free = _waiting_for(user, settings, now).filter(state=state).exclude(leased_until__gt=now).order_by("-score", "-id")
        for candidate in free[:_LEASE_ATTEMPTS]:
            if len(claimed) >= count:
                break
            if _lease(candidate, user, now, until):
                claimed.append(candidate)
    return claimed


def find_claimed(user: User, settings: Settings, now: datetime, count: int = 2) -> list[Candidate]:
    """Returns up to `count` parts that are already reserved for `user`, ordered by the time at which the reservation ends."""
    own = _waiting_for(user, settings, now).filter(leased_by=user.username, leased_until__gt=now)
    return list(own.order_by("leased_until", "-score", "-id")[:count])


def is_claimed(candidate: Candidate, user: User, now: datetime) -> bool:
    """Returns whether `candidate` is reserved for `user`."""
    return candidate.leased_by == user.username and candidate.leased_until is not None and candidate.leased_until > now


def has_free_candidates(user: User, settings: Settings, now: datetime) -> bool:
    """Returns whether the queue has a part that `user` can reserve."""
    return _waiting_for(user, settings, now).exclude(leased_until__gt=now).exists()


def claim_candidate(candidate: Candidate, user: User, settings: Settings, now: datetime) -> bool:
    """Reserves `candidate` for `user` for some minutes. Returns False if another person is reviewing the same part."""
    return _lease(candidate, user, now, now + timedelta(minutes=settings.review.lease_minutes))


def _lease(candidate: Candidate, user: User, now: datetime, until: datetime) -> bool:
    # One UPDATE both checks and reserves the part. If two people ask at the same moment, only one of them gets the part.
    free_or_own = Q(leased_by=user.username) | Q(leased_until=None) | Q(leased_until__lte=now)
    updated = Candidate.objects.filter(free_or_own, pk=candidate.pk).update(leased_by=user.username, leased_until=until)
    return bool(updated)


def _waiting_for(user: User, settings: Settings, now: datetime) -> QuerySet[Candidate]:
    own_decisions = Decision.objects.filter(part=OuterRef("part"), reviewer=user, undone_at=None)
    return waiting_candidates(settings, now).filter(~Exists(own_decisions)).select_related("part")


def waiting_candidates(settings: Settings, now: datetime) -> QuerySet[Candidate]:
    """Returns the parts that need a review and still have a picture in the object store or on the image topic.

    Leaves out uploads, because only the sender and administrators are allowed to see an upload.
    """
    expired_at = now - timedelta(hours=settings.topics.image_hours)
    has_picture = ~Q(part__picture="") | Q(part__seen_at__gt=expired_at)
    return Candidate.objects.filter(has_picture, state__in=_WAITING_STATES).exclude(part__line=settings.station.upload_line)


def count_waiting(settings: Settings, now: datetime) -> dict[str, int]:
    """Returns how many parts wait for a first, second or third opinion. Counting stops at MAX_COUNTED parts in total."""
    first = waiting_candidates(settings, now).values("pk")[:MAX_COUNTED]
    counts = Candidate.objects.filter(pk__in=first).values_list("state").annotate(count=Count("pk")).order_by()
    return dict.fromkeys(_WAITING_STATES, 0) | dict(counts)


def find_oldest(settings: Settings, now: datetime) -> datetime | None:
    """Returns the time at which the longest wait in the review queue began, or None if no part waits."""
    since: datetime | None = waiting_candidates(settings, now).aggregate(since=Min("since"))["since"]
    return since


def update_metrics(settings: Settings, now: datetime) -> None:
    """Sets the Prometheus metrics of the review queue: how many parts wait, and the longest wait in seconds.

    Raises django.db.DatabaseError if the database does not answer.
    """
    for state, count in count_waiting(settings, now).items():
        metrics.review_queue_parts.labels(state).set(count)
    since = find_oldest(settings, now)
    metrics.review_queue_oldest_seconds.set(max(0.0, (now - since).total_seconds()) if since else 0)
    metrics.review_overdue_seconds.set(settings.review.overdue_hours * 3600)
