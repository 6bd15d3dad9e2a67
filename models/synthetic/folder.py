"""Rendered castings as files: class folders as a training wants them, masks, and a list of what is on each."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from models.synthetic.casting import Casting, series

OK, DEFECTIVE, MASKS = "ok_front", "def_front", "masks"


def write_series(
    folder: Path, count: int, seed: int, defect_share: float = 0.5, advance: Callable[[], object] = lambda: None
) -> dict[str, int]:
    """Writes `count` castings: `ok_front/` and `def_front/` (JPEG), `masks/def_front/` (PNG of the same stem; pixel values are
    those of `Kind`) and `castings.csv`. The same seed writes the same bytes. Returns the number of each class.
    """
    counts = {OK: 0, DEFECTIVE: 0}
    for name in (OK, DEFECTIVE, f"{MASKS}/{DEFECTIVE}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / "castings.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "class", "defects"])
        for casting in series(count, seed, defect_share):
            name = OK if casting.ok else DEFECTIVE
            counts[name] += 1
            path = f"{name}/casting_{seed}_{casting.number:06d}.jpeg"
            (folder / path).write_bytes(casting.jpeg())
            if not casting.ok:
                _save_mask(folder / MASKS / path, casting)
            rows.writerow([path, name, " + ".join(kind.word for kind in casting.kinds)])
            advance()
    return counts


def _save_mask(path: Path, casting: Casting) -> None:
    Image.fromarray(casting.mask).save(path.with_suffix(".png"))
