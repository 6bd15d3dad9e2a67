"""Tests of the agreement between people and model: textbook values of kappa, and figures counted from decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from station.reviews.agreement import compute_agreement, count_agreement
from station.reviews.candidates import get_or_add_candidate
from station.reviews.decisions import Annotation, decide
from tests.station.conftest import SETTINGS, MakeAccount, MakePart
from tests.station.reviews.records import ReviewTopic

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_kappa_of_a_textbook_example() -> None:
    """Of 50 parts both sides accept 20 and reject 15. The agreement is 0.70, that of chance 0.50, so kappa is 0.40."""
    found = count_agreement([("ok", "ok", 20), ("ok", "defect", 5), ("defect", "ok", 10), ("defect", "defect", 15)])
    assert found.accuracy == pytest.approx(0.70)
    assert found.kappa == pytest.approx(0.40)
    assert found.rows() == [("ok", [20, 5]), ("defect", [10, 15])]


def test_kappa_is_one_for_full_agreement_and_none_without_parts() -> None:
    assert count_agreement([("ok", "ok", 3), ("defect", "defect", 4)]).kappa == pytest.approx(1)
    assert count_agreement([("ok", "ok", 3)]).kappa is None
    assert (count_agreement([]).accuracy, count_agreement([]).kappa) == (None, None)


def test_kappa_is_negative_for_less_agreement_than_by_chance() -> None:
    kappa = count_agreement([("ok", "defect", 5), ("defect", "ok", 5)]).kappa
    assert kappa == pytest.approx(-1)


def test_parts_that_the_model_left_to_people_are_not_compared() -> None:
    assert count_agreement([("review", "ok", 9), ("ok", "ok", 1)]).parts == 1


def test_the_report_counts_the_last_decision_about_each_part(part: MakePart, account: MakeAccount, topic: ReviewTopic) -> None:
    anna, bert = account("anna", "reviewer"), account("bert", "reviewer")
    right = part(label="defect")
    missed = part(label="ok", line="line-2")
    left_to_people = part(label="review")
    uploaded = part(line="uploads")
    for row in (right, missed, left_to_people, uploaded):
        get_or_add_candidate(row, NOW)
        decide(row, anna, Annotation("defect", ("flash",)), SETTINGS, NOW, topic.send)
    decide(missed, bert, Annotation("ok"), SETTINGS, NOW + timedelta(seconds=1), topic.send)
    report = compute_agreement(NOW, NOW + timedelta(hours=1), excluded_line="uploads")
    assert report.model.counts == {("defect", "defect"): 1, ("ok", "ok"): 1}
    assert [(name, found.parts) for name, found in report.lines] == [("line-1", 1), ("line-2", 1)]
    assert report.left_to_people == [("ok", 0), ("defect", 1)]
    assert report.kinds == [("flash", 2, 0)]
    assert [(first, second, found.parts, found.accuracy) for first, second, found in report.people] == [("anna", "bert", 1, 0.0)]
    assert compute_agreement(NOW + timedelta(hours=1), NOW + timedelta(hours=2)).model.parts == 0
    assert compute_agreement(NOW, NOW + timedelta(hours=1), "line-2").model.parts == 1


def test_the_page_shows_the_report_and_refuses_a_wrong_time_in_words(
    operator: Client, part: MakePart, account: MakeAccount, topic: ReviewTopic
) -> None:
    row = part(label="ok")
    get_or_add_candidate(row, NOW)
    decide(row, account("anna", "reviewer"), Annotation("ok"), SETTINGS, NOW, topic.send)
    text = operator.get("/reviews/agreement/?since=2026-11-22T00:00&to=2026-11-23T00:00").content.decode()
    assert "<td>anna</td>" in text
    assert "Decided from must be a time" in operator.get("/reviews/agreement/?since=%3Cscript%3E").content.decode()
