"""Builds, loads and saves the networks of a version. The manifest calls them voters, because they vote about each picture.

The import of TensorFlow takes seconds, so TensorFlow is imported inside the functions that need it.
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
    """Returns the manifest entry of an untrained network (voter). Its name is the name of the network: "alexnet" or "lenet"."""
    return Voter(name=network, network=network, weights_file=f"{network}.weights.h5", side_px=side_px, options=options)


def build_network(voter: Voter, classes: int, dtype: str = "float32") -> keras.Model:
    """Returns the untrained network that the manifest entry `voter` describes.

    Raises ModelError if the network does not accept the options in the entry.
    """
    from models.networks.alexnet import alexnet
    from models.networks.lenet import lenet

    functions = {"alexnet": alexnet, "lenet": lenet}
    try:
        return functions[voter.network](classes, voter.side_px, dtype=dtype, **voter.options)  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise ModelError(f"Cannot build {voter.network} for the voter {voter.name} with the options {voter.options}: {error}") from error


def seed_weights(seed: int) -> None:
    """Sets the random seed of Keras, so that networks built afterwards get reproducible initial weights."""
    from models.networks.framework import keras

    keras.utils.set_random_seed(seed)


def load_networks(version: Version, dtype: str = "float32") -> list[keras.Model]:
    """Returns the trained networks of `version`, in the order of the manifest. Weights are cast to `dtype`."""
    return [load_network(version, voter, dtype) for voter in version.manifest.voters]


def load_network(version: Version, voter: Voter, dtype: str = "float32") -> keras.Model:
    """Returns one trained network of `version`. `voter` is its entry in the manifest.

    Raises ModelError if the weights do not fit the manifest.
    """
    network = build_network(voter, len(version.manifest.classes), dtype)
    path = version.file(voter.weights_file)
    try:
        with version.copy_files(voter.weights_file) as folder:
            network.load_weights(folder / voter.weights_file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} does not contain the weights of a network {voter.network} with the options {voter.options}: {error}"
        ) from error
    return network


def save_weights(path: Path, voter: Voter, network: keras.Model, half: bool = False) -> None:
    """Writes the weights of `network` to `path`.

    If `half` is True, rounds the weights to float16 first. The weights in `network` are rounded, too, so that `network` predicts the same
    as the saved weights.
    """
    if half:
        small = build_network(voter, network.output_shape[-1], "float16")
        small.set_weights([weights.astype("float16") for weights in network.get_weights()])
        network.set_weights([weights.astype("float32") for weights in small.get_weights()])
        network = small
    network.save_weights(path)
