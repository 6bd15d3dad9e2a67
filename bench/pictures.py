"""The pictures that a measurement uses."""

from __future__ import annotations

from pathlib import Path

from streams.errors import SettingsError

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})


def bench_pictures(folder: Path | None, count: int) -> list[bytes]:
    """`count` encoded pictures: of `folder` and below in the order of their paths, or rendered castings.

    Raises SettingsError: when the folder holds none.
    """
    if folder is None:
        from models.synthetic import render_series

        return [casting.to_jpeg() for casting in render_series(count, seed=11)]
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)[:count]
    if not found:
        raise SettingsError(f"--images: expected pictures ({', '.join(sorted(_SUFFIXES))}) in {folder}, found none")
    return [path.read_bytes() for path in found]
