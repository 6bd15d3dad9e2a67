"""Finds the picture in an HTTP request of a camera.

The picture is the body, or one part of a form. The body may be compressed, and its size is limited.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from aiohttp import web

from streams.identity import UNKNOWN_CONTENT_TYPE, sniff_content_type
from streams.server_limits import compute_body_time_s

_CHUNK_BYTES = 2**16
_MAX_JSON_BYTES = 2**16
# A form has other fields beside the picture. So a form is allowed to have this many bytes more than the largest picture.
FORM_EXTRA_BYTES = 2**20
_MAX_PARTS = 50
# Unpacking costs time. So a compressed body is refused if it unpacks to more than this many times its size. A picture of a casting unpacks
# to about 1.5 times its size. Harmful data can unpack to 1,030 times their size.
_MAX_UNPACK_RATIO = 250
# A compressed body that unpacks to at most this many bytes is accepted, whatever its compressed size is.
_FREE_UNPACKED_BYTES = 2**20
# A body with one of these content types may be the picture itself. Many programs send x-www-form-urlencoded by default.
_RAW_TYPES = ("application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded")


class RequestRefusedError(Exception):
    """Raised for a request that is refused with `status`. The message says what to change at the camera.

    `size` is the number of bytes of a picture that is too large, otherwise 0. `retry_after_s` says after how many seconds the client may
    try again, or is 0.
    """

    def __init__(self, status: int, message: str, size: int = 0, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.size = size
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class UploadedPicture:
    """The bytes of a picture, and the `image/…` content type that the camera declares, or "" if it declares none."""

    value: bytes
    declared_type: str


async def read_picture(request: web.Request, max_bytes: int, reserve: Callable[[int], None]) -> UploadedPicture:
    """Returns the picture in a request. The picture is allowed to have at most `max_bytes`.

    Raises RequestRefusedError with status 400 (malformed), 408 (too slow), 413 (too large) or 415 (no picture).

    Before bytes are put into memory, `reserve` is called with their number. If memory is short, `reserve` raises RequestRefusedError with
    status 503.
    """
    is_form = request.content_type.startswith("multipart/")
    if not (is_form or request.content_type.startswith("image/") or request.content_type in _RAW_TYPES):
        raise RequestRefusedError(
            415,
            f"expected a picture as body (image/… or application/octet-stream) or a form (multipart/form-data), found "
            f"{request.content_type}; choose JPEG, PNG, BMP or TIFF at the camera",
        )
    body = await _read_body(request, max_bytes + FORM_EXTRA_BYTES if is_form else max_bytes, max_bytes, reserve)
    if is_form:
        return _find_picture_part(body, _read_boundary(request), max_bytes)
    if request.content_type == _RAW_TYPES[-1] and body and sniff_content_type(body) == UNKNOWN_CONTENT_TYPE:
        raise RequestRefusedError(
            415,
            f"expected a picture, found {request.content_type} without one; let the camera send the picture itself or multipart/form-data",
        )
    return UploadedPicture(body, request.content_type if request.content_type.startswith("image/") else "")


async def _read_body(request: web.Request, limit: int, max_bytes: int, reserve: Callable[[int], None]) -> bytes:
    """Returns the body of the request. A compressed body is unpacked.

    Raises RequestRefusedError if the body is malformed or too large.

    - `limit`: the largest size of the body, compressed or unpacked. A form may be larger than a picture, because it has other fields.
    - `max_bytes`: the largest size of a picture, for the error message.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise RequestRefusedError(
            415, f"expected Content-Encoding gzip, deflate or none, found {encoding[:40]!r}; switch off the compression at the camera"
        )
    if request.content_length is not None and request.content_length > limit:
        raise _make_too_large(request.content_length, max_bytes)
    unpacker = _Unpacker(encoding) if encoding not in ("", "identity") else None
    body, received = bytearray(), 0
    async for chunk in _read_in_time(request):
        received += len(chunk)
        if received > limit:
            # Compressed data can be long and unpack to nothing, so the received bytes are limited, too.
            raise _make_too_large(received, max_bytes)
        for content in unpacker.unpack(chunk) if unpacker else (chunk,):
            reserve(len(content))
            body += content
            if len(body) > limit:
                raise _make_too_large(limit + 1, max_bytes)
            if unpacker:
                await asyncio.sleep(0)  # Unpacking a small body can take long, so the requests of other cameras are handled in between.
    if unpacker and not unpacker.is_complete:
        raise RequestRefusedError(
            400, f"expected {encoding} data up to its end, found {len(body)} bytes and no end; send the picture again"
        )
    return bytes(body)


