"""The object store of large and of kept pictures, and of heat maps: a folder, or anything fsspec opens by its address.

Content-addressed: a claim is `pictures/<first two digits>/<sha256>`, of a heat map `maps/...`, counted from the store's root. So
the same picture is stored once, a claim can be verified by itself, and no claim names anything outside the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from streams.atomic_file import write_atomically
from streams.errors import PictureError

CLAIM_MISSING = "claim-missing"
CLAIM_DAMAGED = "claim-damaged"

# No segment begins with a dot, none is empty, no scheme, no drive: nothing that leads out of the store.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_ADDRESS = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,9}}")
StoreFolder = Literal["pictures", "maps"]
_CLAIM = re.compile(r"(?:pictures|maps)/([0-9a-f]{2})/([0-9a-f]{64})")
# The largest that the settings allow a picture to be; a store of ours holds nothing larger.
_LARGEST_BYTES = 256 * 2**20


class ObjectStore:
    """Puts pictures below `url` and fetches them again. Thread-safe; opens the store at its first use."""

    def __init__(self, url: str, max_bytes: int = _LARGEST_BYTES) -> None:
        self._url = url
        self._max_bytes = max_bytes

    def put(self, value: bytes, folder: StoreFolder = "pictures") -> str:
        """Keeps `value` and returns its claim once it is safe: on disk, or confirmed by the remote store. Repeats are free.

        Raises OSError: when the store cannot be written.
        """
        sha256 = hashlib.sha256(value).hexdigest()
        claim = f"{folder}/{sha256[:2]}/{sha256}"
        files, root = fsspec.core.url_to_fs(self._url)
        path = f"{root}/{claim}"
        # An object of the right name and size is taken to be right: its name is written last, and by content.
        if files.exists(path) and files.size(path) == len(value):
            return claim
        if isinstance(files, LocalFileSystem):
            write_atomically(Path(path), value, mode=0o600)
        else:
            files.pipe_file(path, value)  # object stores show an object only when it is whole
        return claim

    def fetch(self, claim: str) -> bytes:
        """The picture that `claim` stands for, verified.

        Raises PictureError: `claim-missing` when there is none, `claim-damaged` when the claim is malformed, or what lies
        there is too large or another picture. OSError: when the store itself cannot be reached; ask again later.
        """
        match = _CLAIM.fullmatch(claim)
        if not match or match[1] != match[2][:2]:
            raise PictureError(CLAIM_DAMAGED, f"expected a claim pictures/<2 digits>/<sha256>, found {claim[:120]!r}")
        files, root = fsspec.core.url_to_fs(self._url)
        path = f"{root}/{claim}"
        try:
            size = files.size(path)
            if size is None or size > self._max_bytes:
                raise PictureError(CLAIM_DAMAGED, f"expected at most {self._max_bytes} bytes behind {claim}, found {size}")
            value: bytes = files.cat_file(path)
        except (FileNotFoundError, IsADirectoryError):
            raise PictureError(CLAIM_MISSING, f"expected a picture behind {claim}, found none") from None
        found = hashlib.sha256(value).hexdigest()
        if found != match[2]:
            raise PictureError(CLAIM_DAMAGED, f"expected sha256 {match[2]} behind {claim}, found {found}")
        return value

    def delete(self, address: str) -> None:
        """Forgets what lies at `address`; nothing there is no error. An address that does not lie in the store is passed over.

        Raises OSError: when the store cannot be reached.
        """
        if not _ADDRESS.fullmatch(address):
            return
        files, root = fsspec.core.url_to_fs(self._url)
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(f"{root}/{address}")

    def list_older_than(self, folder: str, before: datetime) -> list[str]:
        """The addresses below `folder` of what was put there before that time.

        Raises OSError: when the store cannot be reached.
        """
        files, root = fsspec.core.url_to_fs(self._url)
        try:
            found: dict[str, dict[str, Any]] = files.find(f"{root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        # A folder tells seconds since 1970, an S3 store a time with its zone.
        times = {path: entry.get("LastModified") or datetime.fromtimestamp(entry["mtime"], UTC) for path, entry in found.items()}
        return sorted(path[path.index(f"/{folder}/") + 1 :] for path, at in times.items() if at < before)
