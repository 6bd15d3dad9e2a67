"""Figures of agreement: against textbook values, and counted from decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from station.reviews.agreement import agreement
from station.reviews.deciding import Answer, decide
from station.reviews.figures import figures
from station.reviews.offering import ask_for
from tests.station.conftest import SETTINGS, MakeAccount, MakePart

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def send(topic: str, key: str, value: bytes | None) -> tuple[int, int]:
    return 0, 0


def test_kappa_of_an_example_done_by_hand() -> None:
    """Of 50 both say yes 20 times and no 15 times: 0.70 the same, 0.50 by chance, so kappa is 0.40."""
    found = agreement([("ok", "ok", 20), ("ok", "defect", 5), ("defect", "ok", 10), ("defect", "defect", 15)])
    assert found.accuracy == pytest.approx(0.70)
    assert found.kappa == pytest.approx(0.40)
    assert found.rows() == [("ok", [20, 5]), ("defect", [10, 15])]


def test_full_agreement_is_one_and_nothing_is_nothing() -> None:
    assert agreement([("ok", "ok", 3), ("defect", "defect", 4)]).kappa == pytest.approx(1)
    assert agreement([("ok", "ok", 3)]).kappa is None
    assert (agreement([]).accuracy, agreement([]).kappa) == (None, None)


def test_worse_than_chance_is_negative() -> None:
    kappa = agreement([("ok", "defect", 5), ("defect", "ok", 5)]).kappa
    assert kappa == pytest.approx(-1)


def test_what_the_model_left_to_people_is_no_disagreement() -> None:
    assert agreement([("review", "ok", 9), ("ok", "ok", 1)]).parts == 1


def test_the_figures_count_the_word_that_stands(part: MakePart, account: MakeAccount) -> None:
    anna, bert = account("anna", "reviewer"), account("bert", "reviewer")
    right = part(label="defect")
    missed = part(label="ok", line="line-2")
    left = part(label="review")
    uploaded = part(line="uploads")
    for row in (right, missed, left, uploaded):
        ask_for(row, NOW)
        decide(row, anna, Answer("defect", ("flash",)), SETTINGS, NOW, send)
    decide(missed, bert, Answer("ok"), SETTINGS, NOW + timedelta(seconds=1), send)
    found = figures(NOW, NOW + timedelta(hours=1), hidden="uploads")
    assert found.model.counts == {("defect", "defect"): 1, ("ok", "ok"): 1}
    assert [(name, one.parts) for name, one in found.lines] == [("line-1", 1), ("line-2", 1)]
    assert found.left_to_people == [("ok", 0), ("defect", 1)]
    assert found.kinds == [("flash", 2, 0)]
    assert [(one, other, pair.parts, pair.accuracy) for one, other, pair in found.people] == [("anna", "bert", 1, 0.0)]
    assert figures(NOW + timedelta(hours=1), NOW + timedelta(hours=2)).model.parts == 0
    assert figures(NOW, NOW + timedelta(hours=1), "line-2").model.parts == 1


def test_the_page_shows_the_figures_and_refuses_nonsense_in_words(operator: Client, part: MakePart, account: MakeAccount) -> None:
    row = part(label="ok")
    ask_for(row, NOW)
    decide(row, account("anna", "reviewer"), Answer("ok"), SETTINGS, NOW, send)
    text = operator.get("/reviews/agreement/?since=2026-11-22T00:00&to=2026-11-23T00:00").content.decode()
    assert "<td>anna</td>" in text
    assert "expected a time" in operator.get("/reviews/agreement/?since=%3Cscript%3E").content.decode()
