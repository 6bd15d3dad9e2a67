"""Model versions in a folder of this machine: `<root>/<version>/` holds `manifest.json`, the weights and the golden set.

A new version is written to a temporary folder, which is renamed at the end. Pickled objects are refused, because they could run any code.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.pictures.decoder_version import DECODER_VERSION
from models.registry.manifest import DriftReference, FileEntry, Manifest
from streams.atomic_file import flush_to_disk, write_atomically
from streams.errors import ModelError
from streams.signatures import MANIFEST_SIGNER, is_manifest_signed
from streams.user_cache import sha256_of_file

MANIFEST_FILE = "manifest.json"
# A manifest with more than 1 MiB is refused, so that a wrong file does not fill the memory.
MANIFEST_MAX_BYTES = 2**20
# The signature of a manifest lies in the folder `<version>.signature`, beside the folder of the version. With the signature inside the
# folder of the version, older releases would refuse the version.
SIGNATURE_FOLDER = "{version}.signature"
SIGNATURE_FILE = "manifest.sig"
SIGNATURE_MAX_BYTES = 1024
_MAX_REMEMBERED_FILES = 10_000
_CHUNK_BYTES = 2**20
_MEMORY_FOLDER = Path("/dev/shm")
_SPARE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Version:
    """A model version on this machine. When it was opened, all its files were present and their checksums were correct."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The name of the version in verdicts, metrics and settings."""
        return self.manifest.version

    def file(self, name: str) -> Path:
        """Returns the path of the file `name` in the version's folder."""
        return self.folder / name

    @contextmanager
    def copy_files(self, *names: str) -> Iterator[Path]:
        """Yields a folder with copies of the files `names`, and deletes the folder at the end of the `with` block.

        Other users could exchange the files in the registry after the version was opened. So everything that reads a file of a version must
        read such a copy. The checksums of the copies are verified, and only this user can write to the folder.

        Raises ModelError, naming the file, if a file is missing or changed, or if there is no room for the copies.
        """
        entries = {self.file(name): find_file_entry(self.manifest, name) for name in names}
        with _make_copies(entries) as folder:
            yield Path(folder)

    def select_voters(self, names: Sequence[str]) -> Version:
        """Returns a copy of this version that has only the networks `names`."""
        selected = tuple(voter for voter in self.manifest.voters if voter.name in names)
        return replace(self, manifest=self.manifest.model_copy(update={"voters": selected}))


