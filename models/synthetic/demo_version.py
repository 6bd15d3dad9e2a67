"""How the weights that the project ships were made, and are made again: by `castline models make-demo`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from models.synthetic.folder import write_series
from models.training.options import Options
from models.training.training_run import Course, Listener, Outcome

CASTINGS, SEED = 4000, 2026
OPTIONS = Options(
    side_px=160,  # the smallest hole is then still two pixels wide, and a picture takes half the time it takes at 224
    lenet_side_px=160,
    lenet_width=2,
    maps=1.0,
    dense_width=128,
    epochs=10,
    lenet_epochs=14,
    rate=3e-4,
    batch=16,  # AlexNet needs steps more than it needs smooth ones
    cost_miss=2,
    review_share=0.002,
    half=True,  # about 9 MB in all
)


def make_demo(root: Path, version: str, listener: Listener, advance: Callable[[], object] = lambda: None) -> Outcome:
    """Draws the castings, trains on them and writes the version; about a quarter of an hour on two cores."""
    with tempfile.TemporaryDirectory(prefix="castings-") as folder:
        castings = Path(folder) / "castings"
        write_series(castings, CASTINGS, SEED, advance=advance)
        return Course(OPTIONS, (castings,), root, version, "castline models make-demo").run(listener)
