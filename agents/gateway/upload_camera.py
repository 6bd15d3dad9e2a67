"""The camera of kind `http`, to which other devices upload pictures, and the HTTP interface for part reports.

| request | token | response |
| --- | --- | --- |
| `POST` or `PUT /lines/{line}/pictures`, a picture as body or in a form | the line's | 201, `{"part": "line-1:1700000000:7", …}` |
| `PUT /lines/{line}/pictures/{name}`, the same; the name is ignored | the line's | the same |
| `POST /lines/{line}/parts`, `{"run", "part", "captured_at"}` | gateway.token | 202 |

The answer 201 comes after the picture is on disk. The token stands after "Bearer", or is the password of Basic authentication. Errors are
JSON `{"error": …}`:

| status | meaning |
| --- | --- |
| 400 | a header, a form or compressed data is malformed |
| 401 | the token is missing or wrong |
| 404 | the line does not exist or does not accept this request |
| 405 | the method is neither POST nor PUT |
| 408 | the request came too slowly |
| 409 | the camera that was triggered for this part took no picture |
| 413 | the picture is too large |
| 415 | there is no picture |
| 422 | the idempotency key was used for another picture, or the body is empty |
| 429 | the client's network has sent too many wrong tokens |
| 503 | the picture or the part report was not stored in time, or too many uploads wait |
| 507 | the spool is full, or its disk fails |
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from threading import Event

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from agents.gateway.capture_time import parse_capture_time
from agents.gateway.intake import (
    EMPTY,
    KEY_REUSED,
    MEMORY_FULL,
    NO_PICTURE,
    TOO_LARGE,
    CameraFrame,
    Intake,
    PictureRefusedError,
    TriggeredCamera,
)
from agents.gateway.request_threads import RequestThreads, add_request_threads
from agents.gateway.spool import PictureReceipt
from agents.gateway.token_check import TokenCheck
from agents.gateway.upload_request import RequestRefusedError, make_refusal, read_picture, read_small_body
from agents.gateway.web_server import mark_busy
from streams import metrics
from streams.complaints import Complaints
from streams.errors import IdentityError, SpoolFullError
from streams.identity import PartId
from streams.operating_system import SYSTEM, OperatingSystem

_RECEIPT_TIMEOUT_S = 15.0
_MAX_KEY_CHARACTERS = 200
# If the disk hangs for long, at most this many different abandoned pictures are remembered until the intake goes on.
_MAX_ABANDONED = 1024
_REFUSED = "refused"  # The complaint about the last refused request is stored under this name.
_STATUS_BY_REASON = {EMPTY: 422, TOO_LARGE: 413, KEY_REUSED: 422, NO_PICTURE: 409}


class UploadCamera:
    """Yields the pictures that were uploaded over HTTP."""

    def __init__(self, buffer_bytes: int = 2**25, system: OperatingSystem = SYSTEM) -> None:
        """`buffer_bytes` limits the pictures that are being received or wait for the spool."""
        self.memory = UploadMemory(buffer_bytes)
        # Each frame waits here together with the monotonic time at which it was added.
        self._queue: deque[tuple[CameraFrame, float]] = deque()
        self._changed = system.make_condition()
        self._complaints = Complaints()

    def upload(self, frame: CameraFrame) -> Future[PictureReceipt]:
        """Queues `frame` for the intake. Returns the future of its receipt, which may get a SpoolFullError or a PictureRefusedError."""
        self._complaints.set(_REFUSED, "")
        with self._changed:
            self._queue.append((frame, time.monotonic()))
            self._changed.notify()
        return frame.receipt

    @property
    def waiting_count(self) -> int:
        """The number of pictures that wait for the intake."""
        return len(self._queue) - len(self._list_abandoned())

    def abandon(self, frame: CameraFrame) -> None:
        """Removes the picture of `frame` if it still waits for the intake, because its sender has gone or has waited for too long.

        The queue keeps the checksum of the picture and its time of arrival. If the camera sends the picture again without a time, the
        intake uses this time of arrival. If several copies of the picture are abandoned, the queue keeps only the one that arrived first.
        """
        with self._changed:
            index = next((index for index, (waiting, _) in enumerate(self._queue) if waiting is frame), None)
            if index is None:
                return
            sha256 = hashlib.sha256(frame.value).hexdigest()
            self._queue[index] = replace(frame, value=b"", abandoned_sha256=sha256), self._queue[index][1]
            abandoned = self._list_abandoned()
            copies = [waiting for waiting in abandoned if _names_same_picture(waiting[0], self._queue[index][0])]
            # The oldest pictures stay. Otherwise the next copy of such a picture would count as the first copy, with a later time.
            for surplus in copies[1:] or abandoned[_MAX_ABANDONED:]:
                self._queue.remove(surplus)

    def _list_abandoned(self) -> list[tuple[CameraFrame, float]]:
        return [waiting for waiting in list(self._queue) if waiting[0].abandoned_sha256]

    def find_outage(self) -> str:
        """Returns "", because the gateway cannot detect an outage. A broken camera and a camera without parts both upload nothing."""
        return ""

    def list_complaints(self) -> list[str]:
        return self._complaints.list_texts()

    def complain(self, text: str) -> None:
        """Adds a complaint about a refused request. The complaint disappears when the next picture is uploaded, or after ten minutes."""
        self._complaints.add_event(_REFUSED, text)

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        while not stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue), 0.2)
                frame, since_s = self._queue.popleft() if self._queue else (None, 0.0)
            if frame is not None:
                yield replace(frame, waited_s=time.monotonic() - since_s)
        # The intake stores the checksums of these frames for the next start. It does not wait for the disk now.
        for frame, since_s in self._list_abandoned():
            yield replace(frame, waited_s=time.monotonic() - since_s)


def _names_same_picture(frame: CameraFrame, other: CameraFrame) -> bool:
    return (frame.idempotency_key, frame.abandoned_sha256) == (other.idempotency_key, other.abandoned_sha256)


@dataclass(frozen=True)
class LineEndpoint:
    """Says which uploads and part reports of one line are accepted over HTTP.

    - `uploads`: None if the line accepts no uploads.
    - `part_intake`: None if no board counts the line's parts.
    - `triggered`: the camera that takes a picture of each reported part, or None.
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