class LocalRegistry:
    """A registry in the folder `root` of this machine. It implements `models.registry.Registry`.

    If `public_keys`, a folder of public keys, is given, manifests without a valid signature are refused.
    """

    def __init__(self, root: Path, reuse_checksums: bool = False, public_keys: Path | None = None) -> None:
        self.root = root
        self._reuse_checksums = reuse_checksums
        self._public_keys = public_keys

    def list_names(self) -> list[str]:
        """Returns the sorted names of the folders that contain a manifest. The versions are not verified."""
        if not self.root.is_dir():
            return []
        return sorted(found.parent.name for found in self.root.glob(f"*/{MANIFEST_FILE}") if not found.parent.name.startswith("."))

    def read_manifest(self, name: str) -> Manifest:
        """Returns the manifest of the version `name`.

        Raises ModelError if there is no such version, or its manifest is not valid or names another version.
        """
        folder = self._find_folder(name)
        path = folder / MANIFEST_FILE
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"The manifest {path} is missing, or it is not a regular file. Copy the version again.")
        if path.stat().st_size > MANIFEST_MAX_BYTES:
            raise ModelError(
                f"{path} has {path.stat().st_size} bytes, but a manifest has at most {MANIFEST_MAX_BYTES}. Copy the version again."
            )
        content = path.read_bytes()
        if self._public_keys is not None:
            expect_signature(self._public_keys, name, content, self.read_signature(name), str(path))
        manifest = parse_manifest(content, str(path))
        if manifest.version != name:
            raise ModelError(f"{path} names the version {manifest.version!r}, but the folder is called {name!r}. Copy the version again.")
        return manifest

    def read_signature(self, name: str) -> bytes:
        """Returns the signature of the manifest of the version `name`, or b"" if there is none."""
        return self.read_companion(SIGNATURE_FOLDER.format(version=name), SIGNATURE_FILE, SIGNATURE_MAX_BYTES) or b""

    def write_signature(self, name: str, signature: bytes) -> None:
        """Stores `signature`, the signature of the manifest of the version `name`, and replaces a former one."""
        folder = self.root / SIGNATURE_FOLDER.format(version=name)
        try:
            write_atomically(folder / SIGNATURE_FILE, signature)
        except OSError as error:
            raise ModelError(
                f"{folder / SIGNATURE_FILE} cannot be written: {error.strerror}. Check the permissions and the disk."
            ) from error

    def check_version(self, name: str) -> bool:
        """Compares the files of the version `name` with its manifest: names, sizes and checksums.

        Always returns True. (False would mean that the checksums were not compared, as in a remote registry.)

        Raises ModelError, naming the file, if a file is missing, changed or not named in the manifest.
        """
        self.open_version(name)
        return True

    def open_version(self, name: str) -> Version:
        """Returns the version `name` after every checksum was verified.

        Raises ModelError, naming the file, if a file is missing, changed or not named in the manifest.
        """
        manifest = self.read_manifest(name)
        folder = self.root / name
        try:
            verify_files(folder, manifest.files, self._reuse_checksums)
        except OSError as error:
            raise ModelError(f"{folder} cannot be read: {error.strerror}. Check the permissions and the disk.") from error
        return Version(folder, manifest)

    def read_file(self, name: str, file: str) -> bytes:
        """Returns the content of `file`, one file of the version `name`. Raises ModelError if the file is missing or changed."""
        entry = find_file_entry(self.read_manifest(name), file)
        path = self.root / name / file
        try:
            if path.is_symlink() or path.stat().st_size != entry.bytes:
                raise ModelError(f"{path} is not the file that the manifest names. Copy the version again.")
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}. Copy the version again.") from error
        expect_checksum(hashlib.sha256(content).hexdigest(), entry, str(path))
        return content

    @contextmanager
    def write_version(self, name: str, replace: bool = False) -> Iterator[Path]:
        """Yields an empty folder for the files of a version. If the `with` block raises no error, the folder becomes the version `name`.

        Raises ModelError if the version exists and `replace` is false.
        """
        final = self.root / name
        if final.exists() and not replace:
            raise ModelError(f"{final} exists already. Choose another name, because versions are never changed once written.")
        self.root.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self.root))
        try:
            # Let every user read the folder, because workers can run as another user. mkdtemp makes a folder that only its owner can read.
            staged.chmod(0o755)
            yield staged
            for path in staged.iterdir():
                flush_to_disk(path)
            flush_to_disk(staged)
            _move_into_place(staged, final)
            flush_to_disk(self.root)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def list_companions(self, folder: str) -> list[str]:
        """Returns the sorted names of the files in `folder`, such as `demo.report`. Returns [] if the registry has no such folder."""
        path = self._companion_folder(folder)
        return sorted(file.name for file in path.iterdir() if file.is_file() and not file.is_symlink()) if path else []

    def read_companion(self, folder: str, file: str, max_bytes: int) -> bytes | None:
        """Returns the content of `file` in `folder`, such as `demo.report`. Returns None if the file is missing, a link or too large."""
        parent = self._companion_folder(folder)
        if parent is None or Path(file).name != file:
            return None
        path = parent / file
        try:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > max_bytes:
                return None
            return path.read_bytes()
        except OSError:
            return None

    def _find_folder(self, name: str) -> Path:
        # The name may come from Kafka or a web address. A path such as "../other" must not leave the registry.
        if name in ("", ".", "..") or "\0" in name or Path(name).name != name or not (self.root / name).is_dir():
            known = ", ".join(self.list_names()) or "none"
            raise ModelError(f"There is no version {name[:64]!r} in {self.root}. Versions there: {known}.")
        return self.root / name

    def _companion_folder(self, folder: str) -> Path | None:
        path = self.root / folder
        return path if Path(folder).name == folder and not path.is_symlink() and path.is_dir() else None


