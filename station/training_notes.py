"""Makes the warning for the pages that show a verdict, if its model version has learned from rendered pictures only."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from models.registry import open_registry
from station.configuration import current_settings
from streams.errors import ModelError

# A registry that does not answer is asked again after this time.
_REMEMBERED_S = 60


def describe_training_pictures(version: str) -> str:
    """Returns a warning if the model version `version` has learned from rendered pictures only, else "".

    If the registry does not answer or no longer has the version, the result is "" too.
    """
    if not version:
        return ""
    return _read_note(current_settings().model.root, version, int(time.monotonic() / _REMEMBERED_S))


@lru_cache(maxsize=256)
def _read_note(root: Path | str, version: str, period: int) -> str:
    try:
        return open_registry(root).read_manifest(version).describe_training_pictures()
    except ModelError:
        return ""
