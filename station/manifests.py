"""Reads the manifests of the model versions that judged the parts on the pages."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from models.registry import Manifest, open_registry
from station.configuration import current_settings
from streams.errors import ModelError

# A registry that does not answer is asked again after this time.
_REMEMBERED_S = 60


def find_manifest(version: str) -> Manifest | None:
    """Returns the manifest of the model version `version`, or None if the registry does not answer or no longer has the version."""
    if not version:
        return None
    return _read_manifest(current_settings().model.root, version, int(time.monotonic() / _REMEMBERED_S))


@lru_cache(maxsize=256)
def _read_manifest(root: Path | str, version: str, period: int) -> Manifest | None:
    try:
        return open_registry(root).read_manifest(version)
    except ModelError:
        return None


def describe_training_pictures(version: str) -> str:
    """Returns a warning if the model version `version` has learned from rendered pictures only, else "".

    If the manifest of the version cannot be read, the result is "" too.
    """
    manifest = find_manifest(version)
    return manifest.describe_training_pictures() if manifest else ""
