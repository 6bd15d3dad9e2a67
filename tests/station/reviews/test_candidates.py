"""Tests of the selection of parts for the review: their scores, their reasons, and the random check."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from station.archive.models import Part
from station.archive.part_writer import PartWriter
from station.archive.retention import RetentionPolicy
from station.reviews.candidates import (
    CandidateQueue,
    ReviewPriority,
    compute_doubt,
    is_picked_at_random,
    rate_part,
)
from station.reviews.decisions import Annotation, decide
from station.reviews.models import Candidate
from streams.records import SCORERS, ImageReference, Verdict
from tests.station.conftest import SETTINGS, MakeAccount, MakePart
from tests.station.reviews.conftest import MakeWaitingPart
from tests.station.reviews.records import ReviewTopic

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def rate(audit_share: float = 0.0, **columns: object) -> ReviewPriority:
    part = Part(line="line-1", run=7, part=1, **columns)
    return rate_part(part, SETTINGS.review.model_copy(update={"least_doubt": 0.25, "audit_share": audit_share, "audit_seed": 1}))


def test_doubt_is_greatest_on_the_threshold_and_zero_where_the_model_is_certain() -> None:
    assert [compute_doubt(probability, 0.5) for probability in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0, 0.25, 0.5, 0.25, 0]
    assert compute_doubt(0.2, 0.2) == 0.5
    assert compute_doubt(0.6, 0.2) == pytest.approx(0.25)
    assert compute_doubt(None, 0.5) is None
    assert compute_doubt(1.0, 1.0) == 0.5


def test_the_reasons_are_given_in_words() -> None:
    votes = {"alexnet": 0.2, "lenet": 0.7}
    found = rate(label="review", defect_probability=0.48, threshold=0.5, votes=votes, reason="doubt")
    assert found.why == (
        "the model is in doubt (0.48 of 0.50); the networks disagree (alexnet 0.20, lenet 0.70); "
        "the model leaves the part to a person (doubt)"
    )


def test_a_part_without_a_reason_is_not_shown() -> None:
    assert rate(label="ok", defect_probability=0.02, threshold=0.5, votes={"a": 0.01, "b": 0.03}).score == 0


def test_the_most_useful_part_has_the_highest_score() -> None:
    disputed = rate(label="review", defect_probability=0.5, threshold=0.5, votes={"a": 0.1, "b": 0.9}).score
    doubtful = rate(label="review", defect_probability=0.48, threshold=0.5).score
    without_verdict = rate(label="", sorted_reason="no-verdict").score
    unreadable = rate(label="review", reason="truncated").score
    random = rate(1.0, label="ok", defect_probability=0.01, threshold=0.5).score
    assert disputed > doubtful > without_verdict > unreadable > random > 0


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_the_score_of_a_scorer_is_no_vote_of_a_network(scorer: str) -> None:
    good: dict[str, Any] = {"label": "ok", "defect_probability": 0.01, "threshold": 0.09}
    assert rate(**good, votes={"alexnet": 0.01, "lenet": 0.02, scorer: 0.4}).score == 0
    disputed = rate(**good, votes={"alexnet": 0.01, "lenet": 0.2, scorer: 0.4})
    assert (disputed.why, disputed.score) == ("the networks disagree (alexnet 0.01, lenet 0.20)", 0.095)


def test_the_random_check_picks_its_share_and_depends_only_on_part_and_seed() -> None:
    parts = [Part(line="line-1", run=1, part=number) for number in range(5_000)]
    picked = [part.part for part in parts if is_picked_at_random(part, 0.05, 1)]
    assert 200 < len(picked) < 300
    assert picked == [part.part for part in parts if is_picked_at_random(part, 0.05, 1)]
    assert picked != [part.part for part in parts if is_picked_at_random(part, 0.05, 2)]


def test_uploads_and_reviewed_parts_are_not_selected(part: MakePart) -> None:
    rows = [part(line="uploads", label="review"), part(label="review", review_label="ok")]
    assert CandidateQueue(SETTINGS).select(rows) == []


def test_the_archive_adds_a_doubtful_part_to_the_queue_and_keeps_its_picture(database: Path) -> None:
    """The part is good and in doubt, so no other rule would keep its picture."""
    image = ImageReference(topic="castings.images.line-1", partition=0, offset=3, sha256="0" * 64, width_px=300, height_px=300)
    times = {"captured_at": NOW, "received_at": NOW, "decided_at": NOW}
    judged = {"label": "ok", "defect_probability": 0.4, "votes": {"lenet": 0.4}, "threshold": 0.5, "model": "demo"}
    verdict = Verdict(line="line-1", run=9, part=1, verdict_id=UUID(int=1), image=image, **judged, **times)
    for _ in range(2):
        PartWriter(RetentionPolicy(0.0), CandidateQueue(SETTINGS)).write([verdict])
    candidate = Candidate.objects.select_related("part").get()
    assert (str(candidate.part), candidate.part.keep_picture) == ("line-1:9:1", True)
    assert candidate.why == "the model is in doubt (0.40 of 0.50)"


def test_a_settled_part_that_is_added_again_stays_settled(waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic) -> None:
    row = waiting()
    decide(row, account("anna", "reviewer"), Annotation("ok"), SETTINGS, NOW, topic.send)
    queue = CandidateQueue(SETTINGS)
    queue.add(queue.select([row]))
    assert Candidate.objects.get().state == "settled"
