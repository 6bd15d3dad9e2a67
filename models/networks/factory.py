"""Builds, loads and saves the network of a manifest's voter.

TensorFlow takes seconds to import, so only the functions that need it import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models.registry import Version
from models.registry.manifest import NetworkOption, Voter
from streams.errors import ModelError

if TYPE_CHECKING:
    from models.networks.framework import keras


def make_voter(network: Literal["alexnet", "lenet"], side_px: int, options: dict[str, NetworkOption]) -> Voter:
    """Returns the voter of an untrained network. The voter is named after the network, because an ensemble has at most one of each."""
    return Voter(name=network, network=network, weights_file=f"{network}.weights.h5", side_px=side_px, options=options)


def build_network(voter: Voter, classes: int, dtype: str = "float32") -> keras.Model:
    """Returns the untrained network of `voter`. Raises ModelError if the network does not have the voter's options."""
    from models.networks.alexnet import alexnet
    from models.networks.lenet import lenet

    functions = {"alexnet": alexnet, "lenet": lenet}
    try:
        return functions[voter.network](classes, voter.side_px, dtype=dtype, **voter.options)  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise ModelError(f"Cannot build {voter.network} for the voter {voter.name} with the options {voter.options}: {error}") from error


def seed_weights(seed: int) -> None:
    """Seeds the random initial weights of all networks that are built from now on."""
    from models.networks.framework import keras

    keras.utils.set_random_seed(seed)


def load_networks(version: Version, dtype: str = "float32") -> list[keras.Model]:
    """Returns the trained networks of `version` in the order of its voters, with weights cast to `dtype`."""
    return [load_network(version, voter, dtype) for voter in version.manifest.voters]


def load_network(version: Version, voter: Voter, dtype: str = "float32") -> keras.Model:
    """Returns the trained network of one `voter` of `version`. Raises ModelError if the weights do not fit the manifest."""
    network = build_network(voter, len(version.manifest.classes), dtype)
    path = version.file(voter.weights_file)
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not hold the weights of {voter.network} with the options {voter.options}: {error}") from error
    return network


def save_weights(path: Path, voter: Voter, network: keras.Model, half: bool = False) -> None:
    """Writes the weights of `network` to `path`.

    With `half` they are written as float16, and `network` is given the rounded weights, so that it predicts what the file will.
    """
    if half:
        small = build_network(voter, network.output_shape[-1], "float16")
        small.set_weights([weights.astype("float16") for weights in network.get_weights()])
        network.set_weights([weights.astype("float32") for weights in small.get_weights()])
        network = small
    network.save_weights(path)
