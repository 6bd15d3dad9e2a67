"""Tests of the review queue: who gets which part, and the metrics of the queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from station.reviews.models import Candidate
from station.reviews.queue import claim_candidates, count_waiting, find_oldest, update_metrics
from tests.station.conftest import EARLIEST, SETTINGS, MakeAccount, MakePart
from tests.station.reviews.conftest import MakeWaitingPart

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_two_people_never_get_the_same_part_at_once(waiting: MakeWaitingPart, account: MakeAccount) -> None:
    for _ in range(3):
        waiting()
    anna, bert = account("anna", "reviewer"), account("bert", "reviewer")
    of_anna = claim_candidates(anna, SETTINGS, NOW)
    of_bert = claim_candidates(bert, SETTINGS, NOW)
    assert len(of_anna) == 2
    assert len(of_bert) == 1
    assert {candidate.pk for candidate in of_anna} & {candidate.pk for candidate in of_bert} == set()
    assert [candidate.pk for candidate in claim_candidates(anna, SETTINGS, NOW)] == [candidate.pk for candidate in of_anna]


def test_a_part_whose_lease_expired_goes_to_another_person(waiting: MakeWaitingPart, account: MakeAccount) -> None:
    waiting()
    claim_candidates(account("anna", "reviewer"), SETTINGS, NOW)
    bert = account("bert", "reviewer")
    assert claim_candidates(bert, SETTINGS, NOW + timedelta(minutes=4)) == []
    assert len(claim_candidates(bert, SETTINGS, NOW + timedelta(minutes=6))) == 1


def test_a_part_whose_picture_was_deleted_is_not_shown(waiting: MakeWaitingPart, account: MakeAccount) -> None:
    waiting(picture="", seen_at=NOW - timedelta(days=3))
    fresh = waiting(picture="", seen_at=NOW - timedelta(hours=1))
    assert [candidate.part for candidate in claim_candidates(account("anna", "reviewer"), SETTINGS, NOW)] == [fresh]


def test_the_queue_is_counted_and_its_oldest_part_is_found(waiting: MakeWaitingPart) -> None:
    waiting()
    waiting()
    assert count_waiting(SETTINGS, NOW) == {"third": 0, "second": 0, "open": 2}
    assert find_oldest(SETTINGS, NOW) == EARLIEST + timedelta(seconds=1)


def test_the_metrics_give_the_age_of_the_oldest_part(waiting: MakeWaitingPart) -> None:
    waiting()
    update_metrics(SETTINGS, NOW)
    assert REGISTRY.get_sample_value("castline_review_queue_oldest_seconds") == (NOW - EARLIEST).total_seconds() - 1
    update_metrics(SETTINGS, NOW + timedelta(days=300))
    assert REGISTRY.get_sample_value("castline_review_queue_parts", {"state": "open"}) == 1
    Candidate.objects.all().delete()
    update_metrics(SETTINGS, NOW)
    assert REGISTRY.get_sample_value("castline_review_queue_oldest_seconds") == 0


@pytest.mark.parametrize("state", ["open", "second", "third"])
def test_an_upload_is_in_nobodys_queue(state: str, part: MakePart, waiting: MakeWaitingPart, account: MakeAccount) -> None:
    upload = part(line="uploads", label="defect", picture="pictures/00/x")
    Candidate.objects.create(part=upload, score=1, why="a person opened the part", since=NOW, state=state)
    of_the_plant = [waiting(), waiting()]
    bert = account("bert", "reviewer")
    assert {candidate.part for candidate in claim_candidates(bert, SETTINGS, NOW)} == set(of_the_plant)
    assert count_waiting(SETTINGS, NOW) == {"third": 0, "second": 0, "open": 2}
