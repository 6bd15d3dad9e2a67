"""Tests of decisions: what a person may enter, what is sent to the topic, how a decision is undone, and who is asked next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db.models.signals import pre_save

from station.kafka_producer import KafkaUnavailableError
from station.reviews.candidates import get_or_add_candidate
from station.reviews.decisions import (
    Annotation,
    DecisionRefusedError,
    InvalidBoxesError,
    decide,
    find_effective,
    make_annotation,
    next_state,
    parse_boxes,
    undo_last_decision,
)
from station.reviews.models import Candidate, Decision
from station.reviews.queue import claim_candidates
from tests.station.conftest import SETTINGS, MakeAccount, MakePart
from tests.station.reviews.conftest import MakeWaitingPart
from tests.station.reviews.records import ReviewTopic

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KINDS = SETTINGS.review.kinds


def make_people(account: MakeAccount) -> tuple[User, User, User]:
    return account("anna", "reviewer"), account("bert", "reviewer"), account("carla", "engineer")


@pytest.mark.parametrize(
    ("model", "labels", "expected"),
    [
        ("ok", "", "open"),
        ("ok", "ok", "settled"),
        ("ok", "defect", "second"),
        ("review", "defect", "settled"),
        ("", "ok", "settled"),
        ("ok", "defect defect", "settled"),
        ("ok", "defect ok", "third"),
        ("ok", "defect ok ok", "settled"),
        ("ok", "skip", "open"),
        ("ok", "skip defect", "second"),
    ],
)
def test_the_decisions_so_far_say_whose_opinion_is_needed_next(model: str, labels: str, expected: str) -> None:
    assert next_state(model, labels.split()) == expected


def test_without_second_opinions_one_decision_settles_a_part() -> None:
    assert next_state("ok", ["defect"], ask_second_person=False) == "settled"


def test_the_last_decision_that_is_not_a_skip_counts() -> None:
    assert find_effective(["ok", "defect", "skip"]) == 1
    assert find_effective(["skip"]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "could not be read"),
        ('{"left_px": 1}', "could not be read"),
        ("[1]", "could not be read"),
        ('[{"left_px": ' + "9" * 5000 + "}]", "could not be read"),
        ("[" * 5000, "could not be read"),
        ('[{"left_px": 1}]', "Box 1 is not valid"),
        ('[{"left_px": -1, "top_px": 0, "width_px": 5, "height_px": 5}]', "Box 1 is not valid"),
        ('[{"left_px": 290, "top_px": 0, "width_px": 20, "height_px": 5}]', "reaches beyond the picture of 300 x 300"),
        ('[{"left_px": 1e30, "top_px": 0, "width_px": 20, "height_px": 5}]', "Box 1"),
        ('[{"left_px": 0, "top_px": 0, "width_px": 5, "height_px": 5, "kind": "<script>"}]', "no type of defect"),
        ("[" + ",".join(['{"left_px":0,"top_px":0,"width_px":5,"height_px":5}'] * 51) + "]", "at most 50 boxes"),
        (" " * 30_000, "more than 20,000"),
    ],
)
def test_invalid_boxes_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidBoxesError, match=words):
        parse_boxes(text, 300, 300, KINDS)


def test_a_decision_is_on_the_topic_and_in_the_table(waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic) -> None:
    row = waiting(verdict_id="6f1d7a0e-3f0b-5a52-9a0f-0d5f7a3c9b11")
    row.refresh_from_db()
    boxes = parse_boxes('[{"left_px": 1, "top_px": 2, "width_px": 3, "height_px": 4, "kind": "flash"}]', 300, 300, KINDS)
    annotation = make_annotation("defect", ["scratch"], boxes, KINDS)
    decide(row, account("anna", "reviewer"), annotation, SETTINGS, NOW, topic.send)
    key, review = topic.records[0]
    assert key == str(row)
    assert review is not None
    assert (review.label, review.kinds, review.reviewer, review.boxes[0].kind) == ("defect", ("flash", "scratch"), "anna", "flash")
    assert review.verdict_id == row.verdict_id
    assert Decision.objects.get().sent_offset == 0


def test_a_good_part_has_no_types_of_defect() -> None:
    assert make_annotation("ok", ["scratch"], (), KINDS) == Annotation("ok")


def test_without_kafka_no_decision_is_stored(waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    topic.is_away = True
    with pytest.raises(KafkaUnavailableError):
        decide(row, anna, Annotation("ok"), SETTINGS, NOW, topic.send)
    assert Decision.objects.count() == 0
    assert Candidate.objects.get().state == "open"


def test_a_part_that_another_person_reviews_cannot_be_decided(waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic) -> None:
    row = waiting()
    claim_candidates(account("anna", "reviewer"), SETTINGS, NOW)
    with pytest.raises(DecisionRefusedError, match="anna is reviewing this part"):
        decide(row, account("bert", "reviewer"), Annotation("ok"), SETTINGS, NOW, topic.send)
    assert topic.records == []


def test_after_a_contradiction_a_second_and_a_third_person_are_asked(part: MakePart, account: MakeAccount, topic: ReviewTopic) -> None:
    anna, bert, carla = make_people(account)
    row = part(label="ok", picture="pictures/00/x")
    get_or_add_candidate(row, NOW)
    decide(row, anna, Annotation("defect"), SETTINGS, NOW, topic.send)
    assert claim_candidates(anna, SETTINGS, NOW) == []
    assert [candidate.state for candidate in claim_candidates(bert, SETTINGS, NOW)] == ["second"]
    decide(row, bert, Annotation("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    assert claim_candidates(anna, SETTINGS, NOW) == claim_candidates(bert, SETTINGS, NOW) == []
    assert [candidate.state for candidate in claim_candidates(carla, SETTINGS, NOW)] == ["third"]
    decide(row, carla, Annotation("defect"), SETTINGS, NOW + timedelta(seconds=2), topic.send)
    assert Candidate.objects.get().state == "settled"
    assert topic.labels == [("anna", "defect"), ("bert", "ok"), ("carla", "defect")]


def test_a_skipped_part_sends_no_record_and_goes_to_another_person(
    waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic
) -> None:
    row = waiting()
    anna, bert, _ = make_people(account)
    decide(row, anna, Annotation("skip"), SETTINGS, NOW, topic.send)
    assert topic.records == []
    assert claim_candidates(anna, SETTINGS, NOW) == []
    assert len(claim_candidates(bert, SETTINGS, NOW)) == 1


@pytest.mark.parametrize(
    ("first", "labels"), [("anna", [("anna", "defect"), None]), ("bert", [("bert", "ok"), ("anna", "defect"), ("bert", "ok")])]
)
def test_a_skip_takes_an_earlier_decision_of_the_same_person_from_the_topic(
    first: str, labels: list[tuple[str, str] | None], part: MakePart, account: MakeAccount, topic: ReviewTopic
) -> None:
    anna, bert, _ = make_people(account)
    row = part(label="ok")
    get_or_add_candidate(row, NOW)
    if first == "bert":
        decide(row, bert, Annotation("ok"), SETTINGS, NOW, topic.send)
    decide(row, anna, Annotation("defect"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    decide(row, anna, Annotation("skip"), SETTINGS, NOW + timedelta(seconds=2), topic.send)
    assert topic.labels == labels
    _, review = topic.records[-1]
    assert review is None or review.reviewed_at == NOW + timedelta(seconds=2), "the archive keeps the review with the latest time"


def test_a_skip_without_kafka_keeps_the_earlier_decision(waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Annotation("ok"), SETTINGS, NOW, topic.send)
    topic.is_away = True
    with pytest.raises(KafkaUnavailableError):
        decide(row, anna, Annotation("skip"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    assert [decision.label for decision in Decision.objects.filter(undone_at=None)] == ["ok"]


@pytest.mark.parametrize("stored", ["defect", "skip"])
def test_the_decision_that_another_window_stored_first_is_also_the_newest_on_the_topic(
    stored: str, waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic
) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Annotation(stored), SETTINGS, NOW, topic.send)

    def store_first(sender: type[Decision], **_: object) -> None:
        # Another window stores a decision after this one has replaced the old decision, and before this one is stored.
        sender.objects.bulk_create([Decision(part=row, reviewer=anna, label=stored, at=NOW)])

    pre_save.connect(store_first, sender=Decision)
    try:
        with pytest.raises(DecisionRefusedError, match="another window"):
            decide(row, anna, Annotation("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    finally:
        pre_save.disconnect(store_first, sender=Decision)
    assert topic.labels[-2:] == [("anna", "ok"), ("anna", "defect") if stored == "defect" else None]


def test_undoing_the_only_decision_deletes_the_review_from_the_topic(
    waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic
) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Annotation("ok"), SETTINGS, NOW, topic.send)
    assert undo_last_decision(anna, SETTINGS, NOW, topic.send) is not None
    assert topic.labels == [("anna", "ok"), None]
    assert topic.records[-1][0] == str(row)
    assert [candidate.part for candidate in claim_candidates(anna, SETTINGS, NOW)] == [row]
    assert undo_last_decision(anna, SETTINGS, NOW, topic.send) is None


def test_undoing_a_second_opinion_sends_the_first_again(part: MakePart, account: MakeAccount, topic: ReviewTopic) -> None:
    anna, bert, _ = make_people(account)
    row = part(label="ok")
    get_or_add_candidate(row, NOW)
    decide(row, anna, Annotation("defect", ("flash",)), SETTINGS, NOW, topic.send)
    decide(row, bert, Annotation("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    undo_last_decision(bert, SETTINGS, NOW + timedelta(seconds=2), topic.send)
    assert topic.labels == [("anna", "defect"), ("bert", "ok"), ("anna", "defect")]
    assert Candidate.objects.get().state == "second"


def test_undoing_an_earlier_opinion_sends_nothing(part: MakePart, account: MakeAccount, topic: ReviewTopic) -> None:
    anna, bert, _ = make_people(account)
    row = part(label="ok")
    get_or_add_candidate(row, NOW)
    decide(row, anna, Annotation("defect"), SETTINGS, NOW, topic.send)
    decide(row, bert, Annotation("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    undo_last_decision(anna, SETTINGS, NOW + timedelta(seconds=2), topic.send)
    assert topic.labels == [("anna", "defect"), ("bert", "ok")]
    assert Candidate.objects.get().state == "settled"


def test_without_kafka_nothing_is_undone(waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Annotation("ok"), SETTINGS, NOW, topic.send)
    topic.is_away = True
    with pytest.raises(KafkaUnavailableError):
        undo_last_decision(anna, SETTINGS, NOW, topic.send)
    assert Decision.objects.filter(undone_at=None).count() == 1


def test_a_new_decision_of_the_same_person_replaces_the_old_one(waiting: MakeWaitingPart, account: MakeAccount, topic: ReviewTopic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Annotation("ok"), SETTINGS, NOW, topic.send)
    decide(row, anna, Annotation("defect"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    assert [decision.label for decision in Decision.objects.filter(undone_at=None)] == ["defect"]
