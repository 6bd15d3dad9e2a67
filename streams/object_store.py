"""The object store for large pictures, archived pictures and heat maps: a folder, or any file system that fsspec can open.

The address of an object in the store is called a claim: `<folder>/<first two digits of the checksum>/<checksum>`. The checksum is the
SHA-256 of the object's bytes, so equal pictures have the same address and are stored once.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fsspec.implementations.local import LocalFileSystem

from streams.atomic_file import write_atomically
from streams.errors import PictureError
from streams.remote_files import limit_transfer, open_files
from streams.secrets import SecretAddress, reveal

CLAIM_MISSING = "claim-missing"
CLAIM_DAMAGED = "claim-damaged"

StoreFolder = Literal["pictures", "maps", "studies"]

# One segment of an address. A segment never begins with a dot, so it cannot be "..". It never contains a colon, so it cannot be a scheme
# (s3:) or a drive (C:).
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_ADDRESS = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,9}}")
# The folder of an object is named after the first two digits of its checksum. `\2` in the pattern stands for these two digits.
_CLAIM = re.compile(r"(?P<folder>pictures|maps|studies)/([0-9a-f]{2})/(?P<sha256>\2[0-9a-f]{62})")
# The largest size of a stored object. It is also the largest value that the setting pictures.max_bytes accepts.
_LARGEST_BYTES = 256 * 2**20


def is_heat_map_address(address: str) -> bool:
    """Returns whether `address` has the form of an address of a heat map. Does not check that the heat map exists."""
    match = _CLAIM.fullmatch(address)
    return match is not None and match["folder"] == "maps"


class ObjectStore:
    """Stores pictures and heat maps below `url` and reads stored pictures. Thread-safe. The store is opened at its first use.

    If the store does not answer, each method raises OSError within some seconds.
    """

    def __init__(self, url: str | SecretAddress, max_bytes: int = _LARGEST_BYTES) -> None:
        self._url = reveal(url)
        self._max_bytes = max_bytes

    def put(self, value: bytes, folder: StoreFolder = "pictures") -> str:
        """Stores `value`, and returns its address when the store has confirmed the bytes.

        A value that is stored already is not written again. Raises OSError if the store cannot be written.
        """
        sha256 = hashlib.sha256(value).hexdigest()
        claim = f"{folder}/{sha256[:2]}/{sha256}"
        with open_files(self._url) as (files, root):
            path = f"{root}/{claim}"
            # If an object with this name and size exists, it is complete. An object gets its name only after all its bytes are written.
            if files.exists(path) and files.size(path) == len(value):
                return claim
            if isinstance(files, LocalFileSystem):
                write_atomically(Path(path), value, mode=0o600)
            else:
                # A remote store needs no atomic write, because it never shows an object before all of its bytes have arrived.
                files.pipe_file(path, value, **limit_transfer(files, len(value)))
        return claim

    def fetch(self, claim: str, folder: StoreFolder = "pictures") -> bytes:
        """Returns the object at the address `claim`, after checking its size and its checksum. The object must be in `folder`.

        Raises PictureError with the reason `claim-missing` or `claim-damaged`, and OSError if the store cannot be reached.
        """
        match = _CLAIM.fullmatch(claim)
        if not match or match["folder"] != folder:
            raise PictureError(CLAIM_DAMAGED, f"expected a claim {folder}/<2 digits>/<sha256>, found {claim[:120]!r}")
        with open_files(self._url) as (files, root):
            path = f"{root}/{claim}"
            try:
                size = files.size(path)
                if size is None or size > self._max_bytes:
                    message = f"expected at most {self._max_bytes} bytes at {claim} in the object store, found {size}"
                    raise PictureError(CLAIM_DAMAGED, message)
                value: bytes = files.cat_file(path, **limit_transfer(files, size))
            except (FileNotFoundError, IsADirectoryError):
                raise PictureError(CLAIM_MISSING, f"expected a picture at {claim} in the object store, found none") from None
        sha256 = hashlib.sha256(value).hexdigest()
        if sha256 != match["sha256"]:
            raise PictureError(CLAIM_DAMAGED, f"expected the sha256 {match['sha256']} at {claim} in the object store, found {sha256}")
        return value

    def delete(self, address: str) -> None:
        """Deletes the object at `address`. Does nothing if the object is absent or the address is not valid.

        Raises OSError if the store cannot be reached.
        """
        if not _ADDRESS.fullmatch(address):
            return
        with open_files(self._url) as (files, root), contextlib.suppress(FileNotFoundError):
            files.rm_file(f"{root}/{address}")

    def list_older_than(self, folder: str, before: datetime) -> list[str]:
        """Returns the addresses of the objects below `folder` that were stored before the time `before`, in alphabetical order.

        Raises OSError if the store cannot be reached.
        """
        with open_files(self._url) as (files, root):
            try:
                entries: dict[str, dict[str, Any]] = files.find(f"{root}/{folder}", detail=True)
            except FileNotFoundError:
                return []
        # The time of an object has a different name in each kind of store: S3 calls it `LastModified`, and a local file system `mtime`, in
        # seconds since 1970.
        times = {path: entry.get("LastModified") or datetime.fromtimestamp(entry["mtime"], UTC) for path, entry in entries.items()}
        return sorted(path[path.index(f"/{folder}/") + 1 :] for path, time in times.items() if time < before)
