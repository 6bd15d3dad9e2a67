"""The soft vote: from the voters' probabilities to predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.inference.soft_vote import IN_DOUBT, SoftVote, VoterProbabilities, temper_probabilities


def make_vote(low: float = 0.4, high: float = 0.6, weights: tuple[float, float] = (0.75, 0.25), temperature: float = 1.0) -> SoftVote:
    return SoftVote(("alexnet", "lenet"), np.array(weights), np.ones(2), temperature, 0, 0.5, low, high)


def make_probabilities(*defect: tuple[float, float]) -> VoterProbabilities:
    """The probabilities of the classes (ok, defect) by AlexNet and LeNet, from their probabilities of a defect."""
    return np.array([[(1 - p, p) for p in row] for row in defect], np.float32)


def test_a_vote_counts_by_its_weight() -> None:
    prediction = make_vote().predict(make_probabilities((1.0, 0.0)))[0]
    assert prediction.defect_probability == pytest.approx(0.75, abs=1e-5)
    assert prediction.votes == pytest.approx({"alexnet": 1.0, "lenet": 0.0}, abs=1e-5)
    assert prediction.label == "defect"


def test_a_probability_in_the_review_band_is_for_review_and_has_a_reason() -> None:
    predictions = make_vote().predict(make_probabilities((0.1, 0.1), (0.41, 0.41), (0.59, 0.59), (0.61, 0.61)))
    assert [(one.label, one.reason) for one in predictions] == [("ok", ""), ("review", IN_DOUBT), ("review", IN_DOUBT), ("defect", "")]


def test_without_a_review_band_nothing_is_for_review() -> None:
    predictions = make_vote(low=0.5, high=0.5).predict(make_probabilities((0.499, 0.499), (0.501, 0.501)))
    assert [one.label for one in predictions] == ["ok", "defect"]


def test_every_class_but_the_good_one_is_a_defect() -> None:
    vote = SoftVote(("alexnet",), np.ones(1), np.ones(1), 1.0, 1, 0.5, 0.5, 0.5)
    prediction = vote.predict(np.array([[[0.35, 0.4, 0.25]]], np.float32))[0]
    assert prediction.defect_probability == pytest.approx(0.6, abs=1e-5)


def test_probabilities_of_another_number_of_voters_are_refused() -> None:
    with pytest.raises(ValueError, match="expected probabilities of shape"):
        make_vote().predict(np.zeros((1, 3, 2), np.float32))


@given(st.floats(0, 1), st.floats(0.1, 20))
def test_a_temperature_never_changes_which_class_is_likelier(probability: float, temperature: float) -> None:
    tempered = temper_probabilities(np.array([1 - probability, probability]), temperature)
    assert tempered.sum() == pytest.approx(1)
    assert (tempered[1] >= 0.5) == (probability >= 0.5) or abs(probability - 0.5) < 1e-6


@given(st.floats(0.001, 0.999))
def test_temperature_one_changes_nothing(probability: float) -> None:
    assert temper_probabilities(np.array([1 - probability, probability]), 1.0)[1] == pytest.approx(probability)
