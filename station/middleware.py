"""Limits the number of concurrent requests and the size of request bodies, before Django sees the requests.

`station.server` connects these layers: RequestQueueMiddleware -> SignedUrlMiddleware -> BodyLimitMiddleware -> Django.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

AsgiScope = MutableMapping[str, Any]
AsgiEvent = Mapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiEvent]]
AsgiSend = Callable[[AsgiEvent], Awaitable[None]]
AsgiApplication = Callable[[Any, AsgiReceive, AsgiSend], Awaitable[None]]

# This event is set when the process must end. Responses without an end, such as the live pages, then stop.
stopping = threading.Event()

API_PREFIX = "/api/"
_UPLOAD_PREFIXES = ("/uploads/", API_PREFIX)

# Largest number of requests at the same time. The limit is high, because a live page is a request that never ends.
_MAX_RUNNING = 160
_MAX_QUEUE_WAIT_S = 15.0
_MAX_QUEUED = 320
# Longest pause in a request body. Without this limit, a client that stops sending would occupy one of the running requests for ever.
_MAX_BODY_PAUSE_S = 30.0


async def send_text_response(scope: AsgiScope, send: AsgiSend, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    """Answers a request with one sentence. The answer is JSON if the address begins with /api/, and plain text otherwise."""
    if scope["path"].startswith(API_PREFIX):
        content_type, body = b"application/json", json.dumps({"error": sentence}).encode()
    else:
        content_type, body = b"text/plain; charset=utf-8", f"{sentence}\n".encode()
    response_headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": response_headers})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


class RequestQueueMiddleware:
    """Limits how many requests run at the same time, and how many more wait in a queue.

    If the queue is full, or a request waits longer than `max_wait_s`, the answer is status 503 with the header Retry-After.
    """

    def __init__(
        self, inner: AsgiApplication, max_running: int = _MAX_RUNNING, max_queued: int = _MAX_QUEUED, max_wait_s: float = _MAX_QUEUE_WAIT_S
    ) -> None:
        self._inner = inner
        self._running = asyncio.Semaphore(max_running)
        self._max_queued = max_queued
        self._queued = 0
        self._max_wait_s = max_wait_s

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if not await self._acquire():
            await _refuse(
                scope, send, 503, "The station is busy: too many requests at once. Try again in a moment.", (b"retry-after", b"5")
            )
            return
        try:
            await self._inner(scope, receive, send)
        finally:
            self._running.release()

    async def _acquire(self) -> bool:
        """Waits until the request is allowed to run, then returns True. Returns False if the queue is full or the wait takes too long."""
        if self._running.locked() and self._queued >= self._max_queued:
            return False
        self._queued += 1
        try:
            async with asyncio.timeout(self._max_wait_s):
                await self._running.acquire()
        except TimeoutError:
            return False
        finally:
            self._queued -= 1
        return True


class BodyLimitMiddleware:
    """Refuses a request body that is too large (status 413) or that stops arriving (status 408).

    Django reads the whole request before it checks who sent it, so the limits are checked here first.
    """

    def __init__(self, inner: AsgiApplication, form_bytes: int, upload_bytes: int, max_pause_s: float = _MAX_BODY_PAUSE_S) -> None:
        self._inner = inner
        self._form_bytes = form_bytes
        self._upload_bytes = upload_bytes
        self._max_pause_s = max_pause_s

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        limit = self._upload_bytes if scope["path"].startswith(_UPLOAD_PREFIXES) else self._form_bytes
        too_large = f"Too large: a request to this address can have at most {limit // 1024} KiB."
        if _announced_bytes(scope["headers"]) > limit:
            await _refuse(scope, send, 413, too_large)
            return
        read_bytes, body_complete, responded = 0, False, False
        refusal: tuple[int, str] | None = None

        async def receive_within_limits() -> AsgiEvent:
            nonlocal read_bytes, body_complete, refusal
            try:
                # After the complete body, Django calls receive() again to wait for the end of the connection. This wait has no limit.
                async with asyncio.timeout(None if body_complete else self._max_pause_s):
                    event = await receive()
            except TimeoutError:
                refusal = 408, f"The rest of this request did not come within {self._max_pause_s:.0f} s."
                return {"type": "http.disconnect"}
            if event["type"] == "http.request":
                read_bytes += len(event["body"])
                body_complete = not event.get("more_body", False)
                if read_bytes > limit:
                    refusal = 413, too_large
                    return {"type": "http.disconnect"}
            return event

        async def send_and_note(event: AsgiEvent) -> None:
            nonlocal responded
            responded = True
            await send(event)

        await self._inner(scope, receive_within_limits, send_and_note)
        if refusal and not responded:
            await _refuse(scope, send, *refusal)


def _announced_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    values = [value for name, value in headers if name == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() else 0


async def _refuse(scope: AsgiScope, send: AsgiSend, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    await send_text_response(scope, send, status, sentence, (b"connection", b"close"), *headers)
