"""Selects the parts that a person should look at, and says why.

There are several reasons to look at a part, and each reason has a score. The score of a part is the sum of the scores of its reasons. Parts
with a high score are shown first, and parts without a reason are shown to nobody. These are the reasons:

- The model is in doubt. The doubt is 0.5 if the defect probability equals the threshold, and 0 if the probability is 0 or 1. The score is
  twice the doubt.
- The networks disagree: some give a probability below the threshold and some above. The score is half the distance between the lowest and
  the highest probability.
- The verdict is `review`. The score is 0.3, because the part was set aside and somebody waits for the answer.
- The gate had no verdict. The score is 0.5, because nobody knows whether a defective part has passed.
- The random check picked the part. The score is only 0.05, because the model is most likely right. But no other reason leads people to the
  defects that the model misses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from station.archive.models import REASONS_WITHOUT_VERDICT, Part
from station.reviews.models import Candidate
from streams.settings import ReviewSettings, Settings

MAX_DOUBT = 0.5
_SCORE_OF_REVIEW = 0.3
_SCORE_WITHOUT_VERDICT = 0.5
_SCORE_OF_RANDOM_CHECK = 0.05


@dataclass(frozen=True)
class ReviewPriority:
    """How useful it is that a person reviews a part.

    `score` is 0 if nobody should review the part. `why` gives the reasons in words. `audit` is true if the random check picked the part,
    whether or not there are other reasons.
    """

    score: float
    why: str
    audit: bool = False


def rate_part(part: Part, review: ReviewSettings) -> ReviewPriority:
    """Returns how useful it is that a person reviews `part`."""
    reasons: list[tuple[float, str]] = []
    doubt = compute_doubt(part.defect_probability, part.threshold)
    if doubt is not None and (doubt >= review.least_doubt or part.label == "review"):
        reasons.append((2 * doubt, f"the model is in doubt ({doubt:.2f} of {MAX_DOUBT:.2f})"))
    distance = compute_disagreement(part.votes, part.threshold)
    if distance is not None:
        votes = ", ".join(f"{network} {vote:.2f}" for network, vote in part.votes.items())
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

    The doubt is 0.5 if the probability is equal to the threshold, and falls linearly to 0 at the probabilities 0 and 1.
    """
    if defect_probability is None or threshold is None:
        return None
    side = threshold if defect_probability < threshold else 1 - threshold
    return MAX_DOUBT * (1 - abs(defect_probability - threshold) / side) if side > 0 else MAX_DOUBT


def compute_disagreement(votes: Mapping[str, float], threshold: float | None) -> float | None:
    """Returns how much the networks disagree about a part: their highest defect probability minus the lowest one.

    Returns None if all probabilities lie on the same side of the threshold, because the networks then agree about the label.
    """
    if threshold is None or len(votes) < 2:
        return None
    low, high = min(votes.values()), max(votes.values())
    return high - low if low < threshold <= high else None


def is_picked_at_random(part: Part, share: float, seed: int) -> bool:
    """Returns whether the random check picks `part`. For example, with `share` 0.01 it picks one part in a hundred on average.

    The choice depends only on the part id, `share` and `seed`. It is therefore the same on every machine, and nobody can predict it
    without the seed.
    """
    digest = hashlib.sha256(f"{seed}|{part}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


class CandidateQueue:
    """Adds parts to the review queue when the archivist writes them. Implements the protocol `station.archive.part_writer.ReviewQueue`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def select(self, parts: Iterable[Part]) -> list[tuple[Part, ReviewPriority]]:
        """Returns the parts that a person should look at, with their priorities. Leaves out uploaded pictures and reviewed parts."""
        selected = []
        for part in parts:
            if part.line == self._settings.station.upload_line or part.review_label:
                continue
            priority = rate_part(part, self._settings.review)
            if priority.score > 0:
                selected.append((part, priority))
        return selected

    def add(self, selected: Iterable[tuple[Part, ReviewPriority]]) -> None:
        """Adds parts to the review queue. Their rows must be in the table of parts.

        Parts may be added again: a part that is in the queue already gets the new score and keeps its state.
        """
        rows = [
            Candidate(part=part, score=priority.score, why=priority.why[:400], audit=priority.audit, since=part.seen_at)
            for part, priority in selected
        ]
        # If a part is in the queue already, its score is updated, because the reasons for a review may have changed. For example, the
        # verdict may arrive after the gate has sorted the part.
        Candidate.objects.bulk_create(rows, update_conflicts=True, unique_fields=["part"], update_fields=["score", "why", "audit"])


def get_or_add_candidate(part: Part, at: datetime) -> Candidate:
    """Returns the entry of the review queue for a part that a person opens for review. Makes an entry if there is none."""
    defaults = {"score": 0.0, "why": "a person opened the part", "since": at, "state": "settled"}
    candidate, _ = Candidate.objects.get_or_create(part=part, defaults=defaults)
    return candidate
