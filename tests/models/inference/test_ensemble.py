"""From the voters' probabilities to opinions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.inference.soft_vote import IN_DOUBT, SoftVote, temper_probabilities


def vote(low: float = 0.4, high: float = 0.6, weights: tuple[float, float] = (0.75, 0.25), temperature: float = 1.0) -> SoftVote:
    return SoftVote(("alexnet", "lenet"), np.array(weights), np.ones(2), temperature, 0, 0.5, low, high)


def answers(*defect: tuple[float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([[(1 - p, p) for p in row] for row in defect], np.float32)


def test_a_vote_counts_by_its_weight() -> None:
    opinion = vote().predict(answers((1.0, 0.0)))[0]
    assert opinion.defect_probability == pytest.approx(0.75, abs=1e-5)
    assert opinion.votes == pytest.approx({"alexnet": 1.0, "lenet": 0.0}, abs=1e-5)
    assert opinion.label == "defect"


def test_doubt_goes_to_a_person_and_says_why() -> None:
    labels = [(o.label, o.reason) for o in vote().predict(answers((0.1, 0.1), (0.41, 0.41), (0.59, 0.59), (0.61, 0.61)))]
    assert labels == [("ok", ""), ("review", IN_DOUBT), ("review", IN_DOUBT), ("defect", "")]


def test_without_a_band_nothing_is_for_review() -> None:
    labels = [o.label for o in vote(low=0.5, high=0.5).predict(answers((0.499, 0.499), (0.501, 0.501)))]
    assert labels == ["ok", "defect"]


def test_every_class_but_the_good_one_is_a_defect() -> None:
    three = SoftVote(("alexnet",), np.ones(1), np.ones(1), 1.0, 1, 0.5, 0.5, 0.5)
    opinion = three.predict(np.array([[[0.35, 0.4, 0.25]]], np.float32))[0]
    assert opinion.defect_probability == pytest.approx(0.6, abs=1e-5)


def test_answers_of_another_number_of_voters_are_refused() -> None:
    with pytest.raises(ValueError, match="expected probabilities of shape"):
        vote().predict(np.zeros((1, 3, 2), np.float32))


@given(st.floats(0, 1), st.floats(0.1, 20))
def test_a_temperature_never_changes_which_class_is_likelier(probability: float, temperature: float) -> None:
    tempered = temper_probabilities(np.array([1 - probability, probability]), temperature)
    assert tempered.sum() == pytest.approx(1)
    assert (tempered[1] >= 0.5) == (probability >= 0.5) or abs(probability - 0.5) < 1e-6


@given(st.floats(0.001, 0.999))
def test_temperature_one_changes_nothing(probability: float) -> None:
    assert temper_probabilities(np.array([1 - probability, probability]), 1.0)[1] == pytest.approx(probability)
