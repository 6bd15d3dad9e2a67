"""Builds the network that a manifest's voter names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models.registry.manifest import Option, Voter
from models.registry.versions import Version
from streams.errors import ModelError

if TYPE_CHECKING:
    from models.networks.framework import keras


def build(voter: Voter, classes: int, dtype: str = "float32") -> keras.Model:
    """The network of `voter`, untrained. Raises ModelError when its options are not those of our code."""
    from models.networks.alexnet import alexnet  # TensorFlow takes seconds to import: only who computes waits for it
    from models.networks.lenet import lenet

    known = {"alexnet": alexnet, "lenet": lenet}
    try:
        return known[voter.network](classes, voter.side_px, dtype=dtype, **voter.options)  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise ModelError(f"voter {voter.name}: cannot build {voter.network} with {voter.options}: {error}") from error


def draw_from(seed: int) -> None:
    """The weights of networks built from now on are drawn from `seed`."""
    from models.networks.framework import keras

    keras.utils.set_random_seed(seed)


def load_networks(version: Version, dtype: str = "float32") -> list[keras.Model]:
    """The trained networks of `version`, in the order of its voters; weights are cast to `dtype` from what was saved."""
    return [load_network(version, voter, dtype) for voter in version.manifest.voters]


def load_network(version: Version, voter: Voter, dtype: str = "float32") -> keras.Model:
    """The trained network of one `voter` of `version`. Raises ModelError: when its weights are not what the manifest says."""
    network = build(voter, len(version.manifest.classes), dtype)
    path = version.file(voter.weights_file)
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: expected the weights of {voter.network} with {voter.options}: {error}") from error
    return network


def voter(network: Literal["alexnet", "lenet"], side_px: int, options: dict[str, Option]) -> Voter:
    """A voter as it stands before its training: one of each network, named after it."""
    return Voter(name=network, network=network, weights_file=f"{network}.weights.h5", side_px=side_px, options=options)


def save_weights(path: Path, voter: Voter, network: keras.Model, half: bool = False) -> None:
    """Writes the weights of `network`; with `half` in half precision, and the network then has what was written."""
    if half:
        small = build(voter, network.output_shape[-1], "float16")
        small.set_weights([weights.astype("float16") for weights in network.get_weights()])
        network.set_weights([weights.astype("float32") for weights in small.get_weights()])
        network = small
    network.save_weights(path)
