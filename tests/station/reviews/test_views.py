"""Tests of the review page: which part it shows, forged decisions, and its answers to the page's script."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from station.reviews.candidates import get_or_add_candidate
from station.reviews.decisions import Annotation, decide
from station.reviews.models import Candidate, Decision
from tests.station.conftest import SETTINGS, MakeAccount, MakePart
from tests.station.reviews.conftest import MakeWaitingPart
from tests.station.reviews.records import ReviewTopic

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
FROM_SCRIPT = {"HX-Request": "true"}


def test_the_page_shows_the_most_useful_part(reviewer: Client, waiting: MakeWaitingPart) -> None:
    waiting(defect_probability=0.4, picture="", seen_at=datetime.now(UTC))
    most_useful = waiting(defect_probability=0.5, picture="", seen_at=datetime.now(UTC))
    text = reviewer.post("/reviews/", follow=True).content.decode()
    assert f'action="/reviews/line-1/7/{most_useful.part}/"' in text
    assert "the model is in doubt (0.50 of 0.50)" in text
    assert "1</kbd> blow hole" in text
    assert "Version demo has learned from rendered pictures only." in text


def test_the_second_person_sees_neither_verdict_nor_boxes(
    browser: Callable[[str], Client], account: MakeAccount, part: MakePart, topic: ReviewTopic
) -> None:
    box = {"left_px": 1, "top_px": 1, "width_px": 5, "height_px": 5, "score": 0.9}
    row = part(label="ok", picture="pictures/00/x", finding_boxes=[box])
    get_or_add_candidate(row, NOW)
    decide(row, account("anna", "reviewer"), Annotation("defect"), SETTINGS, NOW, topic.send)
    text = browser("engineer").post("/reviews/", follow=True).content.decode()
    assert "second opinion" in text
    assert "not shown" in text
    assert "rendered pictures" not in text
    assert '<script id="suggested" type="application/json">[]</script>' in text


def test_an_empty_queue_is_explained(reviewer: Client) -> None:
    assert "No part waits for you" in reviewer.get("/reviews/").content.decode()


def test_an_operator_may_not_review(operator: Client, waiting: MakeWaitingPart) -> None:
    row = waiting()
    assert operator.get("/reviews/").status_code == 403
    assert operator.post(f"/reviews/line-1/7/{row.part}/", {"label": "ok"}).status_code == 403
    assert operator.post("/reviews/undo/").status_code == 403
    assert Decision.objects.count() == 0


@pytest.mark.parametrize(
    ("address", "form", "status"),
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
def test_forged_decisions_are_refused(reviewer: Client, waiting: MakeWaitingPart, address: str, form: dict[str, str], status: int) -> None:
    waiting()
    assert reviewer.post(address, form, headers=FROM_SCRIPT).status_code == status
    assert Decision.objects.count() == 0


def test_without_kafka_the_decision_is_refused_in_words(reviewer: Client, waiting: MakeWaitingPart) -> None:
    """No broker runs beside these tests."""
    row = waiting()
    response = reviewer.post(f"/reviews/line-1/7/{row.part}/", {"label": "ok"}, headers=FROM_SCRIPT)
    assert response.status_code == 503
    assert "Kafka did not accept the record" in response.content.decode()
    assert Decision.objects.count() == 0


def test_a_skip_is_answered_with_the_next_part(reviewer: Client, waiting: MakeWaitingPart) -> None:
    first, second = waiting(), waiting(defect_probability=0.3)
    response = reviewer.post(f"/reviews/line-1/7/{first.part}/", {"label": "skip"}, headers=FROM_SCRIPT)
    text = response.content.decode()
    assert f'action="/reviews/line-1/7/{second.part}/"' in text
    assert "<html" not in text
    without_script = reviewer.post(f"/reviews/line-1/7/{second.part}/", {"label": "skip"})
    assert without_script.status_code == 302
    assert without_script["Location"] == "/reviews/"


def test_an_undo_without_a_decision_is_refused_in_words(reviewer: Client) -> None:
    response = reviewer.post("/reviews/undo/", headers=FROM_SCRIPT)
    assert response.status_code == 409
    assert b"no decision of yours that could be undone" in response.content


def test_a_part_that_another_person_reviews_is_not_opened(reviewer: Client, account: MakeAccount, waiting: MakeWaitingPart) -> None:
    row = waiting()
    now = datetime.now(UTC)
    Candidate.objects.update(leased_by=account("anna", "reviewer").username, leased_until=now + timedelta(minutes=3))
    address = f"/reviews/line-1/7/{row.part}/"
    assert "Review this part" in reviewer.get(address).content.decode()
    response = reviewer.post(address, {"reserve": "1"})
    assert response.status_code == 302
    assert response["Location"] == f"/parts/line-1/7/{row.part}/"


def test_opening_a_review_page_reserves_no_part_and_its_button_reserves_one(reviewer: Client, waiting: MakeWaitingPart) -> None:
    candidate = Candidate.objects.get(part=waiting(seen_at=datetime.now(UTC)))
    address = f"/reviews/{candidate.part.line}/{candidate.part.run}/{candidate.part.part}/"

    def open_and_read_owner(address: str) -> tuple[str, str]:
        page = reviewer.get(address).content.decode()
        assert reviewer.head(address).status_code == 200
        candidate.refresh_from_db()
        return page, candidate.leased_by

    page, owner = open_and_read_owner("/reviews/")
    assert ("Review the next part" in page, owner) == (True, "")
    page, owner = open_and_read_owner(address)
    assert ("Review this part" in page, owner) == (True, "")
    assert reviewer.post("/reviews/")["Location"] == "/reviews/"
    for opened in ("/reviews/", address):
        page, owner = open_and_read_owner(opened)
        assert (f'action="{address}" data-form' in page, owner) == (True, "reviewer")
    Candidate.objects.update(leased_by="", leased_until=None)
    assert reviewer.post(address, {"reserve": "1"})["Location"] == address
    assert open_and_read_owner(address)[1] == "reviewer"


def test_the_script_of_the_page_gets_the_reserved_part_at_once(reviewer: Client, waiting: MakeWaitingPart) -> None:
    row = waiting(seen_at=datetime.now(UTC))
    text = reviewer.post("/reviews/", headers=FROM_SCRIPT).content.decode()
    assert f'action="/reviews/line-1/7/{row.part}/"' in text
    assert "<html" not in text


def test_a_form_of_another_site_reserves_no_part(account: MakeAccount, waiting: MakeWaitingPart) -> None:
    candidate = Candidate.objects.get(part=waiting(seen_at=datetime.now(UTC)))
    client = Client(enforce_csrf_checks=True)
    client.force_login(account("anna", "reviewer"), "django.contrib.auth.backends.ModelBackend")
    for address in ("/reviews/", f"/reviews/line-1/7/{candidate.part.part}/"):
        assert client.post(address, {"reserve": "1"}).status_code == 403
    candidate.refresh_from_db()
    assert candidate.leased_by == ""
