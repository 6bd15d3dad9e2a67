"""Model versions on S3 or any other file system that fsspec opens, such as `s3://bucket/castline/versions`.

Before a version is used, it is copied to this machine and its checksums are verified. If the registry does not answer later, the copy is
used.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.registry.local_registry import (
    MANIFEST_FILE,
    MANIFEST_MAX_BYTES,
    SIGNATURE_FILE,
    SIGNATURE_FOLDER,
    SIGNATURE_MAX_BYTES,
    LocalRegistry,
    Version,
    expect_checksum,
    expect_signature,
    find_file_entry,
    parse_manifest,
    verify_files,
)
from models.registry.manifest import VERSION_PATTERN, Manifest
from streams.errors import ModelError
from streams.remote_files import MissingLibraryError, open_files
from streams.secrets import mask_address, mask_secrets
from streams.user_cache import user_cache_folder

COPY_CHUNK_BYTES = 2**20

log = logging.getLogger(__name__)


def parse_remote_url(root: Path | str) -> str | None:
    """Returns `root` as an fsspec address, or None if `root` is a folder of this machine.

    An address with a single slash (`s3:/`) is accepted, too, because the class `Path` removes the second slash.
    """
    found = re.match(r"([a-z][a-z0-9+.-]+):/{1,3}([^/].*)", str(root))
    if not found:
        return None
    return f"{found[1]}://{'/' if found[1] == 'file' else ''}{found[2]}"


class RemoteRegistry:
    """A registry at the fsspec address `url`. It implements `models.registry.Registry`.

    Local copies of versions are kept in the user's cache folder, in a separate subfolder for each address.

    With `reuse_checksums`, the checksum of a local file is computed again only if the size or the modification time of the file has
    changed. `public_keys` is a folder of public keys. If it is given, the registry refuses manifests without a valid signature.
    """

    def __init__(self, url: str, reuse_checksums: bool = False, public_keys: Path | None = None) -> None:
        self._url = url
        # This attribute is for messages, so it contains no passwords.
        self.url = mask_address(url)
        self._reuse_checksums = reuse_checksums
        copies = user_cache_folder() / "versions" / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._copies = LocalRegistry(copies, reuse_checksums, public_keys)
        self._public_keys = public_keys

    def list_names(self) -> list[str]:
        """Returns the sorted names of the remote folders that contain a manifest. The versions are not verified."""
        with _connect(self._url) as (files, root):
            names = [path.rsplit("/", 2)[1] for path in files.glob(f"{root}/*/{MANIFEST_FILE}")]
        return sorted(name for name in names if not name.startswith("."))

    def read_manifest(self, name: str) -> Manifest:
        """Returns the manifest of the version `name`, read from the remote registry.

        Raises ModelError if there is no such version, its manifest is not valid, or the registry does not answer.
        """
        with _connect(self._url) as (files, root):
            return self._read_manifest(files, f"{root}/{_check_name(name)}", name)

    def check_version(self, name: str) -> bool:
        """Compares the names and sizes of the remote files of the version `name` with its manifest.

        The result is always False. This means that the checksums were not compared.

        Raises ModelError if a file is missing or has a wrong size, or if the manifest does not name a file in the folder.
        """
        with _connect(self._url) as (files, root):
            folder = f"{root}/{_check_name(name)}"
            manifest = self._read_manifest(files, folder, name)
            sizes = {entry["name"].rsplit("/", 1)[1]: entry["size"] for entry in files.ls(folder, detail=True)}
        for file in sorted(sizes.keys() - manifest.files.keys() - {MANIFEST_FILE, ""}):
            raise ModelError(
                f"{self.url}/{name}/{file} is not named in {MANIFEST_FILE}. The folder of a version may hold only the files that its "
                "manifest names. Remove the file."
            )
        for file, entry in sorted(manifest.files.items()):
            if file not in sizes:
                raise ModelError(
                    f"{self.url}/{name}/{file} is named in {MANIFEST_FILE}, but there is no such file. Push the version again."
                )
            if sizes[file] != entry.bytes:
                raise ModelError(f"{self.url}/{name}/{file} has {sizes[file]} bytes instead of {entry.bytes}. Push the version again.")
        return False

    def open_version(self, name: str) -> Version:
        """Returns a local copy of the version `name`. Downloads the version if this machine has no intact copy with the same manifest.

        If the remote registry does not answer, the local copy is used. Raises ModelError if the version is missing or damaged.
        """
        try:
            with _connect(self._url) as (files, root):
                self._download(files, f"{root}/{_check_name(name)}", name)
        except _UnreachableError as error:
            if name not in self._copies.list_names():
                raise
            log.warning(
                "The local copy of version %s in %s is used, because the remote registry does not answer: %s",
                name,
                self._copies.root,
                error,
            )
        return self._copies.open_version(name)

    def read_file(self, name: str, file: str) -> bytes:
        """Returns the content of `file`, one file of the version `name`, without copying the version to this machine.

        Raises ModelError if the file is missing or changed, or if the remote registry does not answer.
        """
        with _connect(self._url) as (files, root):
            folder = f"{root}/{_check_name(name)}"
            entry = find_file_entry(self._read_manifest(files, folder, name), file)
            content: bytes = files.cat_file(f"{folder}/{file}", end=entry.bytes + 1)
        expect_checksum(hashlib.sha256(content).hexdigest(), entry, f"{self.url}/{name}/{file}")
        return content

    def push(self, version: Version) -> str:
        """Copies `version` into the remote registry and returns its address there.

        The manifest is copied last. Other programs see the version only when its manifest exists, so they never see half a version.

        Raises ModelError if a version with this name exists, because versions are never changed once written.
        """
        with _connect(self._url) as (files, root):
            folder = f"{root}/{version.name}"
            if files.exists(f"{folder}/{MANIFEST_FILE}"):
                raise ModelError(
                    f"{version.name} exists already at {self.url}. Choose another name, because versions are never changed once written."
                )
            if signature := LocalRegistry(version.folder.parent).read_signature(version.name):
                _upload_signature(files, folder, signature)
            for name in (*version.manifest.files, MANIFEST_FILE):
                files.makedirs(folder, exist_ok=True)
                files.put_file(str(version.file(name)), f"{folder}/{name}")
        return f"{self.url.rstrip('/')}/{version.name}"

    def read_signature(self, name: str) -> bytes:
        """Returns the signature of the manifest of the version `name`, or b"" if there is none."""
        with _connect(self._url) as (files, root):
            return _download_signature(files, f"{root}/{_check_name(name)}")

    def write_signature(self, name: str, signature: bytes) -> None:
        """Stores `signature` as the signature of the manifest of the version `name`. An earlier signature is replaced."""
        with _connect(self._url) as (files, root):
            _upload_signature(files, f"{root}/{_check_name(name)}", signature)

    def list_companions(self, folder: str) -> list[str]:
        """Returns the sorted names of the files in the remote folder `folder`, or [] if there is no such folder."""
        with _connect(self._url) as (files, root):
            try:
                entries = files.ls(f"{root}/{_check_segment(folder)}", detail=True)
            except FileNotFoundError:
                return []
        names = (entry["name"].rsplit("/", 1)[1] for entry in entries if entry["type"] == "file")
        return sorted(name for name in names if name)

    def read_companion(self, folder: str, file: str, max_bytes: int) -> bytes | None:
        """Returns the content of `file` in the remote folder `folder`, or None if it is missing or has more than `max_bytes` bytes."""
        with _connect(self._url) as (files, root):
            try:
                content: bytes = files.cat_file(f"{root}/{_check_segment(folder)}/{_check_segment(file)}", end=max_bytes + 1)
            except FileNotFoundError:
                return None
        return content if len(content) <= max_bytes else None

    def _read_manifest(self, files: Any, folder: str, name: str) -> Manifest:
        content = _download_manifest(files, folder, name)
        return self._parse(content, name, _download_signature(files, folder) if self._public_keys else b"")

    def _parse(self, content: bytes, name: str, signature: bytes) -> Manifest:
        path = f"{self.url}/{name}/{MANIFEST_FILE}"
        if self._public_keys is not None:
            expect_signature(self._public_keys, name, content, signature, path)
        manifest = parse_manifest(content, path)
        if manifest.version != name:
            raise ModelError(f"{path} names the version {manifest.version!r}, but the folder is called {name!r}. Push the version again.")
        return manifest

    def _download(self, files: Any, folder: str, name: str) -> None:
        content = _download_manifest(files, folder, name)
        signature = _download_signature(files, folder)
        if self._has_copy_of(name, content):
            self._copy_signature(name, content, signature)
            if self._is_copy_intact(name):
                return
        with self._copies.write_version(name, replace=True) as staged:
            (staged / MANIFEST_FILE).write_bytes(content)
            manifest = self._parse(content, name, signature)
            for file, entry in manifest.files.items():
                _download_file(files, f"{folder}/{file}", staged / file, entry.bytes)
            verify_files(staged, manifest.files)
        # Copy the signature only after the version. If the download of the version fails, the older local copy must keep its own signature.
        self._copy_signature(name, content, signature)
        log.info("Version %s was downloaded from %s.", name, folder)

    def _copy_signature(self, name: str, manifest: bytes, signature: bytes) -> None:
        """Stores `signature` beside the local copy of the version. Does nothing if `signature` is empty.

        Raises ModelError if this registry has public keys and `signature` is not valid. In this case, nothing is stored.
        """
        if not signature or signature == self._copies.read_signature(name):
            return
        if self._public_keys is not None:
            expect_signature(self._public_keys, name, manifest, signature, f"{self.url}/{name}/{MANIFEST_FILE}")
        self._copies.write_signature(name, signature)

    def _has_copy_of(self, name: str, manifest: bytes) -> bool:
        try:
            return (self._copies.root / name / MANIFEST_FILE).read_bytes() == manifest
        except OSError:
            return False

    def _is_copy_intact(self, name: str) -> bool:
        try:
            self._copies.open_version(name)
        except (OSError, ModelError):
            return False
        return True


class _UnreachableError(ModelError):
    """The remote registry does not answer. If this machine has a copy of the version, the copy can be used instead."""


@contextmanager
def _connect(url: str) -> Iterator[tuple[Any, str]]:
    """Yields the fsspec file system for `url`, and the path of `url` in this file system.

    Turns every error of fsspec within the `with` block into a ModelError.
    """
    shown = mask_address(url)
    try:
        with open_files(url) as (files, root):
            files.invalidate_cache()
            yield files, root.rstrip("/")
    except MissingLibraryError as error:
        raise ModelError(str(error)) from error
    except FileNotFoundError as error:
        raise ModelError(f"A file is missing in {shown}: {mask_secrets(str(error))}. Push the version again.") from error
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        message = (
            f"The model registry {shown} does not answer: {mask_secrets(str(error))}. Check the address, the network and the credentials."
        )
        raise _UnreachableError(message) from error


def _check_name(name: str) -> str:
    """Returns `name`. Raises ModelError if a version cannot have this name. For example, "../other" is refused."""
    if not re.fullmatch(VERSION_PATTERN, name):
        raise ModelError(f"There is no version {name[:64]!r}. The name of a version has only a-z, 0-9, dots, hyphens and underscores.")
    return name


def _check_segment(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise FileNotFoundError(name)
    return name


def _download_manifest(files: Any, folder: str, name: str) -> bytes:
    try:
        content: bytes = files.cat_file(f"{folder}/{MANIFEST_FILE}", end=MANIFEST_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelError(f"There is no version {name!r} in the model registry: {folder}/{MANIFEST_FILE} does not exist.") from error
    if len(content) > MANIFEST_MAX_BYTES:
        raise ModelError(
            f"{folder}/{MANIFEST_FILE} is too large: a manifest has at most {MANIFEST_MAX_BYTES} bytes. Push the version again."
        )
    return content


def _download_signature(files: Any, folder: str) -> bytes:
    try:
        content: bytes = files.cat_file(f"{SIGNATURE_FOLDER.format(version=folder)}/{SIGNATURE_FILE}", end=SIGNATURE_MAX_BYTES + 1)
    except FileNotFoundError:
        return b""
    return content


def _upload_signature(files: Any, folder: str, signature: bytes) -> None:
    target = SIGNATURE_FOLDER.format(version=folder)
    files.makedirs(target, exist_ok=True)
    files.pipe_file(f"{target}/{SIGNATURE_FILE}", signature)


def _download_file(files: Any, path: str, target: Path, expected_bytes: int) -> None:
    """Downloads `path` to `target`. Raises ModelError before the download if the file is not `expected_bytes` long."""
    size_bytes = files.size(path)
    if size_bytes != expected_bytes:
        raise ModelError(f"{path} has {size_bytes} bytes instead of {expected_bytes}. Push the version again.")
    with files.open(path, "rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, COPY_CHUNK_BYTES)
