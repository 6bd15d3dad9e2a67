"""Reads the manifests of model versions, and the indexes of their training pictures, for the pages of the station."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from models.inference.training_index import TrainingIndex, load_training_index
from models.registry import Manifest, open_registry
from station.configuration import current_settings
from streams.errors import ModelError

_READ_AGAIN_AFTER_S = 60


def find_manifest(version: str) -> Manifest | None:
    """Returns the manifest of the model version, or None if the registry does not answer or has no such version."""
    if not version:
        return None
    settings = current_settings()
    return _read_manifest(settings.model.root, settings.signing.public_keys, version, int(time.monotonic() / _READ_AGAIN_AFTER_S))


@lru_cache(maxsize=256)
def _read_manifest(root: Path | str, public_keys: Path | None, version: str, period: int) -> Manifest | None:
    try:
        return open_registry(root, public_keys=public_keys).read_manifest(version)
    except ModelError:
        return None


def describe_training_pictures(version: str) -> str:
    """Returns a warning if the model version was trained on rendered pictures only.

    Otherwise, or if the manifest of the version cannot be read, returns "".
    """
    manifest = find_manifest(version)
    return manifest.describe_training_pictures() if manifest else ""


def find_training_index(manifest: Manifest) -> TrainingIndex:
    """Returns the training index of a version. Raises ModelError if the version has no such index, or if the index cannot be read."""
    entry = manifest.training_index
    if entry is None:
        raise ModelError(f"The version {manifest.version} has no index of its training pictures.")
    settings, sha256 = current_settings(), manifest.files[entry.file].sha256
    return _read_training_index(settings.model.root, settings.signing.public_keys, manifest.version, entry.file, sha256)


# The checksum `sha256` is a part of the cache's key. If a person replaces the version, the checksum changes, and the index is read again.
@lru_cache(maxsize=8)
def _read_training_index(root: Path | str, public_keys: Path | None, version: str, file: str, sha256: str) -> TrainingIndex:
    return load_training_index(open_registry(root, public_keys=public_keys).read_file(version, file))
