"""The camera of kind `http`: uploads over HTTP, and the HTTP interface for part reports of cameras that a board triggers.

| request | `Authorization: Bearer` | response |
| --- | --- | --- |
| `POST /lines/{line}/pictures`, the picture as body | the line's token | 201, `{"part": "line-1:1700000000:7", …}`, when it is on disk |
| `POST /lines/{line}/parts`, `{"run", "part", "captured_at"}` | gateway.token | 202; the picture of a triggered camera is on disk by then |

A picture may have the headers `Idempotency-Key` (a retry under the same key is not a new part) and `X-Captured-At` (RFC 3339). Errors are
JSON `{"error": …}` with one of these statuses:

| status | meaning |
| --- | --- |
| 400 | a header or the body is malformed |
| 401 | the token is missing or wrong |
| 404 | the line does not exist or does not accept this request |
| 409 | the camera has no picture of this part |
| 413 | the picture is too large; the response holds `size_bytes` and `limit_bytes` |
| 415 | the content type is not that of a picture |
| 422 | the idempotency key was used for another picture, or the body is empty |
| 503 | the picture was not stored in time |
| 507 | the spool, the gateway's queue on disk, is full |
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from agents.gateway.intake import EMPTY, KEY_REUSED, NO_PICTURE, TOO_LARGE, CameraFrame, Intake, PictureRefusedError, TriggeredCamera
from agents.gateway.spool import PictureReceipt
from streams import metrics
from streams.errors import IdentityError, SpoolFullError
from streams.identity import PartId, parse_time

_RECEIPT_TIMEOUT_S = 15.0
_MAX_KEY_CHARACTERS = 200
_CHUNK_BYTES = 2**16
_STATUS_BY_REASON = {EMPTY: 422, TOO_LARGE: 413, KEY_REUSED: 422, NO_PICTURE: 409}


class UploadCamera:
    """Gives the pictures that were uploaded."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[CameraFrame] = SimpleQueue()

    def upload(self, frame: CameraFrame) -> Future[PictureReceipt]:
        """Hands `frame` to the intake. Returns the future of its receipt, which may fail with SpoolFullError or PictureRefusedError."""
        self._queue.put(frame)
        return frame.receipt

    def list_complaints(self) -> list[str]:
        return []  # Whoever uploads gets the reason of a refusal as the response.

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        while not stopping.is_set():
            try:
                yield self._queue.get(timeout=0.2)
            except Empty:
                continue


@dataclass(frozen=True)
class LineEndpoint:
    """What a line accepts over HTTP.

    `uploads` is None if the line accepts no uploads. `part_intake` is None if no board counts its parts. `triggered` is the camera that
    takes a picture for each reported part, or None if the pictures come by themselves.
    """

    line: str
    token: SecretStr
    uploads: UploadCamera | None
    triggered: TriggeredCamera | None
    part_intake: Intake | None


