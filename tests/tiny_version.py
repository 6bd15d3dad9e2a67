"""Makes a small, untrained model version for tests. Files and networks are real, but the predictions mean nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from models.inference.golden_set import GoldenSet, save_golden_set
from models.networks.factory import build_network, make_voter
from models.registry import LocalRegistry, Version, open_registry, write_manifest

VOTERS = (make_voter("alexnet", 64, {"dense_width": 16, "dense_layers": 1}), make_voter("lenet", 32, {}))


def make_tiny_version(
    root: Path,
    name: str = "tiny",
    threshold: float = 0.5,
    seed: int = 7,
    side_px: int = 64,
    classes: tuple[str, ...] = ("ok", "defect"),
    pictures: int = 0,
) -> Version:
    """Writes the version `name` below `root`, with a small AlexNet at 64 px, a LeNet, and random weights from `seed`.

    The first of `classes` is that of the good parts. The manifest claims that there were `pictures` training pictures of each class.
    """
    # Imported here, because they import TensorFlow, which takes seconds.
    from models.inference.runtimes.tensorflow import TensorFlowRuntime
    from models.networks.framework import keras

    keras.utils.set_random_seed(seed)
    pixels = np.random.default_rng(7).integers(0, 256, (4, side_px, side_px), dtype=np.uint8)
    fields = _describe(name, threshold, side_px, classes, pictures)
    # The predictions of the golden set are computed from the written weights, as a training run does.
    with LocalRegistry(root).write_version(name) as folder:
        for voter in VOTERS:
            build_network(voter, len(classes)).save_weights(folder / voter.weights_file)
        save_golden_set(folder / "golden.npz", GoldenSet(pixels, np.zeros((4, 2, len(classes)), np.float32)))
        manifest = write_manifest(folder, fields)
        predictions = TensorFlowRuntime(Version(folder, manifest), "tensorflow", (4,), 0).predict(pixels)
        save_golden_set(folder / "golden.npz", GoldenSet(pixels, predictions))
        write_manifest(folder, fields)
    return open_registry(root).open_version(name)


def make_version_of_random_bytes(root: Path) -> Version:
    """Writes the version `tiny` below `root`, with random bytes as weights and golden set. A registry accepts it, but no runtime does."""
    random = np.random.default_rng(7)
    with LocalRegistry(root).write_version("tiny") as folder:
        for name in (*(voter.weights_file for voter in VOTERS), "golden.npz"):
            (folder / name).write_bytes(random.bytes(40_000))
        write_manifest(folder, _describe("tiny", 0.5, 64, ("ok", "defect"), 0))
    return open_registry(root).open_version("tiny")


def _describe(name: str, threshold: float, side_px: int, classes: tuple[str, ...], pictures: int) -> dict[str, object]:
    """Returns the fields of the manifest."""
    return {
        "version": name,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "classes": classes,
        "ok_class": 0,
        "preprocessing": {"side_px": side_px},
        "voters": [voter.model_dump() for voter in VOTERS],
        "threshold": threshold,
        "band": {"low": threshold, "high": threshold},
        "costs": {"miss": 1, "false_alarm": 1},
        "golden": {"file": "golden.npz", "tolerance": 0.2},
        "data": {"sha256": "0" * 64, "pictures": dict.fromkeys(classes, pictures), "split": "none"},
        "figures": {},
        "command": "tests/tiny_version.py",
    }