def parse_manifest(content: bytes, path: str) -> Manifest:
    """Parses `content`, the JSON text of the manifest at `path`. Raises ModelError, which names the field, if the manifest is not valid."""
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field, reason = ".".join(str(part) for part in first["loc"]) or "the whole file", first["msg"]
        raise ModelError(f"The manifest {path} is not valid ({field}: {reason}). Copy the version again.") from error


def expect_signature(public_keys: Path, name: str, manifest: bytes, signature: bytes, path: str) -> None:
    """Raises ModelError unless `signature` is the administrator's signature of `manifest`, the content of the file at `path`."""
    if is_manifest_signed(public_keys, name, manifest, signature):
        return
    found = "its signature does not fit" if signature else "it has no signature"
    raise ModelError(
        f"The manifest {path} must be signed by the role {MANIFEST_SIGNER}, because signing.public_keys is set, but {found}. If you trust "
        f"this version, sign it on a machine with the private key of this role: castline models sign {name}"
    )


def read_verified_manifest(version: Version) -> bytes:
    """Returns the bytes of the manifest file of `version`, for example to sign them.

    Raises ModelError if the file was changed after `version` was opened and verified.
    """
    path = version.file(MANIFEST_FILE)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Check the permissions and the disk.") from error
    if _format_manifest(parse_manifest(content, str(path))) != _format_manifest(version.manifest):
        raise ModelError(f"The manifest {path} was changed after it was verified. Find out who changed the file, then try again.")
    return content


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> Manifest:
    """Writes `manifest.json` into `folder`, the folder of a new version, and returns the manifest.

    `fields` are all fields except `files`, `decoder_version`, `made_by` and `made_with`, which this function adds.
    """
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST_FILE)
    entries = {path.name: FileEntry(sha256=sha256_of_file(path), bytes=path.stat().st_size) for path in paths}
    manifest = Manifest.model_validate({**_describe_maker(), **fields, "files": entries})
    (folder / MANIFEST_FILE).write_text(_format_manifest(manifest), encoding="utf-8")
    return manifest


def _describe_maker() -> dict[str, Any]:
    user = f"{getpass.getuser()}@{socket.gethostname()}"
    return {"decoder_version": DECODER_VERSION, "made_by": user, "made_with": metadata.version("castline")}


def add_drift_reference(version: Version, reference: DriftReference) -> Manifest:
    """Adds `reference` to the manifest of an old version, and returns the new manifest.

    The version judges pictures as before. Raises ModelError if the version already has a drift reference.
    """
    path = version.folder / MANIFEST_FILE
    if version.manifest.reference is not None:
        raise ModelError(f"{path} has a drift reference already, and it cannot be replaced. Train a new version to get another reference.")
    manifest = version.manifest.model_copy(update={"reference": reference})
    write_atomically(path, _format_manifest(manifest))
    return manifest


def _make_copies(entries: Mapping[Path, FileEntry]) -> tempfile.TemporaryDirectory[str]:
    """Copies the files `entries` to a new folder that only this user can enter.

    If there is room, the new folder is made in the memory of the machine. So a line can get its version even if the disk is full.
    Otherwise, the new folder is made in the folder of temporary files.
    """
    if _has_room(_MEMORY_FOLDER, sum(entry.bytes for entry in entries.values())):
        # The memory can fill up after the check. Then the disk is tried.
        with suppress(OSError):
            return _copy_all(entries, _MEMORY_FOLDER)
    try:
        return _copy_all(entries, None)
    except OSError as error:
        names = ", ".join(str(path) for path in entries)
        raise ModelError(
            f"{names} cannot be copied to a folder of temporary files: {error.strerror or error}. Make room in {_MEMORY_FOLDER} or in the "
            "folder of temporary files (TMPDIR), and check the permissions."
        ) from error


def _has_room(folder: Path, size_bytes: int) -> bool:
    try:
        return os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free > size_bytes + _SPARE_BYTES
    except OSError:
        return False


