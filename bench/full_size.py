"""Writes an untrained model version for benchmarks, with AlexNet and LeNet as large as in the papers that introduced them."""

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

_NAME = "full-size"
_SIDE_PX = 224
_CLASSES = ("def_front", "ok_front")
_GOLDEN_PICTURES = 16
# A runtime's probabilities may differ from those in the golden set by this much. Untrained networks give probabilities near 0.5, where
# rounding errors are largest.
_TOLERANCE = 0.25
_SEED = 1998


def write_full_size_version(root: Path) -> str:
    """Writes an untrained version into a folder below `root` and returns its name. This takes some seconds and about 240 MB of disk.

    AlexNet gets pictures of 224 px, and LeNet of 112 px. The verdicts mean nothing, but take as long as real ones.
    """
    # This import is not at the top of the file, because TensorFlow takes seconds to import.
    from models.inference.runtimes.tensorflow import TensorFlowRuntime

    seed_weights(_SEED)
    wide: dict[str, NetworkOption] = {"dense_width": 4096, "dense_layers": 2}
    voters: list[Voter] = [make_voter("lenet", 112, {}), make_voter("alexnet", _SIDE_PX, wide)]
    pixels = np.stack([decode_picture(casting.to_jpeg(), _SIDE_PX).pixels for casting in render_series(_GOLDEN_PICTURES, _SEED)])
    with LocalRegistry(root).write_version(_NAME) as folder:
        for one in voters:
            _set_normalisations(build_network(one, len(_CLASSES)), pixels).save_weights(folder / one.weights_file)
        fields = _make_manifest_fields(voters)
        save_golden_set(folder / "golden.npz", GoldenSet(pixels, np.zeros((len(pixels), len(voters), len(_CLASSES)), np.float32)))
        manifest = write_manifest(folder, fields)
        probabilities = TensorFlowRuntime(Version(folder, manifest), "tensorflow", (_GOLDEN_PICTURES,), 0).predict(pixels)
        save_golden_set(folder / "golden.npz", GoldenSet(pixels, probabilities))
        write_manifest(folder, fields)
    return _NAME


def _set_normalisations(network: Any, pixels: npt.NDArray[np.uint8]) -> Any:
    """Computes the averages in the network's normalisation layers from the pictures `pixels`, and returns the network.

    Without these averages, the values inside the network would be too large for runtimes that compute with 8 bits.
    """
    from models.networks.preprocessing import resample, scale_pixels

    for layer in network.layers:
        if layer.name.startswith("norm"):
            layer.momentum = 0.0
    network(resample(scale_pixels(pixels), network), training=True)
    return network


def _make_manifest_fields(voters: list[Voter]) -> dict[str, object]:
    """Returns the fields of the manifest, without checksums.

    The threshold is 0.1. Untrained networks give probabilities far from 0.1, so rounding errors cannot change a label.
    """
    return {
        "version": _NAME,
        "created": datetime.now(UTC),
        "classes": _CLASSES,
        "ok_class": 1,
        "preprocessing": {"side_px": _SIDE_PX},
        "voters": [one.model_dump() for one in voters],
        "threshold": 0.1,
        "band": {"low": 0.1, "high": 0.1},
        "costs": {"miss": 1, "false_alarm": 1},
        "golden": {"file": "golden.npz", "tolerance": _TOLERANCE},
        "data": {"sha256": "0" * 64, "pictures": dict.fromkeys(_CLASSES, 0), "split": "none"},
        "figures": {},
        "command": "castline bench runtimes --model full",
    }
