"""The autoencoder has the memory and the discriminator of the papers, and can be built without them."""

from __future__ import annotations

import numpy as np
import pytest

from models.networks.autoencoder import ADDRESSING, FORGED, GENUINE, REBUILT, PrototypeMemory, ReversedGradient, build_autoencoder
from models.networks.framework import tf

pytestmark = pytest.mark.real


def test_the_autoencoder_rebuilds_pictures_of_the_same_size() -> None:
    rebuilt = build_autoencoder(48, width=4, prototypes=8).rebuilding(np.full((2, 48, 48, 1), 0.5, np.float32))
    assert rebuilt.shape == (2, 48, 48, 1)
    assert 0 <= float(np.min(rebuilt)) <= float(np.max(rebuilt)) <= 1


@pytest.mark.parametrize(
    ("prototypes", "has_adversary", "outputs"),
    [
        (8, True, {REBUILT, ADDRESSING, GENUINE, FORGED}),
        (0, True, {REBUILT, GENUINE, FORGED}),
        (8, False, {REBUILT, ADDRESSING}),
        (0, False, {REBUILT}),
    ],
)
def test_memory_and_discriminator_can_be_left_out(prototypes: int, has_adversary: bool, outputs: set[str]) -> None:
    autoencoder = build_autoencoder(32, width=4, prototypes=prototypes, has_adversary=has_adversary)
    assert set(autoencoder.training.output) == outputs
    assert any(isinstance(layer, PrototypeMemory) for layer in autoencoder.rebuilding.layers) == bool(prototypes)


def test_the_addressing_is_sparse_and_its_sum_is_one() -> None:
    memory = PrototypeMemory(64)
    codes = np.random.default_rng(1).normal(size=(2, 3, 3, 16)).astype(np.float32)
    memory(codes)
    weights = np.asarray(memory.address(codes))
    assert weights.shape == (2, 3, 3, 64)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert (weights == 0).mean() > 0.5


def test_a_code_that_equals_a_prototype_is_rebuilt_from_it() -> None:
    memory = PrototypeMemory(2)
    memory.build((None, 1, 1, 2))
    memory.set_weights([np.array([[3, 0], [0, 3]], np.float32)])
    mixture, entropy = memory(np.array([[[[1, 0]]]], np.float32))
    np.testing.assert_allclose(mixture, [[[[3, 0]]]], atol=1e-3)
    np.testing.assert_allclose(entropy, [[0]], atol=1e-3)


def test_the_gradient_is_reversed_before_the_discriminator() -> None:
    values = tf.Variable([2.0, -1.0])
    with tf.GradientTape() as tape:
        result = ReversedGradient()(values)
        loss = tf.reduce_sum(3 * result)
    np.testing.assert_array_equal(result, [2, -1])
    np.testing.assert_array_equal(tape.gradient(loss, values), [-3, -3])


@pytest.mark.parametrize(("side_px", "prototypes"), [(16, 8), (100, 8), (32, 1), (32, -1)])
def test_what_cannot_be_built_is_refused(side_px: int, prototypes: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        build_autoencoder(side_px, prototypes=prototypes)
