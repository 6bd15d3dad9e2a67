"""Versions on disk: `<root>/<version>/` with `manifest.json`, the voters' weights and the golden set, all or nothing.

Weights are Keras' `.weights.h5`: arrays only, for networks that our own code builds from the manifest. A `.keras` file would carry a
description of layers to be built from the file, which is one thing more to distrust. Nothing is unpickled, and a version holds no code.

A version is complete or absent: it is written into a hidden folder beside its place, flushed to disk, and renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.registry.manifest import FileEntry, Manifest, Reference
from streams.errors import ModelError

MANIFEST = "manifest.json"
MANIFEST_BYTES = 2**20  # a larger one is not a manifest
BUNDLED = Path(__file__).parents[1] / "versions"  # what the project ships


@dataclass(frozen=True, slots=True)
class Version:
    """A version whose files were all found and whose checksums were right when it was loaded."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """What verdicts call it."""
        return self.manifest.version

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.folder / name

    def part(self, voters: Sequence[str]) -> Version:
        """The version with some of its voters only, for a runtime that computes no others."""
        kept = tuple(voter for voter in self.manifest.voters if voter.name in voters)
        return replace(self, manifest=self.manifest.model_copy(update={"voters": kept}))


def load(root: Path, version: str) -> Version:
    """The version `version` below `root`, every checksum verified; a shelf far away is copied from first (`models.registry.remote`).

    Raises ModelError, naming the file, when one is missing, unknown, changed, or no ordinary file.
    """
    if version in ("", ".", "..") or Path(version).name != version:
        raise ModelError(f"expected the name of a version below {root}, found {version!r}")
    from models.registry import remote as shelf  # which imports this module

    if url := shelf.address(root):
        root = shelf.fetched(url, version)
    folder = root / version
    if not folder.is_dir():
        known = ", ".join(names(root)) or "none"
        raise ModelError(f"expected the model folder {folder}, found none; versions there: {known}")
    manifest = read_manifest(folder / MANIFEST)
    if manifest.version != version:
        raise ModelError(f"{folder / MANIFEST}: expected version {version!r}, found {manifest.version!r}")
    verify(folder, manifest.files)
    return Version(folder, manifest)


def names(root: Path) -> list[str]:
    """Names of the folders below `root` that hold a manifest, sorted; none of them is verified."""
    from models.registry import remote as shelf

    if url := shelf.address(root):
        return shelf.names(url)
    if not root.is_dir():
        return []
    return sorted(found.parent.name for found in root.glob(f"*/{MANIFEST}") if not found.parent.name.startswith("."))


def locate(model: str | Path) -> Version:
    """The version that a person means: a folder, or the name of one that the project ships."""
    folder = Path(model)
    if not folder.is_dir() and len(folder.parts) == 1 and (BUNDLED / model).is_dir():
        folder = BUNDLED / model
    folder = folder.absolute()
    return load(folder.parent, folder.name)


@contextmanager
def writing(root: Path, version: str, replace: bool = False) -> Iterator[Path]:
    """A folder to write the files of a new version into; it takes its place when the block ends without an error.

    A failure at any point, a full disk included, leaves what was there before. Raises ModelError when the version exists
    already and `replace` is false.
    """
    final = root / version
    if final.exists() and not replace:
        raise ModelError(f"expected a new version, found {final}; versions are never changed once written")
    root.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=root))
    try:
        staged.chmod(0o755)  # mkdtemp's 0o700 would hide it from a worker of another user
        yield staged
        for path in staged.iterdir():
            _flush(path)
        _flush(staged)
        _put_in_place(staged, final)
        _flush(root)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def entries(folder: Path) -> dict[str, FileEntry]:
    """Checksums of all files in `folder` but the manifest."""
    return {
        path.name: FileEntry(sha256=_sha256(path), bytes=path.stat().st_size) for path in sorted(folder.iterdir()) if path.name != MANIFEST
    }


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> Manifest:
    """Writes `manifest.json` for the files in `folder`, whose checksums are added to `fields`."""
    manifest = Manifest.model_validate({**fields, "files": entries(folder)})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")
    return manifest


def add_reference(version: Version, reference: Reference) -> Manifest:
    """Writes `reference` into the manifest of a version made before there was one. It judges as before: no other file changes.

    Raises ModelError: when it has one, since what was measured is never changed.
    """
    if version.manifest.reference is not None:
        raise ModelError(f"{version.folder / MANIFEST}: expected a version without a reference, found one")
    manifest = version.manifest.model_copy(update={"reference": reference})
    staged = version.folder / f".{MANIFEST}.part"
    staged.write_text(manifest.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")
    _flush(staged)
    staged.replace(version.folder / MANIFEST)
    _flush(version.folder)
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises ModelError when there is none or it is not valid."""
    if path.is_symlink() or not path.is_file():
        raise ModelError(f"expected the manifest {path}, found none")
    if path.stat().st_size > MANIFEST_BYTES:
        raise ModelError(f"{path}: expected at most {MANIFEST_BYTES} bytes, found {path.stat().st_size}")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ModelError(f"{path}: {where}: {first['msg']}") from error


def verify(folder: Path, expected: Mapping[str, FileEntry]) -> None:
    """Raises ModelError, naming the file, when `folder` does not hold exactly the `expected` files and the manifest."""
    found = {path.name: path for path in folder.iterdir()}
    for name in sorted(found.keys() - expected.keys() - {MANIFEST}):
        raise ModelError(f"{found[name]}: not named in {MANIFEST}; a version holds nothing else")
    for name, entry in sorted(expected.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"{path}: named in {MANIFEST}, but there is no such file")
        if path.stat().st_size != entry.bytes:
            raise ModelError(f"{path}: expected {entry.bytes} bytes, found {path.stat().st_size}")
        checksum = _sha256(path)
        if checksum != entry.sha256:
            raise ModelError(f"{path}: expected SHA-256 {entry.sha256}, found {checksum}; damaged or tampered with")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(staged: Path, final: Path) -> None:
    """Renames; a folder in the way is moved aside first and back when that fails."""
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
