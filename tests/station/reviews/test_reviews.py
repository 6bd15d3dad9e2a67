"""The review: who is asked about what, one at a time; what they say goes to the topic first; nothing is said twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client
from prometheus_client import REGISTRY

from station.archive.keeper import Keeper
from station.archive.keeping import Keeping
from station.archive.models import Part
from station.live.sending import KafkaAway
from station.reviews.boxes import boxes_of
from station.reviews.deciding import Answer, RefusedError, answer_of, decide, undo
from station.reviews.gauges import renew
from station.reviews.models import Candidate, Decision
from station.reviews.offering import ask_for, offer, wanted
from station.reviews.queue import claim, lengths, oldest
from streams.records import ImageReference, Review, Verdict
from tests.station.conftest import EARLIEST, SETTINGS, MakeAccount, MakePart

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KINDS = SETTINGS.review.kinds


class Topic:
    """Stands for `castings.reviews`: what was sent, and whether Kafka is there."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Review | None]] = []
        self.away = False

    def send(self, topic: str, key: str, value: bytes | None) -> tuple[int, int]:
        if self.away:
            raise KafkaAway("Kafka did not take it.")
        assert topic == "castings.reviews"
        self.sent.append((key, Review.decode(value) if value else None))
        return 0, len(self.sent) - 1

    @property
    def said(self) -> list[tuple[str, str] | None]:
        return [(review.reviewer, review.label) if review else None for _, review in self.sent]


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def waiting(part: MakePart) -> Callable[..., Part]:
    """Makes a part that waits for a person."""

    def make(**given: object) -> Part:
        row = part(**{"label": "review", "reason": "doubt", "defect_probability": 0.48, "picture": "pictures/00/x", **given})
        offer(wanted([row], SETTINGS))
        return row

    return make


# Who is asked


def test_two_people_never_have_one_part_before_them(waiting: Callable[..., Part], account: MakeAccount) -> None:
    for _ in range(3):
        waiting()
    anna, bert = account("anna", "reviewer"), account("bert", "reviewer")
    hers = claim(anna, SETTINGS, NOW)
    his = claim(bert, SETTINGS, NOW)
    assert len(hers) == 2
    assert len(his) == 1
    assert {one.pk for one in hers} & {one.pk for one in his} == set()
    assert [one.pk for one in claim(anna, SETTINGS, NOW)] == [one.pk for one in hers]


def test_a_part_left_lying_goes_to_the_next(waiting: Callable[..., Part], account: MakeAccount) -> None:
    waiting()
    claim(account("anna", "reviewer"), SETTINGS, NOW)
    bert = account("bert", "reviewer")
    assert claim(bert, SETTINGS, NOW + timedelta(minutes=4)) == []
    assert len(claim(bert, SETTINGS, NOW + timedelta(minutes=6))) == 1


def test_a_part_whose_picture_is_gone_is_not_asked_about(waiting: Callable[..., Part], account: MakeAccount) -> None:
    waiting(picture="", seen_at=NOW - timedelta(days=3))
    fresh = waiting(picture="", seen_at=NOW - timedelta(hours=1))
    assert [one.part for one in claim(account("anna", "reviewer"), SETTINGS, NOW)] == [fresh]


def test_uploads_and_reviewed_parts_are_offered_to_nobody(part: MakePart) -> None:
    rows = [part(line="uploads", label="review"), part(label="review", review_label="ok")]
    assert wanted(rows, SETTINGS) == []


def test_the_archive_offers_what_it_writes_and_keeps_the_picture(database: Path) -> None:
    """A good part in doubt, whose picture no other rule would keep."""
    image = ImageReference(topic="castings.images.line-1", partition=0, offset=3, sha256="0" * 64, width_px=300, height_px=300)
    times = {"captured_at": NOW, "received_at": NOW, "decided_at": NOW}
    judged = {"label": "ok", "defect_probability": 0.4, "votes": {"lenet": 0.4}, "threshold": 0.5, "model": "demo"}
    verdict = Verdict(line="line-1", run=9, part=1, verdict_id=UUID(int=1), image=image, **judged, **times)
    for _ in range(2):
        Keeper(Keeping(0.0)).write([verdict])
    found = Candidate.objects.select_related("part").get()
    assert (str(found.part), found.why, found.part.keep_picture) == ("line-1:9:1", "doubt 0.40 of 0.50", True)


