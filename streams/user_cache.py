"""Finds Castline's folder in the user's cache, and verifies the files of that folder by checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from streams.atomic_file import write_atomically


def user_cache_folder() -> Path:
    """Returns Castline's folder in the user's cache: `castline` below XDG_CACHE_HOME, or below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "castline"


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of the content of `path` in hexadecimal. Raises OSError if the file cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksum(path: Path, sha256: str) -> None:
    """Writes the checksum `sha256` of `path` to a file beside it, such as `model.sha256` for `model.onnx`. `path` need not exist yet."""
    write_atomically(_checksum_file(path), sha256)


def has_valid_checksum(path: Path) -> bool:
    """Returns whether the file `path` exists and has the checksum that `write_checksum` wrote to the file beside it."""
    try:
        return _checksum_file(path).read_text(encoding="ascii") == sha256_of_file(path)
    except (OSError, UnicodeDecodeError):
        return False


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
