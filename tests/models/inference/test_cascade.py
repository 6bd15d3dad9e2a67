"""The small network alone where it is certain: its band, what is asked, and what a picture's opinion then is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.inference.cascade import Cascade, find_cascade_band, open_cascade
from models.inference.ensemble import open_ensemble
from models.inference.runtimes.runtime import Runtime
from models.inference.soft_vote import SoftVote
from models.registry import Version, open_registry
from models.registry.manifest import CascadeBand
from streams.errors import ModelError


def vote(temperature: float = 1.0, threshold: float = 0.3) -> SoftVote:
    return SoftVote(("lenet", "alexnet"), np.array([0.5, 0.5]), np.ones(2), temperature, 0, threshold, threshold, threshold)


def answers(*defect: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Of LeNet and AlexNet; classes (ok, defect)."""
    return np.array([[[1 - p, p] for p in row] for row in defect], np.float32)


class Fixed:
    """Gives the answers of one voter by the first pixel of each picture, and remembers how many were asked."""

    name, max_batch = "fixed", 8

    def __init__(self, found: npt.NDArray[np.float32]) -> None:
        self._found = found
        self.asked: list[int] = []

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.asked.append(len(pixels))
        return self._found[pixels[:, 0, 0]]


FOUND = answers((0.01, 0.9), (0.5, 0.9), (0.99, 0.1), (0.4, 0.02))
PICTURES = np.arange(4, dtype=np.uint8)[:, None, None]


def cascade(band: tuple[float, float] = (0.1, 0.9), temperature: float = 1.0) -> tuple[Cascade, Fixed]:
    others = Fixed(FOUND[:, 1:])
    certainty = CascadeBand(voter="lenet", low=band[0], high=band[1])
    return Cascade("cascade", 8, Fixed(FOUND[:, :1]), others, vote(temperature), 0, certainty), others


def test_the_others_are_asked_about_the_doubtful_only_and_all_at_once() -> None:
    made, others = cascade()
    found = made.predict(PICTURES)
    assert others.asked == [2]
    assert np.isnan(found[[0, 2], 1]).all()
    assert np.array_equal(found[[1, 3]], FOUND[[1, 3]])
    assert np.array_equal(made.all_voters.predict(PICTURES), FOUND)


def test_a_picture_decided_alone_bears_one_vote_and_the_label_of_it() -> None:
    """Whatever the temperature of all voters together, which is not that of one."""
    made, _ = cascade(temperature=4.0)
    opinions = made.vote.predict(made.predict(PICTURES))
    assert [set(opinion.votes) for opinion in opinions] == [{"lenet"}, {"lenet", "alexnet"}, {"lenet"}, {"lenet", "alexnet"}]
    assert [opinions[0].label, opinions[2].label] == ["ok", "defect"]
    assert opinions[0].defect_probability == pytest.approx(0.01, abs=1e-6)


def test_the_band_leaves_no_picture_alone_that_the_ensemble_judges_otherwise() -> None:
    rng = np.random.default_rng(1)
    found = answers(*(tuple(pair) for pair in rng.uniform(0, 1, (400, 2))))
    certainty = find_cascade_band(vote(), "lenet", found)
    whole = [vote().choose_label(float(p)) for p in vote().compute_defect_probability(found)]
    own = found[:, 0, 1]
    assert 0 <= certainty.low < certainty.high <= 1
    assert {label for label, p in zip(whole, own, strict=True) if p < certainty.low} <= {"ok"}
    assert {label for label, p in zip(whole, own, strict=True) if p >= certainty.high} <= {"defect"}


def test_a_version_serves_as_a_cascade_on_real_runtimes(models_root: Path) -> None:
    """Untrained networks are never certain: with an empty band LeNet decides all, with a full one nobody is left out."""
    version = open_registry(models_root).open_version("tiny")
    pixels = np.random.default_rng(3).integers(0, 255, (5, 64, 64)).astype(np.uint8)
    whole = open_ensemble(version, "tensorflow", (8,))
    alone = open_ensemble(version, "tensorflow", (8,), cascade=True, band=(0.5, 0.5))
    all_asked = open_ensemble(version, "tensorflow", (8,), cascade=True, band=(0.0, 1.0))
    assert [set(opinion.votes) for opinion in alone.predict(pixels)] == [{"lenet"}] * 5
    assert np.allclose(all_asked.runtime.predict(pixels), whole.runtime.predict(pixels), atol=1e-5)


def test_a_version_that_records_no_band_needs_one_given(models_root: Path) -> None:
    def never(part: Version) -> Runtime:
        raise AssertionError("expected the refusal before a runtime is opened")

    with pytest.raises(ModelError, match=r"has no cascade band.*model\.cascade_low"):
        open_cascade(open_registry(models_root).open_version("tiny"), never)
