"""Opens the file systems of fsspec. If a remote storage, such as S3, fails or answers too late, the caller gets an OSError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from streams.secrets import mask_address, mask_secrets

# The libraries that fsspec uses for remote storage. Their errors are recognised by these names. An import of their error classes would
# fail if a library is not installed.
_CLIENT_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "urllib3", "gcsfs", "adlfs")
# Limits for S3. Without them, a request to a server that accepts connections but never answers would fail only after seven minutes. The
# time of `read_timeout` begins after the object was sent, so a slow upload does not exceed this limit. Two attempts are enough, because the
# callers of this module repeat a failed request.
_S3_OPTIONS: dict[str, Any] = {"connect_timeout": 3, "read_timeout": 5, "retries": {"total_max_attempts": 2, "mode": "standard"}}
_S3_PROTOCOLS = ("s3", "s3a")
# The time limit for the transfer of an object is `_SHORTEST_LIMIT_S`, plus the time that the object takes at `_SLOWEST_BYTES_PER_S`.
_SHORTEST_LIMIT_S = 20.0
_SLOWEST_BYTES_PER_S = 2**20


class MissingLibraryError(OSError):
    """The library for the protocol of an address is not installed."""


@contextmanager
def open_files(url: str) -> Iterator[tuple[Any, str]]:
    """Yields the file system of fsspec for `url`, and the path in it.

    If a client library raises an error in the `with` block, the caller gets an OSError. If a library is missing, the caller gets a
    MissingLibraryError.
    """
    try:
        yield _connect(url)
    except ImportError as error:
        message = f"{mask_address(url)} needs a library that is not installed. For s3 install the extra s3: pip install 'castline[s3]'"
        raise MissingLibraryError(message) from error
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in _CLIENT_LIBRARIES:
            raise
        raise OSError(f"{mask_address(url)} does not answer: {mask_secrets(str(error)) or type(error).__name__}") from error


def limit_transfer(files: Any, size: int) -> dict[str, float]:
    """Returns the time limit for a transfer of `size` bytes, as the keyword argument `timeout` for a method of `files`.

    Returns an empty dictionary if the file system `files` does not support a time limit.
    """
    return {"timeout": _SHORTEST_LIMIT_S + size / _SLOWEST_BYTES_PER_S} if getattr(files, "async_impl", False) else {}


def _connect(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    if protocol not in _S3_PROTOCOLS:
        files, root = fsspec.core.url_to_fs(url)
        return files, root
    configured = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
    files, root = fsspec.core.url_to_fs(url, config_kwargs=_S3_OPTIONS | configured)
    files.retries = 1
    return files, root