def _copy_all(entries: Mapping[Path, FileEntry], parent: Path | None) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="castline-version-", dir=parent)
    try:
        for path, entry in entries.items():
            _copy_verified(path, Path(folder.name) / path.name, entry)
    except BaseException:
        folder.cleanup()
        raise
    return folder


def _copy_verified(source: Path, target: Path, entry: FileEntry) -> None:
    """Copies the file `source` to `target`. Raises ModelError if the copied bytes are not those that `entry` describes."""
    digest, count = hashlib.sha256(), 0
    try:
        file = source.open("rb")
    except OSError as error:
        raise ModelError(f"{source} cannot be read: {error.strerror}. Check the permissions and the disk.") from error
    with file, target.open("xb") as copy:
        while count <= entry.bytes and (chunk := file.read(_CHUNK_BYTES)):
            digest.update(chunk)
            count += len(chunk)
            copy.write(chunk)
    expect_checksum(digest.hexdigest(), entry, str(source))


def verify_files(folder: Path, entries: Mapping[str, FileEntry], reuse_checksums: bool = False) -> None:
    """Compares the files in `folder` with the `entries` of its manifest: names, sizes and SHA-256.

    Raises ModelError, which names the file, if `folder` does not contain exactly these files and the manifest.
    """
    found = {path.name: path for path in folder.iterdir()}
    for name in sorted(found.keys() - entries.keys() - {MANIFEST_FILE}):
        raise ModelError(
            f"{found[name]} is not named in {MANIFEST_FILE}. The folder of a version may hold only the files that its manifest names. "
            "Remove the file."
        )
    for name, entry in sorted(entries.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"{path} is named in {MANIFEST_FILE}, but there is no such file. Copy the version again.")
        stat = path.stat()
        if stat.st_size != entry.bytes:
            raise ModelError(f"{path} has {stat.st_size} bytes instead of {entry.bytes}. Copy the version again.")
        checksum = _remembered_checksums.find(path) if reuse_checksums else sha256_of_file(path)
        expect_checksum(checksum, entry, str(path))


def find_file_entry(manifest: Manifest, file: str) -> FileEntry:
    """Returns the entry of `file` in `manifest`. Raises ModelError if the manifest does not name the file."""
    if file not in manifest.files:
        raise ModelError(f"The manifest of version {manifest.version} does not name the file {file[:64]!r}. Copy the version again.")
    return manifest.files[file]


def expect_checksum(checksum: str, entry: FileEntry, path: str) -> None:
    """Raises ModelError if `checksum`, the SHA-256 of the file at `path`, differs from that in `entry`."""
    if checksum != entry.sha256:
        raise ModelError(
            f"{path} is damaged or was tampered with: its SHA-256 is {checksum} instead of {entry.sha256}. Copy the version again."
        )


class _RememberedChecksums:
    """Remembers the checksums of files, for the pages of the station. Thread-safe.

    A file is read again only if its device, inode, size or time of change differs. If several threads ask for the checksum of the same
    file, one of them reads the file and the others wait. Only one file is read at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[int, ...], str] = OrderedDict()

    def find(self, path: Path) -> str:
        """Returns the SHA-256 of the content of `path`. Raises OSError if the file cannot be read."""
        with self._lock:
            stat = path.stat()
            identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if identity not in self._found:
                self._found[identity] = sha256_of_file(path)
            self._found.move_to_end(identity)
            while len(self._found) > _MAX_REMEMBERED_FILES:
                self._found.popitem(last=False)
            return self._found[identity]


_remembered_checksums = _RememberedChecksums()


def _format_manifest(manifest: Manifest) -> str:
    return manifest.model_dump_json(indent=2, by_alias=True) + "\n"


def _move_into_place(staged: Path, final: Path) -> None:
    """Renames the folder `staged` to `final`. An old folder `final` is moved aside first, and moved back if the renaming fails."""
    if not final.exists():
        staged.rename(final)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent)) / final.name
    final.rename(aside)
    try:
        staged.rename(final)
    except OSError:
        aside.rename(final)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
