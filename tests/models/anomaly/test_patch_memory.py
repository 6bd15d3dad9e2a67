"""The patch memory: the features of AlexNet, what is learned from good parts, and what is found."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from models.anomaly.patch_memory import (
    MEMORY_PATCHES,
    FirstConvolution,
    PatchMemory,
    learn_patch_memory,
    measure_limits,
    read_first_convolution,
)
from models.anomaly.scorer import NO_PART_SCORE, GoodOnlyScorer, load_arrays, save_arrays
from models.networks.factory import load_network
from models.networks.framework import keras
from models.pictures.part_finder import find_part
from models.registry import locate_version
from models.synthetic import RenderedCasting, render_series
from streams.errors import ModelError
from tests.models.anomaly.test_template import SIDE_PX, overexpose_ring, resample

pytestmark = pytest.mark.real

Pixels = npt.NDArray[np.uint8]


@cache
def convolution() -> FirstConvolution:
    return read_first_convolution(locate_version("demo"))


@cache
def castings(are_good: bool) -> tuple[RenderedCasting, ...]:
    """Rendered castings in which the part is found."""
    rendered = (casting for casting in render_series(70, seed=5) if casting.is_ok == are_good)
    return tuple(casting for casting in rendered if find_part(resample(casting.pixels)) is not None)


@cache
def pictures(are_good: bool) -> Pixels:
    return np.stack([resample(casting.pixels) for casting in castings(are_good)])


@cache
def memory() -> PatchMemory:
    return learn_patch_memory(pictures(True)[:20], convolution())


def test_the_features_are_those_of_the_trained_alexnet() -> None:
    version = locate_version("demo")
    (voter,) = (voter for voter in version.manifest.voters if voter.network == "alexnet")
    network = load_network(version, voter)
    picture = np.random.default_rng(3).integers(0, 256, (160, 160)).astype(np.uint8)
    layer = keras.Model(network.input, network.get_layer("conv1").output)
    expected = np.asarray(layer(picture[None, ..., None].astype(np.float32) / 255))[0]
    assert convolution().compute_features(picture) == pytest.approx(expected, abs=1e-3)


def test_twenty_good_castings_tell_defective_castings_from_good_ones() -> None:
    good, bad = memory().score(pictures(True)[20:]).scores, memory().score(pictures(False)).scores
    assert roc_auc_score([0] * len(good) + [1] * len(bad), [*good, *bad]) > 0.9


def test_equal_or_overexposed_pictures_give_finite_scores() -> None:
    good = pictures(True)
    for learned in (np.repeat(good[:1], 4, axis=0), overexpose_ring(good[:8])):
        scores = learn_patch_memory(learned, convolution()).score(np.concatenate((learned[:2], good[8:10]))).scores
        assert np.isfinite(scores).all()


def test_the_largest_residual_lies_on_the_defect() -> None:
    residuals = memory().score(pictures(False)).residuals
    hits = 0
    for casting, residual in zip(castings(False), residuals, strict=True):
        row, column = np.unravel_index(residual.argmax(), residual.shape)
        mask = resample((casting.mask > 0).astype(np.uint8) * 255)
        hits += bool(mask[max(0, row - 5) : row + 6, max(0, column - 5) : column + 6].any())
    assert hits / len(residuals) > 0.6


def test_the_limits_are_measured_on_parts_that_the_memory_has_not_seen() -> None:
    """These few patches all fit into the memory. If it had seen all of them, every distance would be 0."""
    random = np.random.default_rng(4)
    features = random.standard_normal((6, 10, 8)).astype(np.float32)
    limits = measure_limits(features, np.zeros(10, np.int32), random)
    assert limits[0] > 1


def test_the_memory_is_smaller_than_what_it_has_seen() -> None:
    assert memory().patches.shape == (MEMORY_PATCHES, convolution().bias.size)


def test_a_picture_without_a_part_has_a_finite_score_and_no_residual() -> None:
    found = memory().score(np.stack([np.zeros((SIDE_PX, SIDE_PX), np.uint8), pictures(False)[0]]))
    assert found.scores[0] == NO_PART_SCORE > found.scores[1]
    assert not found.residuals[0].any()


def test_a_memory_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    scorer: GoodOnlyScorer = memory()
    assert scorer.save(tmp_path) == ("patch-memory.npz",)
    loaded = PatchMemory.load(tmp_path)
    assert np.array_equal(loaded.score(pictures(False)[:2]).scores, scorer.score(pictures(False)[:2]).scores)
    assert loaded.side_px == SIDE_PX


@pytest.mark.parametrize("name", ["kernel", "whitening", "patches", "limits"])
def test_a_damaged_memory_is_refused_by_name(tmp_path: Path, name: str) -> None:
    memory().save(tmp_path)
    path = tmp_path / "patch-memory.npz"
    arrays = load_arrays(path, ("kernel", "bias", "means", "whitening", "patches", "limits", "side_px"))
    save_arrays(path, {**arrays, name: arrays[name].ravel()[:1] * np.nan})
    with pytest.raises(ModelError, match=r"patch-memory\.npz"):
        PatchMemory.load(tmp_path)


def test_one_picture_is_refused() -> None:
    with pytest.raises(ModelError, match="needs at least 2 good pictures"):
        learn_patch_memory(pictures(True)[:1], convolution())


def test_pictures_of_another_side_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, 192, 192\)"):
        memory().score(np.zeros((1, 160, 160), np.uint8))
