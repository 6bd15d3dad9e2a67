"""The cascade: its band, the pictures that all voters see, and the predictions."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from models.inference.cascade import Cascade, find_cascade_band, open_cascade
from models.inference.ensemble import Ensemble, open_ensemble
from models.inference.line_threshold import DecisionRule
from models.inference.runtimes.runtime import Runtime
from models.inference.soft_vote import SoftVote, VoterProbabilities
from models.registry import Version, open_registry
from models.registry.manifest import CascadeBand
from streams.errors import ModelError


def make_vote(temperature: float = 1.0, threshold: float = 0.3) -> SoftVote:
    return SoftVote(("lenet", "alexnet"), np.array([0.5, 0.5]), np.ones(2), temperature, 0, threshold, threshold, threshold)


def make_probabilities(*defect: tuple[float, float]) -> VoterProbabilities:
    """The probabilities of the classes (ok, defect) by LeNet and AlexNet, from their probabilities of a defect."""
    return np.array([[[1 - p, p] for p in row] for row in defect], np.float32)


class FixedRuntime:
    """Returns fixed probabilities, selected by the first pixel of each picture, and records the sizes of its batches."""

    name, max_batch = "fixed", 8

    def __init__(self, probabilities: VoterProbabilities) -> None:
        self._probabilities = probabilities
        self.batch_sizes: list[int] = []

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> VoterProbabilities:
        self.batch_sizes.append(len(pixels))
        return self._probabilities[pixels[:, 0, 0]]


PROBABILITIES = make_probabilities((0.01, 0.9), (0.5, 0.9), (0.99, 0.1), (0.4, 0.02))
PICTURES = np.arange(4, dtype=np.uint8)[:, None, None]


def make_cascade(temperature: float = 1.0) -> tuple[Cascade, FixedRuntime]:
    """A cascade that is in doubt from 0.1 to 0.9, and the runtime of its second stage."""
    others = FixedRuntime(PROBABILITIES[:, 1:])
    band = CascadeBand(voter="lenet", low=0.1, high=0.9)
    return Cascade("cascade", 8, FixedRuntime(PROBABILITIES[:, :1]), others, make_vote(temperature), 0, band), others


def test_the_other_voters_see_only_the_doubtful_pictures_in_one_batch() -> None:
    cascade, others = make_cascade()
    probabilities = cascade.predict(PICTURES)
    assert others.batch_sizes == [2]
    assert np.isnan(probabilities[[0, 2], 1]).all()
    assert np.array_equal(probabilities[[1, 3]], PROBABILITIES[[1, 3]])
    assert np.array_equal(cascade.all_voters.predict(PICTURES), PROBABILITIES)


def test_a_picture_decided_alone_has_one_vote_and_its_label() -> None:
    """The temperature of all voters together does not apply to one voter alone."""
    cascade, _ = make_cascade(temperature=4.0)
    predictions = cascade.vote.predict(cascade.predict(PICTURES))
    assert [set(one.votes) for one in predictions] == [{"lenet"}, {"lenet", "alexnet"}, {"lenet"}, {"lenet", "alexnet"}]
    assert [predictions[0].label, predictions[2].label] == ["ok", "defect"]
    assert predictions[0].defect_probability == pytest.approx(0.01, abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (None, [1, 3]),
        (DecisionRule(0.3, 0.3, 0.3), [1, 3]),
        (DecisionRule(0.3, 0.005, 0.3), [0, 1, 3]),
        (DecisionRule(0.01, 0.01, 0.01), [0, 1, 3]),
        (DecisionRule(0.99, 0.99, 0.99), [1, 2, 3]),
        (DecisionRule(0.3, 0.3, 0.995), [1, 2, 3]),
    ],
)
def test_all_voters_see_a_picture_that_is_near_the_thresholds_of_its_line(rule: DecisionRule | None, asked: list[int]) -> None:
    cascade, _ = make_cascade()
    assert np.flatnonzero(~np.isnan(cascade.predict(PICTURES, [rule] * 4)[:, 1, 0])).tolist() == asked


def test_a_defect_that_lenet_calls_good_does_not_pass_below_the_miss_risk_of_its_line() -> None:
    """LeNet is surer than the pass threshold 0.005 that the part is good, but AlexNet sees the defect."""
    probabilities = make_probabilities((0.004, 0.9))
    band = CascadeBand(voter="lenet", low=0.1, high=0.9)
    cascade = Cascade("cascade", 8, FixedRuntime(probabilities[:, :1]), FixedRuntime(probabilities[:, 1:]), make_vote(), 0, band)
    ensemble, rule = Ensemble(cast(Version, None), cascade, cascade.vote), DecisionRule(0.3, 0.005, 0.3)
    (prediction,) = ensemble.predict(PICTURES[:1], rules=[rule])
    assert prediction.defect_probability is not None
    assert rule.choose_label(prediction.defect_probability) == "defect"


def test_each_picture_of_a_batch_has_the_rule_of_its_own_line() -> None:
    cascade, _ = make_cascade()
    strict = DecisionRule(0.3, 0.005, 0.3)
    for rules, asked in (([strict, None], [0]), ([None, strict], [1]), ([None, None], [])):
        probabilities = cascade.predict(PICTURES[[0, 0]], rules)
        assert np.flatnonzero(~np.isnan(probabilities[:, 1, 0])).tolist() == asked


def test_no_picture_outside_the_band_gets_another_label_from_the_ensemble() -> None:
    rng = np.random.default_rng(1)
    probabilities = make_probabilities(*(tuple(pair) for pair in rng.uniform(0, 1, (400, 2))))
    vote = make_vote()
    band = find_cascade_band(vote, "lenet", probabilities)
    labels = [vote.choose_label(float(p)) for p in vote.compute_defect_probability(probabilities)]
    own = probabilities[:, 0, 1]
    assert 0 <= band.low < band.high <= 1
    assert {label for label, p in zip(labels, own, strict=True) if p < band.low} <= {"ok"}
    assert {label for label, p in zip(labels, own, strict=True) if p >= band.high} <= {"defect"}


def test_with_the_thresholds_of_a_line_no_picture_that_lenet_decides_alone_gets_another_label_from_the_ensemble() -> None:
    """LeNet sees about the same as AlexNet in most pictures. In some pictures it sees nothing."""
    rng = np.random.default_rng(2)
    alexnet = rng.beta(0.3, 0.3, 400)
    lenet = np.where(rng.uniform(size=400) < 0.02, 0.02, np.clip(alexnet + rng.normal(0, 0.05, 400), 0.001, 0.999))
    probabilities, vote = make_probabilities(*zip(lenet, alexnet, strict=True)), make_vote()
    cascade = Cascade(
        "cascade", 8, FixedRuntime(probabilities), FixedRuntime(probabilities), vote, 0, find_cascade_band(vote, "lenet", probabilities)
    )
    combined, own = vote.compute_defect_probability(probabilities), probabilities[:, 0, 1]
    decided = 0
    for threshold, low, high in np.sort(rng.uniform(0.001, 0.999, (200, 3)))[:, [1, 0, 2]]:
        rule = DecisionRule(threshold, low, high)
        alone = np.flatnonzero(cascade.is_certain(probabilities, [rule] * len(own)))
        decided += len(alone)
        assert [rule.choose_label(own[index]) for index in alone] == [rule.choose_label(combined[index]) for index in alone], rule
    assert decided > 0, "some lines still save computing time"


@pytest.mark.parametrize(("rule", "certain"), [(DecisionRule(0.3, 0.29, 0.3), [2]), (DecisionRule(0.3, 0.3, 0.31), [0])])
def test_lenet_decides_nothing_alone_on_the_side_on_which_a_line_is_stricter_than_its_version(
    rule: DecisionRule, certain: list[int]
) -> None:
    cascade, _ = make_cascade()
    assert np.flatnonzero(cascade.is_certain(PROBABILITIES, [rule] * 4)).tolist() == certain


def test_a_line_with_the_thresholds_of_its_version_asks_no_more_often() -> None:
    cascade, _ = make_cascade()
    rounded = DecisionRule(0.3 - 1e-12, 0.3 - 1e-12, 0.3 + 1e-12)
    for rule in (None, DecisionRule(0.3, 0.3, 0.3), rounded):
        assert np.flatnonzero(cascade.is_certain(PROBABILITIES, [rule] * 4)).tolist() == [0, 2]


def test_a_version_serves_as_a_cascade_on_real_runtimes(models_root: Path) -> None:
    """Untrained networks are never certain. With an empty band LeNet decides every picture, with a full band all voters are asked."""
    version = open_registry(models_root).open_version("tiny")
    pixels = np.random.default_rng(3).integers(0, 255, (5, 64, 64)).astype(np.uint8)
    ensemble = open_ensemble(version, "tensorflow", (8,))
    empty_band = open_ensemble(version, "tensorflow", (8,), cascade=True, band=(0.5, 0.5))
    full_band = open_ensemble(version, "tensorflow", (8,), cascade=True, band=(0.0, 1.0))
    assert [set(prediction.votes) for prediction in empty_band.predict(pixels)] == [{"lenet"}] * 5
    assert np.allclose(full_band.runtime.predict(pixels), ensemble.runtime.predict(pixels), atol=1e-5)


def test_a_version_without_a_band_needs_one_from_the_settings(models_root: Path) -> None:
    def open_nothing(version: Version) -> Runtime:
        raise AssertionError("expected the refusal before a runtime is opened")

    with pytest.raises(ModelError, match=r"has no cascade band.*model\.cascade_low"):
        open_cascade(open_registry(models_root).open_version("tiny"), open_nothing)
