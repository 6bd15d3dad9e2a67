"""Trains the model version `demo` on rendered castings (`castline models make-demo`). The version is installed with Castline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from models.synthetic.casting import write_castings
from models.training.options import TrainingOptions
from models.training.training_run import TrainingCallback, TrainingResult, TrainingRun

CASTINGS, SEED = 4000, 2026
# The side is 160 px, because the smallest hole is then still two pixels wide, and training takes half as long as with 224 px. The batches
# are small, because AlexNet learns better from many training steps than from less noisy gradients. The weights are stored in half
# precision, which takes about 9 MB.
OPTIONS = TrainingOptions(
    side_px=160,
    lenet_side_px=160,
    lenet_width=2,
    maps=1.0,
    dense_width=128,
    epochs=10,
    lenet_epochs=14,
    rate=3e-4,
    batch=16,
    cost_miss=2,
    review_share=0.002,
    half=True,
)


def make_demo_version(
    root: Path, version: str, callback: TrainingCallback, on_casting: Callable[[int, int], object] = lambda done, total: None
) -> TrainingResult:
    """Renders castings, trains the networks on them and writes the model version. On two cores this takes about a quarter of an hour."""
    with tempfile.TemporaryDirectory(prefix="castings-") as folder:
        castings = Path(folder) / "castings"
        write_castings(castings, CASTINGS, SEED, on_casting=on_casting)
        return TrainingRun(OPTIONS, (castings,), root, version, "castline models make-demo").run(callback)