def build_app(
    endpoints: Mapping[str, LineEndpoint],
    max_bytes: int,
    parts_token: SecretStr,
    tokens: TokenCheck | None = None,
    receipt_timeout_s: float = _RECEIPT_TIMEOUT_S,
) -> web.Application:
    """Returns the web application of the gateway.

    - `endpoints`: the endpoint of each line.
    - `parts_token`: the token that part reports need.
    - `tokens`: checks the tokens of requests, and counts wrong tokens. With None, the application makes its own TokenCheck.
    - `receipt_timeout_s`: if a picture is not on the disk after this time, its camera gets the status 503.
    """
    app = web.Application(client_max_size=max_bytes, middlewares=[mark_busy, _describe_error])
    handlers = _Handlers(endpoints, max_bytes, parts_token, tokens or TokenCheck(), receipt_timeout_s, add_request_threads(app))
    for path in ("/lines/{line}/pictures", "/lines/{line}/pictures/{name}"):
        app.router.add_post(path, handlers.accept_picture)
        app.router.add_put(path, handlers.accept_picture)
    app.router.add_post("/lines/{line}/parts", handlers.accept_part)
    return app


@web.middleware
async def _describe_error(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Returns an error as JSON if the address of a request is unknown (404), or if its method is wrong (405)."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status not in (404, 405):
            raise
        message = f"expected POST or PUT of a picture at /lines/<line>/pictures, found {request.method} {request.path[:80]}"
        response = _make_error(error.status, f"{message}; correct method and address at the camera")
        response.headers.update({"Allow": error.headers["Allow"]} if "Allow" in error.headers else {})
        return response


class _Handlers:
    def __init__(
        self,
        endpoints: Mapping[str, LineEndpoint],
        max_bytes: int,
        parts_token: SecretStr,
        tokens: TokenCheck,
        receipt_timeout_s: float,
        threads: RequestThreads,
    ) -> None:
        self._endpoints = endpoints
        self._max_bytes = max_bytes
        self._parts_token = parts_token
        self._tokens = tokens
        self._receipt_timeout_s = receipt_timeout_s
        self._threads = threads

    async def accept_picture(self, request: web.Request) -> web.Response:
        endpoint = self._endpoints.get(request.match_info["line"])
        if endpoint is None or endpoint.uploads is None:
            return _make_error(404, f"expected a line that takes uploads, found {request.match_info['line'][:80]!r}")
        with endpoint.uploads.memory.share() as memory:
            return await self._accept_upload(request, endpoint, endpoint.uploads, memory)

    async def _accept_upload(
        self, request: web.Request, endpoint: LineEndpoint, uploads: UploadCamera, memory: MemoryShare
    ) -> web.Response:
        try:
            frame = await self._read_frame(request, endpoint, memory)
        except RequestRefusedError as error:
            # Many cameras send each request first without a password, so a 401 for such a request is no reason for a complaint.
            if error.status != 401 or "Authorization" in request.headers:
                client = self._tokens.find_client(request)
                uploads.complain(f"an upload to {endpoint.line} from {client} was refused with {error.status}: {error}")
            if error.status == 503:
                metrics.pictures_refused.labels(endpoint.line, MEMORY_FULL).inc()
            if error.status != 413:
                return make_refusal(error)
            metrics.pictures_received.labels(endpoint.line).inc()
            metrics.pictures_refused.labels(endpoint.line, TOO_LARGE).inc()
            return _make_too_large_error(error.size, self._max_bytes)
        try:
            answer_by_s = time.monotonic() + self._receipt_timeout_s
            return await self._await_receipt(endpoint.line, uploads.upload(frame), 201, len(frame.value), answer_by_s)
        finally:
            uploads.abandon(frame)

    async def _read_frame(self, request: web.Request, endpoint: LineEndpoint, memory: MemoryShare) -> CameraFrame:
        """Returns the picture of a request as a frame. Raises RequestRefusedError if it is not authorised or has no picture."""
        self._tokens.expect_token(request, endpoint.token, endpoint.line, endpoint.line)
        arrived_at, began_s = datetime.now(UTC), time.monotonic()
        try:
            claimed = request.headers.get("X-Captured-At")
            captured_at = arrived_at if claimed is None else parse_capture_time(claimed, arrived_at)
        except IdentityError as error:
            raise RequestRefusedError(400, f"X-Captured-At: {error}") from None
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > _MAX_KEY_CHARACTERS:
            raise RequestRefusedError(400, f"expected an Idempotency-Key of at most {_MAX_KEY_CHARACTERS} characters, found {len(key)}")
        picture = await read_picture(request, self._max_bytes, memory.grow)
        idempotency_key = f"key:{key}" if key else ""
        return CameraFrame(
            picture.value,
            captured_at,
            picture.declared_type,
            idempotency_key=idempotency_key,
            transfer_s=time.monotonic() - began_s,
            is_arrival=claimed is None,
        )

    async def accept_part(self, request: web.Request) -> web.Response:
        endpoint = self._endpoints.get(request.match_info["line"])
        if endpoint is None or endpoint.part_intake is None:
            return _make_error(404, f"expected a line whose camera is triggered by its board, found {request.match_info['line'][:80]!r}")
        try:
            self._tokens.expect_token(request, self._parts_token, "gateway.token", endpoint.line)
            report = PartReportBody.model_validate_json(await read_small_body(request))
        except RequestRefusedError as error:
            return make_refusal(error)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            return _make_error(400, f"{'.'.join(str(step) for step in problem['loc']) or 'body'}: {problem['msg']}")
        part, captured_at = PartId(endpoint.line, report.run, report.part), report.captured_at.astimezone(UTC)
        answer_by_s = time.monotonic() + self._receipt_timeout_s
        try:
            if endpoint.triggered is None:
                is_repeat = not await self._ask_spool(part.line, partial(endpoint.part_intake.report_part, part, captured_at))
            else:
                is_repeat = await self._ask_spool(part.line, partial(endpoint.part_intake.has_picture, part))
        except SpoolFullError as error:
            return _make_error(507, str(error))
        except TimeoutError:
            return _make_error(503, "the disk of the spool did not answer in time; send the report again")
        if endpoint.triggered is None or is_repeat:
            return web.json_response({"part": str(part), "repeated": is_repeat}, status=202)
        receipt = endpoint.triggered.trigger(part, captured_at)
        return await self._await_receipt(endpoint.line, receipt, 202, 0, answer_by_s)

    async def _ask_spool(self, line: str, ask: Callable[[], bool]) -> bool:
        """Returns `ask()`, which reads the disk in the thread of `line`. Raises TimeoutError if the disk does not answer."""
        return await asyncio.wait_for(self._threads.call(line, ask), self._receipt_timeout_s)

    async def _await_receipt(self, line: str, future: Future[PictureReceipt], status: int, size: int, answer_by_s: float) -> web.Response:
        """Waits until the picture of `size` bytes is stored, and returns a response with `status` and the part, or an error.

        `answer_by_s` is the monotonic time at which the wait ends.
        """
        try:
            receipt = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), answer_by_s - time.monotonic())
        except SpoolFullError as error:
            return _make_error(507, str(error))
        except PictureRefusedError as error:
            if error.reason == TOO_LARGE:
                return _make_too_large_error(size, self._max_bytes)
            return _make_error(_STATUS_BY_REASON.get(error.reason, 422), str(error))
        except TimeoutError:
            metrics.uploads_timed_out.labels(line).inc()
            return _make_error(503, "the picture was not stored in time; send it again under the same Idempotency-Key")
        body = {"part": str(receipt.part), "line": receipt.part.line, "run": receipt.part.run, "number": receipt.part.part}
        return web.json_response({**body, "repeated": receipt.is_repeat, "matched": receipt.is_matched}, status=status)


def _make_too_large_error(size: int, limit: int) -> web.Response:
    message = f"expected at most {limit} bytes, received {size}"
    return web.json_response({"error": message, "size_bytes": size, "limit_bytes": limit}, status=413)


def _make_error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


class UploadMemory:
    """Counts the bytes of the uploads that are being received or wait for the spool. All methods are called in the event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used_bytes = 0

    def share(self) -> MemoryShare:
        """Returns a MemoryShare for a new upload. The MemoryShare has 0 bytes at first, and grows while the picture arrives."""
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
