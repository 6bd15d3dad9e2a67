"""Which written parts are offered to people: called by the archive's keeper with each batch, and by hand for one part."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from station.archive.models import Part
from station.reviews.interest import Interest, Known, interest
from station.reviews.models import Candidate
from streams.identity import PartId
from streams.settings import ReviewSettings, Settings


def interest_of(part: Part, review: ReviewSettings) -> Interest:
    """The interest of one row of the archive."""
    known = Known(
        PartId(part.line, part.run, part.part),
        part.label,
        part.defect_probability,
        part.threshold,
        part.votes,
        part.reason,
        part.sorted_reason,
    )
    return interest(known, review.least_doubt, review.audit_share, review.audit_seed)


def wanted(parts: Iterable[Part], settings: Settings) -> list[tuple[Part, Interest]]:
    """Those of `parts` that a person should look at. Uploaded pictures are their owners' and offered to nobody."""
    found = []
    for part in parts:
        if part.line == settings.station.upload_line or part.review_label:
            continue
        one = interest_of(part, settings.review)
        if one.score > 0:
            found.append((part, one))
    return found


def offer(parts: Iterable[tuple[Part, Interest]]) -> None:
    """Puts parts that are `wanted` into the queue. Their rows must be in the table.

    Repeats are free: a part that waits already gets its newer score, one that is settled stays settled.
    """
    rows = [Candidate(part=part, score=one.score, why=one.why[:400], audit=one.audit, since=part.seen_at) for part, one in parts]
    # A sorting may be written before its verdict: then the part was without a verdict only for that moment.
    Candidate.objects.bulk_create(rows, update_conflicts=True, unique_fields=["part"], update_fields=["score", "why", "audit"])


def ask_for(part: Part, at: datetime) -> Candidate:
    """The candidate of `part`; made where the queue had not asked for it, since a person does."""
    found, _ = Candidate.objects.get_or_create(
        part=part, defaults={"score": 0.0, "why": "asked for by a person", "since": at, "state": "settled"}
    )
    return found
