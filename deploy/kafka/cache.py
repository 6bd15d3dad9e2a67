"""Where this user's caches lie."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`castline` in the user's cache folder, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "castline"
