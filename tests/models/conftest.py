"""Fixtures for the tests of the networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def without_graphs() -> Iterator[None]:
    """TensorFlow computes each operation at once and builds no graph of a training step.

    Building the graph takes most of the processor time of a training of few steps. Other tests run trainings of the same networks with
    graphs. Fixtures of a module are made before this fixture, so their trainings have graphs.
    """
    from models.networks.framework import tf  # takes seconds to import

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
