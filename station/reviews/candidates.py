"""Selects the parts that a person should review. Each reason for a review has a score, and the scores of a part are added.

For example, the doubt of the model adds at most 1 to the score, and the verdict `review` adds 0.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from station.archive.models import REASONS_WITHOUT_VERDICT, Part
from station.reviews.models import Candidate
from streams.records import compute_disagreement, select_network_votes
from streams.settings import ReviewSettings, Settings

MAX_DOUBT = 0.5
_SCORE_OF_REVIEW = 0.3
_SCORE_WITHOUT_VERDICT = 0.5
_SCORE_OF_RANDOM_CHECK = 0.05


@dataclass(frozen=True)
class ReviewPriority:
    """The priority of a part in the review queue. `score` is 0 if there is no reason for a review.

    `why` gives the reasons in words. `audit` is true if the part was picked at random for a review.
    """

    score: float
    why: str
    audit: bool = False


def rate_part(part: Part, review: ReviewSettings) -> ReviewPriority:
    """Returns the priority of `part` for a review: its score and the reasons."""
    reasons: list[tuple[float, str]] = []
    doubt = compute_doubt(part.defect_probability, part.threshold)
    if doubt is not None and (doubt >= review.least_doubt or part.label == "review"):
        reasons.append((2 * doubt, f"the model is in doubt ({doubt:.2f} of {MAX_DOUBT:.2f})"))
    distance = compute_disagreement(part.votes, part.threshold)
    if distance is not None:
        votes = ", ".join(f"{network} {vote:.2f}" for network, vote in select_network_votes(part.votes).items())
        reasons.append((distance / 2, f"the networks disagree ({votes})"))
    if part.label == "review":
        cause = f" ({part.reason})" if part.reason else ""
        reasons.append((_SCORE_OF_REVIEW, f"the model leaves the part to a person{cause}"))
    if part.sorted_reason in REASONS_WITHOUT_VERDICT:
        reasons.append((_SCORE_WITHOUT_VERDICT, f"the part was sorted without a verdict ({part.sorted_reason})"))
    audit = is_picked_at_random(part, review.audit_share, review.audit_seed)
    if audit:
        reasons.append((_SCORE_OF_RANDOM_CHECK, "random check"))
    return ReviewPriority(round(sum(score for score, _ in reasons), 4), "; ".join(why for _, why in reasons), audit)


def compute_doubt(defect_probability: float | None, threshold: float | None) -> float | None:
    """Returns the doubt about a part, 0..0.5, or None if the part was not judged.

    The doubt is 0.5 if the defect probability equals the threshold, and 0 if the defect probability is 0 or 1. Between these values, the
    doubt changes linearly.
    """
    if defect_probability is None or threshold is None:
        return None
    side = threshold if defect_probability < threshold else 1 - threshold
    return MAX_DOUBT * (1 - abs(defect_probability - threshold) / side) if side > 0 else MAX_DOUBT


def is_picked_at_random(part: Part, share: float, seed: int) -> bool:
    """Returns whether `part` is picked at random for a review. If `share` is 0.01, one part in a hundred is picked on average.

    The result depends only on the part id, `share` and `seed`. So every machine picks the same parts.
    """
    digest = hashlib.sha256(f"{seed}|{part}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


class CandidateQueue:
    """Selects parts for a review and adds them to the review queue. The archivist uses this class."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def select(self, parts: Iterable[Part]) -> list[tuple[Part, ReviewPriority]]:
        """Returns the parts that a person should review, each with its priority. Leaves out uploads and reviewed parts."""
        selected = []
        for part in parts:
            if part.line == self._settings.station.upload_line or part.review_label:
                continue
            priority = rate_part(part, self._settings.review)
            if priority.score > 0:
                selected.append((part, priority))
        return selected

    def add(self, selected: Iterable[tuple[Part, ReviewPriority]]) -> None:
        """Adds parts to the review queue. For a part that is already in the queue, updates only the priority."""
        rows = [
            Candidate(part=part, score=priority.score, why=priority.why[:400], audit=priority.audit, since=part.seen_at)
            for part, priority in selected
        ]
        # The priority of a part that is already in the queue can change, for example when a late verdict arrives.
        Candidate.objects.bulk_create(rows, update_conflicts=True, unique_fields=["part"], update_fields=["score", "why", "audit"])


def get_or_add_candidate(part: Part, at: datetime) -> Candidate:
    """Returns the entry of `part` in the review queue. If there is no entry, adds one."""
    defaults = {"score": 0.0, "why": "a person opened the part", "since": at, "state": "settled"}
    candidate, _ = Candidate.objects.get_or_create(part=part, defaults=defaults)
    return candidate
