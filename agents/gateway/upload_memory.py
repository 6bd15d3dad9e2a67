"""The memory for the uploads of one line, which is limited in bytes."""

from __future__ import annotations

from agents.gateway.upload_request import RequestRefusedError


class UploadMemory:
    """Counts the bytes of the uploads that are being received or wait for the spool. All methods are called in the event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used_bytes = 0

    def share(self) -> MemoryShare:
        """Returns the memory of a new upload. It holds no bytes until `grow` is called."""
        return MemoryShare(self)

    def reserve(self, size: int) -> None:
        """Reserves `size` bytes. Raises RequestRefusedError with status 503 if there is no room."""
        if self.used_bytes + size > self._max_bytes:
            raise RequestRefusedError(
                503,
                f"no memory for the picture: {self.used_bytes} of {self._max_bytes} bytes are in use for uploads of this line; "
                "send the picture again after a second",
            )
        self.used_bytes += size

    def release(self, size: int) -> None:
        """Frees `size` bytes."""
        self.used_bytes -= size


class MemoryShare:
    """The memory of one upload. Leaving the `with` block frees the memory."""

    def __init__(self, memory: UploadMemory) -> None:
        self._memory = memory
        self._bytes = 0

    def grow(self, size: int) -> None:
        """Reserves `size` more bytes. Raises RequestRefusedError with status 503 if there is no room."""
        self._memory.reserve(size)
        self._bytes += size

    def __enter__(self) -> MemoryShare:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.release(self._bytes)
