"""A response that is made while it is sent, for both kinds of server: Django would else gather all of it in memory first."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse


def streamed(request: HttpRequest, pieces: Iterator[bytes], content_type: str, file_name: str) -> StreamingHttpResponse:
    """`pieces` as a file called `file_name`, which is one of ours: it is put into a header as it is."""
    content = _asynchronous(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(content, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return response


async def _asynchronous(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    # A piece at a time in a thread: the database must not hold up the server's loop.
    taken = sync_to_async(lambda: next(pieces, None))
    while (piece := await taken()) is not None:
        yield piece


class Sink(io.RawIOBase):
    """A file that hands on what is written to it; knows how much that was, and cannot go back, so that zipfile writes sizes last."""

    def __init__(self) -> None:
        super().__init__()
        self._written = 0
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, value: object) -> int:
        piece = bytes(value)  # type: ignore[call-overload]
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._written

    def drained(self) -> bytes:
        value = b"".join(self._pieces)
        self._pieces.clear()
        return value
