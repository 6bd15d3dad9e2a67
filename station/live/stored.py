"""What lies in the object store, by addresses that records carry: hostile until they were looked at."""

from __future__ import annotations

import re
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from streams.errors import PictureError

# No segment begins with a dot, none is empty, no scheme, no drive: nothing that leads out of the store.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_ADDRESS = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,9}}")


def read_stored(url: str, address: str, max_bytes: int) -> bytes:
    """The object at `address` below the store at `url`.

    Raises PictureError: `claim-damaged` for an address that does not lie in the store or an object that is too large,
    `claim-missing` when there is none. OSError: when the store itself cannot be reached.
    """
    if not _ADDRESS.fullmatch(address):
        raise PictureError("claim-damaged", f"expected an address within the store, found {address[:120]!r}")
    files, root = fsspec.core.url_to_fs(url)
    path = f"{root}/{address}"
    if isinstance(files, LocalFileSystem) and not Path(path).resolve().is_relative_to(Path(root).resolve()):
        raise PictureError("claim-damaged", f"expected an address within the store, found a link that leads out of it: {address!r}")
    try:
        size = files.size(path)
        if size is None or size > max_bytes:
            raise PictureError("claim-damaged", f"expected at most {max_bytes} bytes at {address}, found {size}")
        value: bytes = files.cat_file(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise PictureError("claim-missing", f"expected an object at {address}, found none") from None
    return value
