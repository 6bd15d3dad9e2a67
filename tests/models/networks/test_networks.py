"""The networks are those of the papers, but for what their docstrings name."""

from __future__ import annotations

import numpy as np
import pytest

from models.networks.alexnet import LocalResponse, alexnet
from models.networks.factory import build_network
from models.networks.lenet import lenet
from models.registry.manifest import Voter
from streams.errors import ModelError

pytestmark = pytest.mark.real


def counted(network: object, kind: str) -> int:
    return sum(type(layer).__name__ == kind for layer in network.layers)  # type: ignore[attr-defined]


def test_alexnet_has_the_papers_layers() -> None:
    network = alexnet(2, 224, dense_width=32)
    assert [counted(network, kind) for kind in ("Conv2D", "MaxPooling2D", "BatchNormalization", "Dense")] == [5, 3, 2, 3]
    assert [network.get_layer(f"conv{n}").filters for n in range(1, 6)] == [96, 256, 384, 384, 256]


def test_alexnet_of_the_papers_size_has_the_papers_weights() -> None:
    """60 million in the paper, of which two thirds of the first convolution's are colour; 1000 classes."""
    network = alexnet(1000, 224, dense_width=4096, groups=2, normalisation="local-response")
    assert 58e6 < network.count_params() < 64e6


def test_lenet_has_the_papers_layers() -> None:
    network = lenet(10, 32)
    assert [counted(network, kind) for kind in ("Conv2D", "MaxPooling2D", "Dense")] == [2, 2, 3]
    assert network.get_layer("s4").output.shape == (None, 5, 5, 16)
    assert network.get_layer("f5").units == 120
    assert network.get_layer("f6").units == 84


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("side_px", [16, 64, 97, 160])
def test_lenet_takes_any_side_and_its_rows_sum_to_one(classes: int, side_px: int) -> None:
    answers = np.asarray(lenet(classes, side_px)(np.random.default_rng(1).random((3, side_px, side_px, 1), np.float32)))
    assert answers.shape == (3, classes)
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dense_layers", [0, 1, 2, 3])
def test_the_number_of_fully_connected_layers_is_a_choice(dense_layers: int) -> None:
    assert counted(alexnet(2, 64, 16, dense_layers), "Dense") == dense_layers + 1
    assert counted(lenet(2, 32, dense_layers), "Dense") == dense_layers + 1


def test_a_logistic_head_answers_two_columns_that_sum_to_one() -> None:
    answers = np.asarray(lenet(2, 32, head="logistic")(np.random.default_rng(1).random((4, 32, 32, 1), np.float32)))
    assert answers.shape == (4, 2)
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_local_response_is_the_papers_formula() -> None:
    values = np.random.default_rng(1).normal(0, 30, (1, 1, 1, 9)).astype(np.float32)
    found = np.asarray(LocalResponse()(values))[0, 0, 0]
    for i, value in enumerate(values[0, 0, 0]):
        around = values[0, 0, 0, max(0, i - 2) : i + 3]
        assert found[i] == pytest.approx(value / (2 + 1e-4 * (around**2).sum()) ** 0.75, rel=1e-4)


@pytest.mark.parametrize(("network", "side_px"), [("alexnet", 32), ("lenet", 16)])
def test_options_that_do_not_fit_are_refused(network: str, side_px: int) -> None:
    voter = Voter.model_validate({"name": "one", "network": network, "weights_file": "w.h5", "side_px": side_px, "options": {"legs": 4}})
    with pytest.raises(ModelError, match="Cannot build"):
        build_network(voter, 2)
