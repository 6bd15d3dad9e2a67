"""The pictures of a demonstration without a folder of its own: rendered once, kept in the user's cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from streams.user_cache import cache_root

# Raised with every change of the renderer that changes pictures: an old cache is then not taken for the new one.
RENDERING = 1
CASTINGS = 300
DEFECT_SHARE = 0.3  # a foundry that bad would close; fewer, and a short demo shows no gate moving


def cached_castings(seed: int, advance: Callable[[], None], cache: Path | None = None, count: int = CASTINGS) -> Path:
    """A folder of `count` rendered castings by class; `advance` is called for each one that is drawn."""
    from models.synthetic.casting import MASK_FOLDER, write_castings

    root = cache or cache_root()
    folder = root / f"castings-r{RENDERING}-s{seed}-n{count}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    # Made under another name and renamed when whole: an interrupted call leaves no half folder behind.
    partial = Path(tempfile.mkdtemp(prefix="castings-", dir=root))
    try:
        write_castings(partial, count, seed, DEFECT_SHARE, on_casting=lambda done, total: advance())
        shutil.rmtree(partial / MASK_FOLDER)  # a camera that replays this folder is not to photograph masks
        if not folder.is_dir():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