async def read_small_body(request: web.Request) -> bytes:
    """Returns the body of a request with a short JSON text. Raises RequestRefusedError if it has more than 64 KiB or comes too slowly."""
    body = b""
    async for chunk in _read_in_time(request):
        body += chunk
        if len(body) > _MAX_JSON_BYTES:
            raise RequestRefusedError(413, f"expected at most {_MAX_JSON_BYTES} bytes, received {len(body)}")
    return body


async def _read_in_time(request: web.Request) -> AsyncIterator[bytes]:
    """Yields the pieces of the body. Raises RequestRefusedError if the body comes too slowly."""
    loop = asyncio.get_running_loop()
    began_s, received = loop.time(), 0
    while True:
        allowed_s = compute_body_time_s(received)
        try:
            async with asyncio.timeout_at(began_s + allowed_s):
                chunk = await request.content.read(_CHUNK_BYTES)
        except TimeoutError:
            text = f"expected the rest of the picture within {allowed_s:.0f} s, received {received} bytes; check the camera's network"
            raise RequestRefusedError(408, text) from None
        if not chunk:
            return
        received += len(chunk)
        yield chunk


class _Unpacker:
    """Unpacks a compressed body piece by piece, so that other requests do not wait. `encoding` is gzip or deflate."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        # With the value 47, zlib accepts both gzip and zlib data.
        self._zlib = zlib.decompressobj(47)
        self._taken = 0
        self._unpacked = 0

    @property
    def is_complete(self) -> bool:
        return self._zlib.eof

    def unpack(self, chunk: bytes) -> Iterator[bytes]:
        """Yields the content of `chunk`, the next bytes of the body, in pieces of at most 64 KiB.

        Raises RequestRefusedError with status 400 in these cases:

        - The body is not valid gzip or deflate data.
        - More bytes follow after the end of these data.
        - The data unpack to far more bytes than a picture does.
        """
        is_after_end = self._zlib.eof and bool(chunk)
        try:
            # After zlib has read the whole chunk, it can still hold content of the chunk. So this loop calls zlib until nothing more comes.
            while not self._zlib.eof and (content := self._zlib.decompress(chunk, _CHUNK_BYTES)):
                self._taken += len(chunk) - len(self._zlib.unconsumed_tail)
                chunk = self._zlib.unconsumed_tail
                self._unpacked += len(content)
                if self._unpacked > max(_FREE_UNPACKED_BYTES, _MAX_UNPACK_RATIO * self._taken):
                    raise RequestRefusedError(
                        400,
                        f"expected {self._encoding} data that unpack to at most {_MAX_UNPACK_RATIO} times their size, found more; switch "
                        "off the compression at the camera",
                    )
                yield content
        except zlib.error:
            raise RequestRefusedError(
                400,
                f"expected {self._encoding} data as the header Content-Encoding says, found other bytes; remove the header at the camera",
            ) from None
        if is_after_end or self._zlib.unused_data:
            raise RequestRefusedError(
                400,
                f"expected nothing after the end of the {self._encoding} data, found more bytes; compress the picture in one piece, or "
                "switch off the compression at the camera",
            )


def _make_too_large(size: int, max_bytes: int) -> RequestRefusedError:
    return RequestRefusedError(413, f"expected at most {max_bytes} bytes, received {size}", size)


def _read_boundary(request: web.Request) -> bytes:
    header = Message()
    header["Content-Type"] = request.headers["Content-Type"]
    boundary = header.get_boundary("")
    if not boundary:
        raise RequestRefusedError(400, f"expected {request.content_type} with a boundary, found none; correct the header Content-Type")
    return boundary.encode("latin-1", "replace")


def _find_picture_part(body: bytes, boundary: bytes, max_bytes: int) -> UploadedPicture:
    """Returns the picture in an uploaded form: the first field whose bytes are a picture.

    If no field has such bytes, returns the first field whose content type may be that of a picture.
    """
    declared: UploadedPicture | None = None
    found = []
    for header, content in _split_form(body, boundary):
        content_type = header.get_content_type() if "Content-Type" in header else ""
        if "base64" in str(header.get("Content-Transfer-Encoding", "")).lower():
            content = _decode_base64(content)
        picture = UploadedPicture(content, content_type if content_type.startswith("image/") else "")
        if sniff_content_type(content) != UNKNOWN_CONTENT_TYPE:
            return _check_size(picture, max_bytes)
        if declared is None and (picture.declared_type or content_type == UNKNOWN_CONTENT_TYPE):
            declared = picture
        name = header.get_param("name", "", "Content-Disposition") or "without a name"
        found.append(f"{str(name)[:40]} ({content_type or 'no type'}, {len(content)} bytes)")
    if declared is None:
        text = ", ".join(found[:5]) or "no part"
        raise RequestRefusedError(415, f"expected a form with a picture, found {text}; let the camera attach a JPEG, PNG, BMP or TIFF")
    return _check_size(declared, max_bytes)


def _check_size(picture: UploadedPicture, max_bytes: int) -> UploadedPicture:
    if len(picture.value) > max_bytes:
        raise _make_too_large(len(picture.value), max_bytes)
    return picture


def _decode_base64(content: bytes) -> bytes:
    try:
        return base64.b64decode(content)
    except binascii.Error:
        raise RequestRefusedError(
            400, "expected base64, as the header in the form says, found other bytes; choose binary transfer at the camera"
        ) from None


def _split_form(body: bytes, boundary: bytes) -> Iterator[tuple[Message, bytes]]:
    """Yields the header and the content of each part of a form.

    Source: RFC 2046, section 5.1.1. Beyond the RFC, a line may also end in a line feed without a carriage return.
    """
    delimiter = b"--" + boundary
    at = body.find(delimiter)
    for _ in range(_MAX_PARTS):
        if at < 0:
            raise RequestRefusedError(400, "expected a form with a closing boundary, found none; send the picture again")
        at += len(delimiter)
        if body[at : at + 2] == b"--":
            return
        start, gap = min(((place, gap) for gap in (b"\r\n\r\n", b"\n\n") if (place := body.find(gap, at)) >= 0), default=(-1, b""))
        if start < 0:
            raise RequestRefusedError(400, "expected a header and an empty line in each part of the form, found none; correct the sender")
        header = HeaderParser().parsestr(body[at:start].decode("utf-8", "replace").strip())
        end = body.find(b"\n" + delimiter, start + len(gap) - 1)
        content = body[start + len(gap) : max(end, start + len(gap))] if end >= 0 else b""
        if end >= 0:
            yield header, content.removesuffix(b"\r")
        at = end + 1 if end >= 0 else -1
    raise RequestRefusedError(400, f"expected at most {_MAX_PARTS} parts in a form, found more; send one picture in each request")


def make_refusal(error: RequestRefusedError) -> web.Response:
    """Returns the response to a request that was refused with `error`.

    A response with status 401 asks for Basic authentication, because many cameras send no password before they are asked.
    """
    response = web.json_response({"error": str(error)}, status=error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="castline", charset="UTF-8"'
    if error.retry_after_s:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response