def test_offered_again_a_settled_part_stays_settled(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row = waiting()
    decide(row, account("anna", "reviewer"), Answer("ok"), SETTINGS, NOW, topic.send)
    offer(wanted([row], SETTINGS))
    assert Candidate.objects.get().state == "settled"


def test_the_queue_knows_its_length_and_its_oldest(waiting: Callable[..., Part]) -> None:
    waiting()
    waiting()
    assert lengths(SETTINGS, NOW) == {"third": 0, "second": 0, "open": 2}
    assert oldest(SETTINGS, NOW) == EARLIEST + timedelta(seconds=1)


def test_prometheus_hears_how_long_the_oldest_waits(waiting: Callable[..., Part]) -> None:
    waiting()
    renew(SETTINGS, NOW)
    found = {sample.name: sample.value for metric in REGISTRY.collect() for sample in metric.samples if "review_queue" in metric.name}
    assert found["castline_review_queue_oldest_seconds"] == (NOW - EARLIEST).total_seconds() - 1
    renew(SETTINGS, NOW + timedelta(days=300))
    assert REGISTRY.get_sample_value("castline_review_queue_parts", {"state": "open"}) == 1
    Candidate.objects.all().delete()
    renew(SETTINGS, NOW)
    assert REGISTRY.get_sample_value("castline_review_queue_oldest_seconds") == 0


# What is said


def test_a_decision_is_on_the_topic_and_in_the_table(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row = waiting(verdict_id="6f1d7a0e-3f0b-5a52-9a0f-0d5f7a3c9b11")
    row.refresh_from_db()
    boxes = boxes_of('[{"left_px": 1, "top_px": 2, "width_px": 3, "height_px": 4, "kind": "flash"}]', 300, 300, KINDS)
    decide(row, account("anna", "reviewer"), answer_of("defect", ["scratch"], boxes, KINDS), SETTINGS, NOW, topic.send)
    key, review = topic.sent[0]
    assert key == str(row)
    assert review is not None
    assert (review.label, review.kinds, review.reviewer, review.boxes[0].kind) == ("defect", ("flash", "scratch"), "anna", "flash")
    assert review.verdict_id == row.verdict_id
    assert Decision.objects.get().sent_offset == 0


def test_a_good_part_has_no_defects(account: MakeAccount) -> None:
    assert answer_of("ok", ["scratch"], (), KINDS) == Answer("ok")


def test_with_kafka_away_nothing_is_written_down(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    topic.away = True
    with pytest.raises(KafkaAway):
        decide(row, anna, Answer("ok"), SETTINGS, NOW, topic.send)
    assert Decision.objects.count() == 0
    assert Candidate.objects.get().state == "open"


def test_a_part_before_another_person_cannot_be_decided(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row = waiting()
    claim(account("anna", "reviewer"), SETTINGS, NOW)
    with pytest.raises(RefusedError, match="anna has this part"):
        decide(row, account("bert", "reviewer"), Answer("ok"), SETTINGS, NOW, topic.send)
    assert topic.sent == []


def people(account: MakeAccount) -> tuple[User, User, User]:
    return account("anna", "reviewer"), account("bert", "reviewer"), account("carla", "engineer")


def test_who_contradicts_the_model_is_seconded_and_a_third_decides(part: MakePart, account: MakeAccount, topic: Topic) -> None:
    anna, bert, carla = people(account)
    row = part(label="ok", picture="pictures/00/x")
    ask_for(row, NOW)
    decide(row, anna, Answer("defect"), SETTINGS, NOW, topic.send)
    assert claim(anna, SETTINGS, NOW) == []
    assert [one.state for one in claim(bert, SETTINGS, NOW)] == ["second"]
    decide(row, bert, Answer("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    assert claim(anna, SETTINGS, NOW) == claim(bert, SETTINGS, NOW) == []
    assert [one.state for one in claim(carla, SETTINGS, NOW)] == ["third"]
    decide(row, carla, Answer("defect"), SETTINGS, NOW + timedelta(seconds=2), topic.send)
    assert Candidate.objects.get().state == "settled"
    assert topic.said == [("anna", "defect"), ("bert", "ok"), ("carla", "defect")]


def test_a_skipped_part_is_sent_nowhere_and_goes_to_another(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row = waiting()
    anna, bert, _ = people(account)
    decide(row, anna, Answer("skip"), SETTINGS, NOW, topic.send)
    assert topic.sent == []
    assert claim(anna, SETTINGS, NOW) == []
    assert len(claim(bert, SETTINGS, NOW)) == 1


def test_undone_the_only_word_is_deleted_from_the_topic(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Answer("ok"), SETTINGS, NOW, topic.send)
    assert undo(anna, SETTINGS, NOW, topic.send) is not None
    assert topic.said == [("anna", "ok"), None]
    assert topic.sent[-1][0] == str(row)
    assert [one.part for one in claim(anna, SETTINGS, NOW)] == [row]
    assert undo(anna, SETTINGS, NOW, topic.send) is None


def test_undone_a_second_opinion_leaves_the_first_standing(part: MakePart, account: MakeAccount, topic: Topic) -> None:
    anna, bert, _ = people(account)
    row = part(label="ok")
    ask_for(row, NOW)
    decide(row, anna, Answer("defect", ("flash",)), SETTINGS, NOW, topic.send)
    decide(row, bert, Answer("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    undo(bert, SETTINGS, NOW + timedelta(seconds=2), topic.send)
    assert topic.said == [("anna", "defect"), ("bert", "ok"), ("anna", "defect")]
    assert Candidate.objects.get().state == "second"


def test_undone_below_another_word_the_topic_keeps_that_one(part: MakePart, account: MakeAccount, topic: Topic) -> None:
    anna, bert, _ = people(account)
    row = part(label="ok")
    ask_for(row, NOW)
    decide(row, anna, Answer("defect"), SETTINGS, NOW, topic.send)
    decide(row, bert, Answer("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    undo(anna, SETTINGS, NOW + timedelta(seconds=2), topic.send)
    assert topic.said == [("anna", "defect"), ("bert", "ok")]
    assert Candidate.objects.get().state == "settled"


def test_with_kafka_away_nothing_is_taken_back(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Answer("ok"), SETTINGS, NOW, topic.send)
    topic.away = True
    with pytest.raises(KafkaAway):
        undo(anna, SETTINGS, NOW, topic.send)
    assert Decision.objects.filter(undone_at=None).count() == 1


def test_a_new_word_of_the_same_person_replaces_the_old(waiting: Callable[..., Part], account: MakeAccount, topic: Topic) -> None:
    row, anna = waiting(), account("anna", "reviewer")
    decide(row, anna, Answer("ok"), SETTINGS, NOW, topic.send)
    decide(row, anna, Answer("defect"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    assert [one.label for one in Decision.objects.filter(undone_at=None)] == ["defect"]


# The pages


def test_the_bench_shows_the_most_informative_part(reviewer: Client, waiting: Callable[..., Part]) -> None:
    waiting(defect_probability=0.4, picture="", seen_at=datetime.now(UTC))
    most = waiting(defect_probability=0.5, picture="", seen_at=datetime.now(UTC))
    text = reviewer.get("/reviews/").content.decode()
    assert f'action="/reviews/line-1/7/{most.part}/"' in text
    assert "doubt 0.50 of 0.50" in text
    assert "1</kbd> blow hole" in text


def test_a_second_look_is_not_told_what_was_said_before(
    browser: Callable[[str], Client], account: MakeAccount, part: MakePart, topic: Topic
) -> None:
    row = part(
        label="ok", picture="pictures/00/x", finding_boxes=[{"left_px": 1, "top_px": 1, "width_px": 5, "height_px": 5, "score": 0.9}]
    )
    ask_for(row, NOW)
    decide(row, account("anna", "reviewer"), Answer("defect"), SETTINGS, NOW, topic.send)
    text = browser("engineer").get("/reviews/").content.decode()
    assert "second opinion" in text
    assert "not shown" in text
    assert '<script id="suggested" type="application/json">[]</script>' in text


def test_an_empty_queue_says_so(reviewer: Client) -> None:
    assert "Nothing waits for you" in reviewer.get("/reviews/").content.decode()


def test_an_operator_may_not_review(operator: Client, waiting: Callable[..., Part]) -> None:
    row = waiting()
    assert operator.get("/reviews/").status_code == 403
    assert operator.post(f"/reviews/line-1/7/{row.part}/", {"label": "ok"}).status_code == 403
    assert operator.post("/reviews/undo/").status_code == 403
    assert Decision.objects.count() == 0


@pytest.mark.parametrize(
    ("address", "given", "status"),
    [
        ("/reviews/line-1/7/999/", {"label": "ok"}, 404),
        ("/reviews/line-1/7/99999999999999999999/", {"label": "ok"}, 404),
        ("/reviews/uploads/7/1/", {"label": "ok"}, 404),
        ("/reviews/line-1/7/1/", {"label": "perhaps"}, 409),
        ("/reviews/line-1/7/1/", {"label": "defect", "kind": "<b>"}, 409),
        ("/reviews/line-1/7/1/", {"label": "defect", "boxes": '[{"left_px": 400, "top_px": 0, "width_px": 1, "height_px": 1}]'}, 400),
        ("/reviews/line-1/7/1/", {}, 409),
    ],
)
def test_forged_decisions_are_refused(
    reviewer: Client, waiting: Callable[..., Part], address: str, given: dict[str, str], status: int
) -> None:
    waiting()
    assert reviewer.post(address, given, headers={"HX-Request": "true"}).status_code == status
    assert Decision.objects.count() == 0


def test_without_kafka_the_person_is_told_and_the_part_stays(reviewer: Client, waiting: Callable[..., Part]) -> None:
    """No broker runs beside these tests."""
    row = waiting()
    answer = reviewer.post(f"/reviews/line-1/7/{row.part}/", {"label": "ok"}, headers={"HX-Request": "true"})
    assert answer.status_code == 503
    assert "Kafka did not take it" in answer.content.decode()
    assert Decision.objects.count() == 0


def test_a_skip_brings_the_next_part_without_its_page(reviewer: Client, waiting: Callable[..., Part]) -> None:
    first, second = waiting(), waiting(defect_probability=0.3)
    answer = reviewer.post(f"/reviews/line-1/7/{first.part}/", {"label": "skip"}, headers={"HX-Request": "true"})
    text = answer.content.decode()
    assert f'action="/reviews/line-1/7/{second.part}/"' in text
    assert "<html" not in text
    plain = reviewer.post(f"/reviews/line-1/7/{second.part}/", {"label": "skip"})
    assert plain.status_code == 302
    assert plain["Location"] == "/reviews/"


def test_nothing_to_undo_is_said(reviewer: Client) -> None:
    answer = reviewer.post("/reviews/undo/", headers={"HX-Request": "true"})
    assert answer.status_code == 409
    assert b"nothing that could be taken back" in answer.content


def test_a_part_before_another_person_is_not_opened(reviewer: Client, account: MakeAccount, waiting: Callable[..., Part]) -> None:
    row = waiting()
    now = datetime.now(UTC)
    Candidate.objects.update(leased_by=account("anna", "reviewer").username, leased_until=now + timedelta(minutes=3))
    answer = reviewer.get(f"/reviews/line-1/7/{row.part}/")
    assert answer.status_code == 302
    assert answer["Location"] == f"/parts/line-1/7/{row.part}/"
