"""Opens the registry of model versions that a setting or a person names: a local folder or an address on S3."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from models.registry.local_registry import LocalRegistry, Version
from models.registry.manifest import Manifest
from models.registry.remote_registry import RemoteRegistry, parse_remote_url

# The folder of the versions that Castline ships.
BUNDLED_VERSIONS = Path(__file__).parents[1] / "versions"


class Registry(Protocol):
    """A folder of model versions, read by name. Every method raises ModelError if the registry cannot be read."""

    def list_names(self) -> list[str]:
        """Returns the sorted names of all versions. A listed version can still be damaged."""

    def read_manifest(self, name: str) -> Manifest:
        """Returns the manifest of the version `name`, without reading its other files.

        Raises ModelError if there is no such version or its manifest is not valid.
        """

    def check_version(self, name: str) -> bool:
        """Checks the files of the version `name` without copying them. Returns whether their checksums were compared.

        A remote registry compares sizes only, because a checksum needs the whole file; `open_version` compares the checksums.
        Raises ModelError, naming the file, if a file is missing, changed or not named in the manifest.
        """

    def open_version(self, name: str) -> Version:
        """Returns the version `name` with all its files on this machine and every checksum verified.

        Raises ModelError, naming the file, if a file is missing, changed or not named in the manifest.
        """

    def list_companions(self, folder: str) -> list[str]:
        """Returns the sorted names of the files in `folder`, which lies beside the versions, for example `demo.report`."""

    def read_companion(self, folder: str, file: str, max_bytes: int) -> bytes | None:
        """Returns the content of `file` in `folder` beside the versions, or None if it is missing, a link or too large."""


def open_registry(root: Path | str, reuse_checksums: bool = False) -> Registry:
    """Returns the registry at `root`: a folder of this machine or an fsspec address such as s3://bucket/castline/versions.

    With `reuse_checksums` a checksum is computed again only if the size or the modification time of its file has changed.
    That is meant for pages that are shown often; a worker that is going to compute with the files leaves it off.
    """
    url = parse_remote_url(root)
    return RemoteRegistry(url, reuse_checksums) if url else LocalRegistry(Path(root), reuse_checksums)


def locate_version(model: str | Path) -> Version:
    """Returns the verified version that a person names: a folder, or the name of a version that Castline ships.

    Raises ModelError if there is no such version or it is damaged.
    """
    folder = Path(model)
    if not folder.is_dir() and len(folder.parts) == 1 and (BUNDLED_VERSIONS / model).is_dir():
        folder = BUNDLED_VERSIONS / model
    folder = folder.absolute()
    return LocalRegistry(folder.parent).open_version(folder.name)
