"""A version of the papers' size, untrained: what a machine has to compute when nothing was made smaller."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.golden_set import GoldenSet, save_golden_set
from models.networks.factory import build_network, make_voter, seed_weights
from models.pictures.decoder import decode_picture
from models.registry import LocalRegistry, Version, write_manifest
from models.registry.manifest import NetworkOption, Voter
from models.synthetic import render_series

NAME, SIDE = "full-size", 224
CLASSES = ("def_front", "ok_front")
GOLDEN_PICTURES = 16
TOLERANCE = 0.25  # wide: untrained, its probabilities lie in the middle, where an error of a logit moves them most
SEED = 1998


def make(root: Path) -> str:
    """Writes the version below `root` and returns its name: AlexNet at 224 px with two layers of 4096, LeNet as published at 112 px.

    The weights are drawn from a seed; its verdicts mean nothing, its speed does. Some 240 MB, some seconds.
    """
    from models.inference.runtimes.tensorflow import TensorFlowRuntime  # takes seconds to import

    seed_weights(SEED)
    wide: dict[str, NetworkOption] = {"dense_width": 4096, "dense_layers": 2}
    voters: list[Voter] = [make_voter("lenet", 112, {}), make_voter("alexnet", SIDE, wide)]
    pixels = np.stack([decode_picture(casting.to_jpeg(), SIDE).pixels for casting in render_series(GOLDEN_PICTURES, SEED)])
    with LocalRegistry(root).write_version(NAME) as folder:
        for one in voters:
            _settled(build_network(one, len(CLASSES)), pixels).save_weights(folder / one.weights_file)
        fields = _fields(voters)
        save_golden_set(folder / "golden.npz", GoldenSet(pixels, np.zeros((len(pixels), len(voters), len(CLASSES)), np.float32)))
        manifest = write_manifest(folder, fields)
        answers = TensorFlowRuntime(Version(folder, manifest), "tensorflow", (GOLDEN_PICTURES,), 0).predict(pixels)
        save_golden_set(folder / "golden.npz", GoldenSet(pixels, answers))
        write_manifest(folder, fields)
    return NAME


def _settled(network: Any, pixels: npt.NDArray[np.uint8]) -> Any:
    """`network` with the averages of its normalisations as pictures give them: without, its values grow from layer to layer as a
    trained network's do not, and 8 bits are too few for them.
    """
    from models.networks.preprocessing import resample, scale_pixels

    for layer in network.layers:
        if layer.name.startswith("norm"):
            layer.momentum = 0.0
    network(resample(scale_pixels(pixels), network), training=True)
    return network


def _fields(voters: list[Voter]) -> dict[str, object]:
    """The manifest, but for its checksums. The threshold lies where an untrained network's answers do not: at a tenth."""
    return {
        "version": NAME,
        "created": datetime.now(UTC),
        "classes": CLASSES,
        "ok_class": 1,
        "preprocessing": {"side_px": SIDE},
        "voters": [one.model_dump() for one in voters],
        "threshold": 0.1,
        "band": {"low": 0.1, "high": 0.1},
        "costs": {"miss": 1, "false_alarm": 1},
        "golden": {"file": "golden.npz", "tolerance": TOLERANCE},
        "data": {"sha256": "0" * 64, "pictures": dict.fromkeys(CLASSES, 0), "split": "none"},
        "figures": {},
        "command": "castline bench runtimes --model full",
    }
