"""Opens a registry of model versions, either in a local folder or on S3."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from models.registry.local_registry import LocalRegistry, Version
from models.registry.manifest import Manifest
from models.registry.remote_registry import RemoteRegistry, parse_remote_url
from streams.settings import Settings

BUNDLED_VERSIONS = Path(__file__).parents[1] / "versions"


class Registry(Protocol):
    """A folder of model versions, on this machine or remote. Every method raises ModelError if the registry cannot be read."""

    def list_names(self) -> list[str]:
        """Returns the sorted names of all versions. The versions are not verified, so some of them can be damaged."""

    def read_manifest(self, name: str) -> Manifest:
        """Returns the manifest of the version `name`, without reading its other files.

        Raises ModelError if there is no such version or its manifest is not valid.
        """

    def check_version(self, name: str) -> bool:
        """Compares the files of the version `name` with its manifest. Raises ModelError if a file is missing or changed.

        A local registry compares checksums, and returns True. A remote registry compares only names and sizes, because it does not
        download the files, and returns False.

        Also raises ModelError if the folder of the version contains a file that the manifest does not name.
        """

    def open_version(self, name: str) -> Version:
        """Returns the version `name` after its checksums were verified. Remote files are first copied to this machine.

        Raises ModelError, naming the file, if a file is missing, changed or not named in the manifest.
        """

    def read_file(self, name: str, file: str) -> bytes:
        """Returns the content of `file`, one file of the version `name`, after its checksum was verified. No other file is read.

        Raises ModelError if the manifest does not name the file, or if the file is missing or changed.
        """

    def read_signature(self, name: str) -> bytes:
        """Returns the signature of the manifest of the version `name`, or b"" if there is none. The signature is not checked."""

    def write_signature(self, name: str, signature: bytes) -> None:
        """Stores `signature` as the signature of the manifest of the version `name`. An earlier signature is replaced."""

    def list_companions(self, folder: str) -> list[str]:
        """Returns the sorted names of the files in `folder`, which lies beside a version. Example: `demo.report` beside `demo`."""

    def read_companion(self, folder: str, file: str, max_bytes: int) -> bytes | None:
        """Returns the content of `file` in `folder`, which lies beside a version. Example: `demo.report` beside `demo`.

        Returns None if the file is missing, is a link, or has more than `max_bytes`.
        """


def open_registry(root: Path | str, reuse_checksums: bool = False, public_keys: Path | None = None) -> Registry:
    """Returns the registry at `root`: a folder of this machine or an fsspec address such as s3://bucket/castline/versions.

    With `reuse_checksums`, the checksum of a file is computed again only if the size or the modification time of the file has changed. This
    makes web pages faster. Workers must not use `reuse_checksums`, because they must notice every change of a file.

    `public_keys` is a folder of public keys. If it is given, the registry refuses manifests without a valid signature.
    """
    url = parse_remote_url(root)
    return RemoteRegistry(url, reuse_checksums, public_keys) if url else LocalRegistry(Path(root), reuse_checksums, public_keys)


def open_plant_registry(settings: Settings, reuse_checksums: bool = False) -> Registry:
    """Returns the registry of the plant. The setting `model.root` says where the registry is.

    If the setting `signing.public_keys` is set, the registry refuses manifests without a valid signature. All programs that work for the
    plant must open the registry with this function. Otherwise, they could use a version without a valid signature.
    """
    return open_registry(settings.model.root, reuse_checksums, settings.signing.public_keys)


def locate_version(model: str | Path) -> Version:
    """Returns the version `model` after its checksums were verified.

    `model` is the folder of a version, or the name of a version that was installed with Castline, such as `demo`. Raises ModelError if the
    version is missing or damaged.
    """
    folder = Path(model)
    if not folder.is_dir() and len(folder.parts) == 1 and (BUNDLED_VERSIONS / model).is_dir():
        folder = BUNDLED_VERSIONS / model
    folder = folder.absolute()
    return LocalRegistry(folder.parent).open_version(folder.name)