class PartReportBody(BaseModel):
    """The body of `POST /lines/{line}/parts`: the board counted a part at `captured_at`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: int = Field(ge=1, le=2**63 - 1)
    part: int = Field(ge=1, le=2**63 - 1)
    captured_at: AwareDatetime


def build_app(endpoints: Mapping[str, LineEndpoint], max_bytes: int, parts_token: SecretStr) -> web.Application:
    """Returns the web application of the gateway. `endpoints` are keyed by line, and `parts_token` authorises part reports."""
    handlers = _Handlers(endpoints, max_bytes, parts_token)
    app = web.Application(client_max_size=max_bytes)
    app.router.add_post("/lines/{line}/pictures", handlers.accept_picture)
    app.router.add_post("/lines/{line}/parts", handlers.accept_part)
    return app


class _Handlers:
    def __init__(self, endpoints: Mapping[str, LineEndpoint], max_bytes: int, parts_token: SecretStr) -> None:
        self._endpoints = endpoints
        self._max_bytes = max_bytes
        self._parts_token = parts_token

    async def accept_picture(self, request: web.Request) -> web.Response:
        endpoint = self._endpoints.get(request.match_info["line"])
        if endpoint is None or endpoint.uploads is None:
            return _make_error(404, f"expected a line that takes uploads, found {request.match_info['line'][:80]!r}")
        if not _is_authorised(request, endpoint.token):
            return _make_error(401, f"expected Authorization: Bearer with the token of {endpoint.line}")
        if not _is_picture_type(request.content_type):
            return _make_error(
                415, f"expected the picture itself as body (image/… or application/octet-stream), found {request.content_type}"
            )
        try:
            captured_at = parse_time(request.headers["X-Captured-At"]) if "X-Captured-At" in request.headers else datetime.now(UTC)
        except IdentityError as error:
            return _make_error(400, f"X-Captured-At: {error}")
        body = await self._read_body(request)
        if isinstance(body, int):
            metrics.pictures_received.labels(endpoint.line).inc()
            metrics.pictures_refused.labels(endpoint.line, TOO_LARGE).inc()
            return _make_too_large_error(body, self._max_bytes)
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > _MAX_KEY_CHARACTERS:
            return _make_error(400, f"expected an Idempotency-Key of at most {_MAX_KEY_CHARACTERS} characters, found {len(key)}")
        declared_type = request.headers.get("Content-Type", "") if request.content_type.startswith("image/") else ""
        frame = CameraFrame(body, captured_at, declared_type, idempotency_key=f"key:{key}" if key else "")
        return await _await_receipt(endpoint.uploads.upload(frame), 201, len(body), self._max_bytes)

    async def _read_body(self, request: web.Request) -> bytes | int:
        """Returns the body, or its size as far as it is known if it is too large. At most the allowed size is held in memory."""
        if request.content_length is not None and request.content_length > self._max_bytes:
            return request.content_length
        body = bytearray()
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._max_bytes:
                return len(body)
        return bytes(body)

    async def accept_part(self, request: web.Request) -> web.Response:
        endpoint = self._endpoints.get(request.match_info["line"])
        if endpoint is None or endpoint.part_intake is None:
            return _make_error(404, f"expected a line whose camera is triggered by its board, found {request.match_info['line'][:80]!r}")
        if not _is_authorised(request, self._parts_token):
            return _make_error(401, "expected Authorization: Bearer with gateway.token")
        try:
            report = PartReportBody.model_validate_json(await request.read())
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            return _make_error(400, f"{'.'.join(str(step) for step in problem['loc']) or 'body'}: {problem['msg']}")
        part, captured_at = PartId(endpoint.line, report.run, report.part), report.captured_at.astimezone(UTC)
        if endpoint.triggered is None:
            is_new = await asyncio.to_thread(endpoint.part_intake.report_part, part, captured_at)
            return web.json_response({"part": str(part), "repeated": not is_new}, status=202)
        if await asyncio.to_thread(endpoint.part_intake.has_picture, part):
            return web.json_response({"part": str(part), "repeated": True}, status=202)
        return await _await_receipt(endpoint.triggered.trigger(part, captured_at), 202, 0, self._max_bytes)


async def _await_receipt(future: Future[PictureReceipt], status: int, size: int, limit: int) -> web.Response:
    """Waits for a receipt and returns the response: `status` and the part, or an error. `size` and `limit` are bytes of the picture."""
    try:
        receipt = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), _RECEIPT_TIMEOUT_S)
    except SpoolFullError as error:
        return _make_error(507, str(error))
    except PictureRefusedError as error:
        if error.reason == TOO_LARGE:
            return _make_too_large_error(size, limit)
        return _make_error(_STATUS_BY_REASON.get(error.reason, 422), str(error))
    except TimeoutError:
        return _make_error(503, "the picture was not stored in time; send it again under the same Idempotency-Key")
    body = {"part": str(receipt.part), "line": receipt.part.line, "run": receipt.part.run, "number": receipt.part.part}
    return web.json_response({**body, "repeated": receipt.is_repeat, "matched": receipt.is_matched}, status=status)


def _is_authorised(request: web.Request, token: SecretStr) -> bool:
    """Returns whether the request carries `token`. If `token` is empty, nobody is authorised."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    expected = token.get_secret_value()
    # The comparison takes constant time, so that its duration does not reveal how many characters of a guess were right.
    is_equal = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected.encode())
    return bool(expected) and scheme.lower() == "bearer" and is_equal


def _is_picture_type(content_type: str) -> bool:
    return content_type.startswith("image/") or content_type == "application/octet-stream"


def _make_too_large_error(size: int, limit: int) -> web.Response:
    message = f"expected at most {limit} bytes, received {size}"
    return web.json_response({"error": message, "size_bytes": size, "limit_bytes": limit}, status=413)


def _make_error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
