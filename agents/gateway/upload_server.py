"""Pictures and part reports that come over HTTP.

| request | `Authorization: Bearer` | answer |
| --- | --- | --- |
| `POST /lines/{line}/pictures`, the picture as body | the line's token | 201, `{"part": "line-1:1700000000:7", …}`, once it is safe |
| `POST /lines/{line}/parts`, `{"run", "part", "captured_at"}` | gateway.token | 202; a triggered camera's picture is safe by then |

Optional headers of a picture: `Idempotency-Key` (a retry under the same key is not a new part), `X-Captured-At` (RFC 3339).
Refusals are JSON `{"error": …}`: 400 malformed, 401 token, 404 line, 409 no picture of this part,
413 size (with `size_bytes`, `limit_bytes`), 415 not a picture's type, 422 key used for another picture or nothing in
the body, 503 no answer in time, 507 spool full.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from agents.gateway.camera import NO_PICTURE, Frame, RefusedError, Taken, Triggered
from agents.gateway.intake import TOO_LARGE, Intake
from streams import metrics
from streams.errors import CastlineError, IdentityError, SpoolFullError
from streams.identity import PartId, parse_time

log = logging.getLogger(__name__)

_ANSWER_S = 15.0
_STATUS = {"empty": 422, TOO_LARGE: 413, "key-reused": 422, NO_PICTURE: 409}


class UploadCamera:
    """Hands what is uploaded to the gateway."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Frame, Future[Taken]]] = SimpleQueue()
        self._answers: dict[Frame, Future[Taken]] = {}

    def upload(self, frame: Frame) -> Future[Taken]:
        """Fails with SpoolFullError or RefusedError."""
        answer: Future[Taken] = Future()
        self._queue.put((frame, answer))
        return answer

    def frames(self, stopping: Event) -> Iterator[Frame]:
        while not stopping.is_set():
            try:
                frame, answer = self._queue.get(timeout=0.2)
            except Empty:
                continue
            self._answers[frame] = answer
            yield frame

    def done(self, frame: Frame, taken: Taken) -> None:
        self._answers.pop(frame).set_result(taken)

    def refused(self, frame: Frame, error: CastlineError) -> None:
        self._answers.pop(frame).set_exception(error)


@dataclass(frozen=True)
class Door:
    """What a line takes over HTTP; None where it does not."""

    line: str
    token: SecretStr
    uploads: UploadCamera | None
    triggered: Triggered | None
    parts: Intake | None


class PartReport(BaseModel):
    """The board counted a part; the body of `POST /lines/{line}/parts`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: int = Field(ge=1, le=2**63 - 1)
    part: int = Field(ge=1, le=2**63 - 1)
    captured_at: AwareDatetime


def build_app(doors: Mapping[str, Door], max_bytes: int, parts_token: SecretStr) -> web.Application:
    """The gateway's web application."""
    handlers = _Handlers(doors, max_bytes, parts_token)
    app = web.Application(client_max_size=max_bytes)
    app.router.add_post("/lines/{line}/pictures", handlers.picture)
    app.router.add_post("/lines/{line}/parts", handlers.part)
    return app


class _Handlers:
    def __init__(self, doors: Mapping[str, Door], max_bytes: int, parts_token: SecretStr) -> None:
        self._doors = doors
        self._max_bytes = max_bytes
        self._parts_token = parts_token

    async def picture(self, request: web.Request) -> web.Response:
        door = self._doors.get(request.match_info["line"])
        if door is None or door.uploads is None:
            return _refusal(404, f"expected a line that takes uploads, found {request.match_info['line'][:80]!r}")
        if not _admitted(request, door.token):
            return _refusal(401, f"expected Authorization: Bearer with the token of {door.line}")
        if not _may_be_picture(request.content_type):
            return _refusal(415, f"expected the picture itself as body (image/… or application/octet-stream), found {request.content_type}")
        try:
            captured_at = parse_time(request.headers["X-Captured-At"]) if "X-Captured-At" in request.headers else datetime.now(UTC)
        except IdentityError as error:
            return _refusal(400, f"X-Captured-At: {error}")
        value = await self._body(request)
        if isinstance(value, int):
            metrics.pictures_received.labels(door.line).inc()
            metrics.pictures_refused.labels(door.line, TOO_LARGE).inc()
            return _too_large(value, self._max_bytes)
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > 200:
            return _refusal(400, f"expected an Idempotency-Key of at most 200 characters, found {len(key)}")
        declared = request.headers.get("Content-Type", "")
        frame = Frame(value, captured_at, declared if request.content_type.startswith("image/") else "", mark=f"key:{key}" if key else "")
        return await _answer(door.uploads.upload(frame), 201, len(value), self._max_bytes)

    async def _body(self, request: web.Request) -> bytes | int:
        """The body, or its size as far as known when it is too large: no more than the limit is ever held."""
        if request.content_length is not None and request.content_length > self._max_bytes:
            return request.content_length
        value = bytearray()
        async for chunk in request.content.iter_chunked(2**16):
            value += chunk
            if len(value) > self._max_bytes:
                return len(value)
        return bytes(value)

    async def part(self, request: web.Request) -> web.Response:
        door = self._doors.get(request.match_info["line"])
        if door is None or door.parts is None:
            return _refusal(404, f"expected a line whose camera is triggered by its board, found {request.match_info['line'][:80]!r}")
        if not _admitted(request, self._parts_token):
            return _refusal(401, "expected Authorization: Bearer with gateway.token")
        try:
            report = PartReport.model_validate_json(await request.read())
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            return _refusal(400, f"{'.'.join(str(step) for step in problem['loc']) or 'body'}: {problem['msg']}")
        part, captured_at = PartId(door.line, report.run, report.part), report.captured_at.astimezone(UTC)
        if door.triggered is None:
            news = await asyncio.to_thread(door.parts.report, part, captured_at)
            return web.json_response({"part": str(part), "repeated": not news}, status=202)
        if await asyncio.to_thread(door.parts.taken, part):
            return web.json_response({"part": str(part), "repeated": True}, status=202)
        return await _answer(door.triggered.trigger(part, captured_at), 202, 0, self._max_bytes)


async def _answer(answer: Future[Taken], status: int, size: int, limit: int) -> web.Response:
    try:
        taken = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(answer)), _ANSWER_S)
    except SpoolFullError as error:
        return _refusal(507, str(error))
    except RefusedError as error:
        if error.reason == TOO_LARGE:
            return _too_large(size, limit)
        return _refusal(_STATUS.get(error.reason, 422), str(error))
    except TimeoutError:
        return _refusal(503, "the picture was not taken in time; send it again under the same Idempotency-Key")
    body = {"part": str(taken.part), "line": taken.part.line, "run": taken.part.run, "number": taken.part.part}
    return web.json_response({**body, "repeated": taken.repeated, "matched": taken.matched}, status=status)


def _admitted(request: web.Request, token: SecretStr) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    wanted = token.get_secret_value()
    # Compared in constant time, so that answers do not tell how much of a guess was right. No token set: nobody.
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), wanted.encode())
    return bool(wanted) and scheme.lower() == "bearer" and same


def _may_be_picture(content_type: str) -> bool:
    return content_type.startswith("image/") or content_type == "application/octet-stream"


def _too_large(size: int, limit: int) -> web.Response:
    message = f"expected at most {limit} bytes, received {size}"
    return web.json_response({"error": message, "size_bytes": size, "limit_bytes": limit}, status=413)


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
