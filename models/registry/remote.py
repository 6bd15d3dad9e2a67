"""Versions on a shelf far away: any folder that fsspec opens by its address, `s3://bucket/castline/versions` with the extra `s3`.

What is served is always a local copy whose checksums were verified after the fetch. It is fetched into a hidden folder and renamed
when it is whole: a fetch that broke off is never served. A version that was fetched before serves on while the shelf is out of reach.
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

import fsspec

from models.inference.runtimes.conversion import cache_folder
from models.registry import versions as registry
from models.registry.versions import MANIFEST, MANIFEST_BYTES, Version
from streams.errors import ModelError

CHUNK = 2**20
FOREIGN = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "adlfs")

log = logging.getLogger(__name__)


def address(root: Path | str) -> str | None:
    """The fsspec address that `root` is, None for a folder of this machine. A Path keeps one slash of `s3://`; both are understood."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/{1,3}([^/].*)", str(root))
    if not found:
        return None
    return f"{found[1]}://{'/' if found[1] == 'file' else ''}{found[2]}"


def names(url: str) -> list[str]:
    """Names of the folders on the shelf that hold a manifest, sorted."""
    with _opened(url) as (files, root):
        found = [path.rsplit("/", 2)[1] for path in files.glob(f"{root}/*/{MANIFEST}")]
    return sorted(name for name in found if not name.startswith("."))


def fetched(url: str, version: str) -> Path:
    """The local folder of versions that holds `version` of the shelf at `url`: copied now, or found as it is on the shelf.

    Raises ModelError when it is nowhere, or does not come whole.
    """
    local = cache_folder().parent / "versions" / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        with _opened(url) as (files, root):
            _fetch(files, f"{root}/{version}", local, version)
    except _OutOfReach as error:
        if not (local / version / MANIFEST).is_file():
            raise
        log.warning("%s; %s serves from %s", error, version, local)
    return local


def push(version: Version, url: str) -> str:
    """Copies `version` to the shelf at `url`, its manifest last: until then nobody sees it. Returns its address there.

    Raises ModelError when the shelf has a version of that name: versions are never changed once written.
    """
    with _opened(url) as (files, root):
        folder = f"{root}/{version.name}"
        if files.exists(f"{folder}/{MANIFEST}"):
            raise ModelError(f"expected a new version, found {version.name} at {url}; versions are never changed once written")
        for name in (*version.manifest.files, MANIFEST):
            files.makedirs(folder, exist_ok=True)
            files.put_file(str(version.file(name)), f"{folder}/{name}")
    return f"{url.rstrip('/')}/{version.name}"


class _OutOfReach(ModelError):
    """The shelf does not answer: what was fetched before may serve."""


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    try:
        files, root = fsspec.core.url_to_fs(url)
        files.invalidate_cache()
        yield files, root.rstrip("/")
    except ImportError as error:
        raise ModelError(f"{url}: needs a library that is not installed, for s3 the extra s3: pip install 'castline[s3]'") from error
    except FileNotFoundError as error:
        raise ModelError(f"{url}: expected a file there, found none: {error}") from error
    except ModelError:
        raise
    except Exception as error:
        # The libraries behind fsspec raise errors of their own, and need not be installed to be named here.
        if not isinstance(error, (OSError, ValueError)) and type(error).__module__.partition(".")[0] not in FOREIGN:
            raise
        raise _OutOfReach(f"{url}: out of reach: {error}") from error


def _fetch(files: Any, folder: str, local: Path, version: str) -> None:
    try:
        told = files.cat_file(f"{folder}/{MANIFEST}", end=MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelError(f"expected the version {version} on the shelf, found no {folder}/{MANIFEST}") from error
    if _held(local / version, told):
        return
    if len(told) > MANIFEST_BYTES:
        raise ModelError(f"{folder}/{MANIFEST}: expected at most {MANIFEST_BYTES} bytes")
    with registry.writing(local, version, replace=True) as staged:
        (staged / MANIFEST).write_bytes(told)
        manifest = registry.read_manifest(staged / MANIFEST)
        for name, entry in manifest.files.items():
            _copy(files, f"{folder}/{name}", staged / name, entry.bytes)
        registry.verify(staged, manifest.files)
    log.info("version %s fetched from %s", version, folder)


def _held(folder: Path, told: bytes) -> bool:
    """Whether the copy is what the shelf has, and undamaged."""
    try:
        if (folder / MANIFEST).read_bytes() != told:
            return False
        registry.verify(folder, registry.read_manifest(folder / MANIFEST).files)
    except (OSError, ModelError):
        return False
    return True


def _copy(files: Any, path: str, to: Path, most_bytes: int) -> None:
    """No more than the manifest says: a file that grew is refused before the disk is full of it."""
    size = files.size(path)
    if size != most_bytes:
        raise ModelError(f"{path}: expected {most_bytes} bytes, found {size}")
    with files.open(path, "rb") as source, to.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK)
